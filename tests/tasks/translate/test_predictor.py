import logging
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

import longflow
from longflow.data.dataset import read_description, read_rows, series_of_folder
from longflow.data.images import Volume, read_scan, write_volume
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.files import write_json
from longflow.inference.predictor import predict_folder
from longflow.inference.windows import WindowSettings
from longflow.integrity.prediction import scan_problems
from longflow.paths import DatasetPaths
from longflow.preprocessing.series import RawSeries, export_forecast, prepare_volumes
from longflow.reading import read_json
from longflow.tasks.translate.predictor import Translator, keep_empty, translate_scan
from longflow.tasks.translate.windows import predict_translation
from tests.data.helpers import edit_table, write_phase_dataset
from tests.inference.helpers import PHASES, plans_to_translate, translation_model, use_one_convolution
from tests.inference.test_predictor import names
from tests.training.helpers import finished_model, geometry

SHAPE, SPACING = (4, 12, 10), (5.0, 1.5, 1.5)
CASES = [f"{subject}_0_{phase}" for subject in ("p1", "p2") for phase in ("arterial", "native")]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Two subjects in two phases, 4 x 12 x 10 voxels; methods have a network of one convolution."""
    use_one_convolution(monkeypatch)
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    paths = DatasetPaths("Dataset104_Phases")
    write_phase_dataset(paths.raw, shapes=(SHAPE,))
    return paths


@pytest.fixture
def untrained(dataset):
    translation_model(dataset)
    return Translator.load(device="cpu")


@pytest.fixture
def awake(dataset):
    """Random weights: everything matters."""
    translation_model(dataset, random=True)
    return Translator.load(device="cpu")


@pytest.fixture
def folder(dataset):
    """The training scans as an input folder."""
    shutil.copy(dataset.raw / "scans.csv", dataset.raw / "imagesTr" / "scans.csv")
    return dataset.raw / "imagesTr"


def array(seed=0, low=-1500, high=1500):
    return np.random.default_rng(seed).integers(low, high, SHAPE).astype(np.int16)


def read(folder, case):
    return read_scan((folder / f"{case}_0000.nii.gz",))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("spacing", [(5, 2, 2), SPACING])
@pytest.mark.parametrize("kind", ["int16", "float32", "uint16"])
def test_an_untrained_flow_returns_the_scan_bit_identically(untrained, phase, spacing, kind):
    """On the grid that it was planned for and on another one; beyond the limits that the plan clips to as well."""
    scan = array(low=0 if kind == "uint16" else -1500).astype(kind)
    found = untrained.predict(scan, phase, spacing)
    assert found.dtype == kind and np.array_equal(found, scan)


def test_what_is_empty_around_the_body_stays_so(dataset):
    """Where each scan has a normal form of its own, so that zero has no fixed meaning."""
    translation_model(dataset, plans_to_translate(channel="T1", normal_form="per_scan"), random=True)
    awake = Translator.load(device="cpu")
    scan = array(low=1)
    scan[:, :5] = 0
    scan[:, :, -3:] = 0
    scan[2, 8, 4] = 0  # a hole in the body is none of it
    found = awake.predict(scan, PHASES[0], SPACING)
    empty = scan == 0
    empty[2, 8, 4] = False
    assert not found[empty].any()
    assert (found != scan)[~empty].mean() > 0.9
    assert found[2, 8, 4] != 0


def test_water_is_translated(awake):
    """0 HU is a value: in the first and the last slice, at the border of a slice, and in a slice alone."""
    scan = array(low=1)
    scan[:, 3:6, 2:8] = 0
    scan[:, 8, :4] = 0
    for one in (scan, scan[:1]):
        found = awake.predict(one.astype(np.float32), PHASES[0], SPACING)
        assert (found != one)[one == 0].all()


def test_only_channels_with_a_normal_form_of_their_own_keep_what_is_empty():
    """CT and MR: a frame that is zero in both is empty in MR alone; zero of MR that is enclosed is translated."""
    channels = [plans_to_translate().channels[0], plans_to_translate(channel="T1", normal_form="per_scan").channels[0]]
    scan, translated = np.zeros((2, *SHAPE)), np.full((2, *SHAPE), 7.0)
    scan[:, :, 3:9, 3:7] = 5
    scan[:, 2, 5, 5] = 0
    keep_empty(translated, scan, channels)
    expected = np.full((2, *SHAPE), 7.0)
    expected[1] = 0
    expected[1, :, 3:9, 3:7] = 7
    assert np.array_equal(translated, expected)


def test_images_come_back_as_images_with_their_geometry(awake):
    image = sitk.GetImageFromArray(array())
    image.SetSpacing((1.5, 1.5, 5.0))
    image.SetOrigin((1.0, 2.0, 3.0))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    found = awake.predict(image, phase="arterial")
    assert found.GetPixelID() == sitk.sitkInt16
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, name)() == getattr(image, name)()
    same = awake.predict(array(), "arterial", SPACING)
    assert np.array_equal(sitk.GetArrayFromImage(found), same) and not np.array_equal(same, array())


@pytest.mark.parametrize("normal_form", ["absolute", "per_scan"])
def test_the_parts_are_put_together_as_they_are_tested_each(dataset, normal_form):
    """Preparation of the scan alone, the sliding window, the change added to the file; two folds, mirrored."""
    plans = plans_to_translate(normal_form=normal_form)
    for fold in (0, 1):
        translation_model(dataset, plans, random=True, fold=fold, seed=fold)
    translator = Translator.load(device="cpu", mirror=True)
    (member,) = translator.models.members
    volume = Volume(array()[None].astype(np.float32), geometry(SHAPE, SPACING), "int16")
    prepared = prepare_volumes(RawSeries.of_scan("s", volume), plans, "3d_fullres")
    image = np.asarray(prepared.images[0])
    windows = WindowSettings("cpu", 0.5, mirror=True)
    for number, phase in enumerate(PHASES):
        predicted = predict_translation(member.methods, image, number, windows)
        expected = export_forecast(predicted, image, volume.array, prepared.properties, 0)
        found = translator.translate(volume, phase)
        assert found.dtype == np.float32 and np.array_equal(found, expected)
        assert np.array_equal(translate_scan(member, volume, number, windows), expected)


def test_both_ways_are_one_flow_integrated_either_way(dataset):
    """v = c (1 + t) with a constant c: one Heun step is exact, forth it adds 1.5 c, back it takes it away."""
    translation_model(dataset)
    translator = Translator.load(device="cpu")
    translator.models.members[0].methods[0].network.convolution.bias.data.fill_(1 / 64)  # bf16 holds it
    scan = np.full(SHAPE, 40, np.float32)
    np.testing.assert_allclose(translator.predict(scan, "native", SPACING), 40 + 1500 / 64, rtol=1e-5)
    np.testing.assert_allclose(translator.predict(scan, "arterial", SPACING), 40 - 1500 / 64, rtol=1e-5)


def test_slices_on_their_own_grid(dataset):
    """2D, on the grid of the file: each slice is translated by itself, resampled nowhere."""
    plans = plans_to_translate(dimensions=2, own_grid=True)
    translation_model(dataset, plans, configuration="2d", random=True)
    translator = Translator.load(device="cpu")
    scan = array().astype(np.float32)
    found = translator.predict(scan, "native", SPACING)
    alone = [translator.predict(scan[z : z + 1], "native", SPACING)[0] for z in range(SHAPE[0])]
    np.testing.assert_allclose(found, alone, atol=1e-3)
    assert np.abs(found - scan).max() > 1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_diffusion_begins_with_the_same_noise_every_time(dataset, dimensions):
    """And needs no solver; in 2D, what all slices share gives slices that are alike: so does the noise."""
    (configuration,) = plans_to_translate(dimensions).configurations
    finished_model(dataset, plans_to_translate(dimensions), "ddpm", configuration, random=True)
    translator = Translator.load(device="cpu")
    assert translator.settings()["solver"] is None
    for method in translator.models.members[0].methods:
        method.scheduler.set_timesteps(2)
    scan = np.repeat(array()[:1], 4, axis=0).astype(np.float32)
    found = translator.predict(scan, "native", (5, 2, 2))
    assert np.array_equal(found, translator.predict(scan, "native", (5, 2, 2)))
    assert np.isfinite(found).all() and not np.array_equal(found, scan)
    assert np.array_equal(found[0], found[1]) == (dimensions == 2)


def test_several_models_are_averaged(dataset):
    """As longflow_find_best may record them."""
    members = []
    for seed in (0, 1):
        plans = plans_to_translate()
        plans.plans_name = f"plans{seed}"
        translation_model(dataset, plans, random=True, seed=seed)
        members.append({"method": "mfm", "plans_name": f"plans{seed}", "configuration": "3d_fullres", "folds": [0]})

    def translated(*chosen):
        write_json({"members": list(chosen), "reduction": None, "shrinkage": 1}, dataset.best)
        return Translator.load(device="cpu").predict(array().astype(np.float32), "native", SPACING)

    zero, one = (translated(member) for member in members)
    assert not np.array_equal(zero, one)
    np.testing.assert_allclose(translated(*members), (zero + one) / 2, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("error", "message", "scan", "phase", "spacing"),
    [
        (NotFoundError, "no phase 'artrial'. Did you mean 'arterial'", array(), "artrial", SPACING),
        (DataError, "a spacing of three numbers", array(), "native", None),
        (DataError, "2 channels, expected 1: CT", np.stack([array()] * 2), "native", SPACING),
        (DataError, "NaN or infinite", np.full(SHAPE, np.nan), "native", SPACING),
    ],
)
def test_what_cannot_be_translated(untrained, error, message, scan, phase, spacing):
    with pytest.raises(error, match=message):
        untrained.predict(scan, phase, spacing)


def test_a_folder_is_translated_both_ways(awake, folder, tmp_path):
    out = tmp_path / "out"
    for phase, other in (PHASES, PHASES[::-1]):
        requests = predict_folder(awake, folder, out, {"to": phase})
        assert [item.target.case for item in requests] == [f"{subject}_0_{other}_{phase}" for subject in ("p1", "p2")]
        for item in requests:
            found, source = read(out, item.target.case), read(folder, item.source.case)
            assert found.data_type == "int16" and not found.geometry.differences(source.geometry)
            assert np.array_equal(found.array, np.rint(awake.translate(source, other)))
    rows = {row.case: (row.subject, float(row.time), row.covariates["phase"]) for row in read_rows(out / "scans.csv")}
    assert rows == {
        f"{subject}_0_{source}_{target}": (subject, 0.0, target)
        for subject in ("p1", "p2")
        for source, target in (PHASES, PHASES[::-1])
    }
    assert read_description(out / "dataset.json").task == "translate"
    (first, _) = series_of_folder(out, read_description(out / "dataset.json"))
    assert [scan.phase for scan in first.scans] == ["arterial", "native"] and all(scan.exists for scan in first.scans)


def test_a_sidecar_says_what_was_made_from_what(untrained, folder, tmp_path):
    predict_folder(untrained, folder, tmp_path / "out", {"to": "native"})
    assert names(tmp_path / "out") == sorted(
        [f"{subject}_0_arterial_native{ending}" for subject in ("p1", "p2") for ending in (".json", "_0000.nii.gz")]
        + ["dataset.json", "scans.csv"]
    )
    content = read_json(tmp_path / "out" / "p1_0_arterial_native.json")
    assert set(content.pop("versions")) == {"torch", "nnunetv2", "torchdiffeq", "SimpleITK"}
    assert content.pop("longflow_version") and len(content.pop("plan_identity")[0]) == 16
    assert 0 < content.pop("seconds") < 60
    assert list(content.pop("digests")["inputs"]) == ["p1_0_arterial_0000.nii.gz"]
    use = content.pop("intended_use")
    assert use.startswith("research only") and use.endswith("no clinical conclusions from synthesised images alone")
    assert content.pop("fitness")["verdict"] == "unknown"
    assert content == {
        "case": "p1_0_arterial_native",
        "subject": "p1",
        "time": 0.0,
        "source": "p1_0_arterial",
        "source_phase": "arterial",
        "target_phase": "native",
        "images": ["p1_0_arterial_0000.nii.gz"],
        "round_trip": False,
        "slices": 4,
        "time_unit": "days",
        "dataset": "Dataset104_Phases",
        "method": ["mfm"],
        "configuration": ["3d_fullres"],
        "plans": ["longflowPlans"],
        "folds": [[0]],
        "mirror": False,
        "phases": PHASES,
        "solver": "heun2",
        "steps": 1,
        "function_evaluations": 2,
        "warnings": [],
    }


def test_there_and_back_is_a_round_trip(untrained, folder, tmp_path):
    """The output folder is a valid input; from an untrained flow the scan comes back bit-identically."""
    out, back = tmp_path / "out", tmp_path / "back"
    predict_folder(untrained, folder, out, {"to": "native"})
    requests = predict_folder(untrained, out, back)  # all are native, so the other phase is meant
    assert [item.target.case for item in requests] == [
        f"{subject}_0_arterial_native_arterial" for subject in ("p1", "p2")
    ]
    sidecar = read_json(back / "p1_0_arterial_native_arterial.json")
    assert sidecar["round_trip"] is True and sidecar["source"] == "p1_0_arterial_native"
    assert np.array_equal(read(back, "p1_0_arterial_native_arterial").array, read(folder, "p1_0_arterial").array)


def test_finished_translations_are_kept_and_settings_are_not_mixed(untrained, folder, tmp_path, caplog):
    out = tmp_path / "out"
    predict_folder(untrained, folder, out, {"to": "native"})
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    with caplog.at_level(logging.INFO):
        predict_folder(untrained, folder, out, {"to": "native"})
    assert "2 of 2 translations are finished and kept" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = Translator.load(device="cpu", solver="euler", steps=1)
    with pytest.raises(ConfigurationError, match="was made with solver heun2, this command has euler"):
        predict_folder(other, folder, out, {"to": "native"})


def test_a_damaged_scan_is_named_and_the_others_are_done(untrained, folder, tmp_path):
    path = folder / "p1_0_arterial_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"1 of 2 translations could not be made(?s:.)*p1_0_arterial_native: .*trunc"):
        predict_folder(untrained, folder, tmp_path / "out", {"to": "native"})
    assert [row.case for row in read_rows(tmp_path / "out" / "scans.csv")] == ["p2_0_arterial_native"]


def test_values_that_are_no_hounsfield_units_are_a_warning(untrained, folder, tmp_path, caplog):
    """A rescale intercept subtracted twice; only CT has units."""
    scan = read(folder, "p1_0_arterial")
    write_volume(scan.array[0] - 1024, scan.geometry, "int16", folder / "p1_0_arterial_0000.nii.gz")
    with caplog.at_level(logging.WARNING):
        predict_folder(untrained, folder, tmp_path / "out", {"to": "native"})
    sidecars = (tmp_path / "out" / f"{case}_0_arterial_native.json" for case in ("p1", "p2"))
    doubted, good = (read_json(sidecar)["warnings"] for sidecar in sidecars)
    assert good == [] and len(doubted) == 1
    assert "expected Hounsfield units" in doubted[0] and "applied twice" in doubted[0]
    assert caplog.text.count("p1_0_arterial_0000.nii.gz: values: found values from -20") == 1
    scan.array -= 1024
    files = (folder / "p1_0_arterial_0000.nii.gz",)
    assert len(scan_problems(scan, files, plans_to_translate())) == 1
    assert scan_problems(scan, files, plans_to_translate(channel="T1", normal_form="per_scan")) == []


def test_what_is_for_models_of_other_tasks_is_refused(untrained, dataset, folder, tmp_path):
    with pytest.raises(ConfigurationError, match=r"Times \(-t\) are for forecasts, but mfm__.* translates\. Remove -t"):
        predict_folder(untrained, folder, tmp_path / "out", {"times": (5.0,)})
    with pytest.raises(NotFoundError, match="no phase 'venous'"):
        predict_folder(untrained, folder, tmp_path / "out", {"to": "venous"})
    edit_table(folder, "arterial\n", "venous\n")
    with pytest.raises(
        DataError, match=r"p1_0_arterial \(line 3\): its phase is 'venous', expected native or arterial"
    ):
        predict_folder(untrained, folder, tmp_path / "out", {"to": "native"})
    assert not (tmp_path / "out").exists()
    for kind in (longflow.Forecaster, longflow.Segmenter):
        with pytest.raises(ConfigurationError, match=f"is a model for the task 'translate', not for '{kind.task}'"):
            kind.load(device="cpu")
