"""Phases that are different modalities, MR and CT: from dataset.json to the evaluation."""

import numpy as np
import pytest

from longflow.cli import evaluate, find_best, plan_and_preprocess, predict, train
from longflow.data.body import body_mask
from longflow.data.dataset import DatasetDescription, read_description
from longflow.data.images import Volume, read_scan
from longflow.demo.abdomen_cohort import MODALITIES_NAME, write_modality_cohort
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths
from longflow.plans import ChannelPlan, Plans, read_plans
from longflow.preprocessing.run import preprocess_dataset
from longflow.preprocessing.series import RawSeries, load_prepared, prepare_volumes
from longflow.reading import read_json
from longflow.tasks.translate.metrics import untranslated
from longflow.tasks.translate.predictor import Translator, written_type
from tests.data.helpers import edit_description
from tests.inference.helpers import plans_to_translate, use_one_convolution
from tests.training.helpers import finished_model, geometry

SHAPE, SPACING = (4, 12, 10), (5.0, 2.0, 2.0)
OF_PHASES = {"mr": {"0": "T1"}, "ct": {"0": "CT"}}


def plans_of_modalities() -> Plans:
    """MR is t = 0; a typical MR has mean 300 and standard deviation 100."""
    plans = plans_to_translate(channel="MR or CT", normal_form="per_scan")
    mr = ChannelPlan(name="T1", normal_form="per_scan", offset=300.0, scale=100.0)
    ct = ChannelPlan(name="CT", normal_form="absolute", offset=0.0, scale=1000.0, clip=(-1024.0, 3000.0))
    content = plans.model_dump() | {"phases": ["mr", "ct"]}
    return Plans.model_validate({**content, "phase_channels": {"mr": [mr.model_dump()], "ct": [ct.model_dump()]}})


def mr_scan() -> np.ndarray:
    generator = np.random.default_rng(0)
    scan = generator.normal(20, 2, SHAPE)
    scan[:, 2:10, 2:8] = generator.normal(500, 60, (4, 8, 6))
    return scan.astype(np.float32)


def ct_scan() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1500, 3500, SHAPE).astype(np.float32)


def description(**further) -> DatasetDescription:
    keys = {"channel_names": {"0": "image"}, "file_ending": ".nii.gz", "time_unit": "days", "task": "translate"}
    return DatasetDescription(**{**keys, "phases": ["mr", "ct"], "phase_channels": OF_PHASES, **further})


def test_each_phase_has_its_channels():
    found = description()
    assert (found.channels_of("mr"), found.channels_of("ct")) == (["T1"], ["CT"])
    assert (found.is_ct_of("mr"), found.is_ct_of("ct"), found.is_ct) == ([False], [True], [False])
    shared = description(phase_channels={})
    assert shared.channels_of("mr") == ["image"] == shared.channels_of("")


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"phases": []}, "found mr, ct, and the phases missing"),
        ({"phases": ["mr", "pet"]}, "needs both names"),
        ({"phase_channels": {"mr": {"0": "T1"}}}, "needs both names"),
        (
            {"phase_channels": {"mr": {"0": "T1", "1": "T2"}, "ct": {"0": "CT"}}},
            "'mr' has the channels 0, 1, expected 0",
        ),
    ],
)
def test_channels_of_phases_that_cannot_be(further, message):
    with pytest.raises(ValueError, match=message):
        description(**further)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mr": [], "ct": []}, "'mr' has 0 entries"),
        ({"mr": [{"name": "T1", "normal_form": "per_scan"}]}, "needs the phases mr, ct, found mr"),
        (
            {phase: [{"name": "T1", "normal_form": "per_scan"}] for phase in ("mr", "ct")},
            "a channel of 'mr' has no normal form to write translations by",
        ),
    ],
)
def test_plans_without_a_normal_form_of_each_phase_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Plans.model_validate(plans_of_modalities().model_dump() | {"phase_channels": change})


def test_each_scan_is_prepared_in_the_normal_form_of_its_phase():
    volumes = [Volume(array[None], geometry(SHAPE, SPACING), "float32") for array in (mr_scan(), ct_scan())]
    raw = RawSeries("p", ["p_mr", "p_ct"], [0.0, 0.0], volumes, phases=["mr", "ct"])
    found = np.asarray(prepare_volumes(raw, plans_of_modalities(), "3d_fullres").images)[:, 0]
    body = mr_scan()[body_mask(mr_scan(), is_ct=False)].astype(float)
    np.testing.assert_allclose(found[0], (mr_scan() - body.mean()) / body.std(), atol=1e-4)
    np.testing.assert_allclose(found[1], np.clip(ct_scan(), -1024, 3000) / 1000, atol=1e-5)
    for phase, expected in (("mr", found[0]), ("ct", found[1])):
        one = RawSeries.of_scan("s", volumes[["mr", "ct"].index(phase)], phase)
        np.testing.assert_allclose(prepare_volumes(one, plans_of_modalities(), "3d_fullres").images[0, 0], expected)


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """A flow that changes nothing in the normal form."""
    use_one_convolution(monkeypatch)
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    paths = DatasetPaths(MODALITIES_NAME)
    write_modality_cohort(paths.raw, subjects=1, test_subjects=0, shape=(4, 24, 32))
    finished_model(paths, plans_of_modalities(), "mfm")
    return Translator.load(device="cpu")


def test_translations_have_the_units_of_the_requested_modality(untrained):
    """To CT: 1000 x the normal form of the MR; to MR: 300 + 100 x that of the CT."""
    mr, ct = mr_scan(), ct_scan()
    body = mr[body_mask(mr, is_ct=False)].astype(float)
    to_ct = untrained.predict(mr, "mr", SPACING)
    expected = np.clip(1000 * (mr - body.mean()) / body.std(), -1024, 3000)
    assert to_ct.dtype == np.int16 and np.abs(to_ct - expected).max() <= 0.51
    to_mr = untrained.predict(ct.astype(np.int16), "ct", SPACING)
    expected = 300 + 100 * np.clip(ct.astype(np.int16).astype(float), -1024, 3000) / 1000
    assert to_mr.dtype == np.float32
    np.testing.assert_allclose(to_mr, expected, atol=1e-2)


def test_what_is_empty_in_mr_is_air_in_ct(untrained):
    mr = mr_scan()
    mr[:, :2], mr[:, 10:], mr[:, :, :2], mr[:, :, 8:] = 0, 0, 0, 0
    found = untrained.predict(mr, "mr", SPACING)
    outside = mr == 0
    assert (found[outside] == -1024).all() and (found[~outside] > -1024).mean() > 0.5


def test_the_type_of_files_is_that_of_the_source_where_units_are_shared():
    assert written_type(plans_to_translate(), "native", "uint16") == "uint16"
    assert [written_type(plans_of_modalities(), to, "uint16") for to in ("ct", "mr")] == ["int16", "float32"]


def test_the_untranslated_scan_is_mapped_by_the_best_line():
    generator = np.random.default_rng(0)
    source, body = generator.uniform(0, 500, (1, *SHAPE)).astype(np.float32), np.zeros(SHAPE, bool)
    body[:, 3:8] = True
    reference = 2 * source - 700
    reference[:, ~body] = 12345  # is not fitted
    found = untranslated(source, reference, body, description())
    np.testing.assert_allclose(found, 2 * source - 700, atol=1e-2)
    assert untranslated(source, reference, body, description(phase_channels={})) is source
    constant = untranslated(np.ones_like(source), reference, body, description())
    np.testing.assert_allclose(constant, reference[:, body].mean(), rtol=1e-5)


def test_from_mr_to_ct_through_all_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths(MODALITIES_NAME)
    write_modality_cohort(paths.raw, subjects=5, test_subjects=1, shape=(6, 24, 32))
    assert plan_and_preprocess.main(["-d", "912", "--preset", "tiny", "-c", "2d", "--processes", "1"]) == 0
    plans = read_plans(paths.plans())
    (mr,), (ct,) = plans.phase_channels["mr"], plans.phase_channels["ct"]
    assert (mr.name, mr.normal_form, ct.name, ct.clip) == ("T1", "per_scan", "CT", (-1024.0, 3000.0))
    bodies = [load_prepared(paths.cache(plans.plans_name, "2d"), f"abdomen00{n}").properties for n in range(5)]
    assert mr.offset == pytest.approx(np.mean([one.offset[one.phases.index("mr")][0] for one in bodies]), rel=0.2)
    of_ct = [one.phases.index("ct") for one in bodies]
    assert all(one.offset[i] == [0] and one.scale[i] == [1000] for one, i in zip(bodies, of_ct, strict=True))

    assert train.main(["912", "2d", "0", "-m", "regression", "--iterations", "20", "-np", "0"]) == 0
    assert find_best.main(["-d", "912", "--processes", "1"]) == 0
    out = tmp_path / "out"
    assert predict.main(["-d", "912", "-i", str(paths.raw / "imagesTs"), "-o", str(out), "--to", "ct"]) == 0
    assert evaluate.main(["-d", "912", "-i", str(out), "--processes", "1"]) == 0
    found = read_scan((out / "abdomen005_mr_ct_0000.nii.gz",))
    assert found.data_type == "int16" and found.array.min() >= -1024
    numbers = read_json(out / "metrics.json")["by_direction"]["ct"]
    acquired = read_scan((paths.raw / "imagesTs" / "abdomen005_ct_0000.nii.gz",))
    clipped = [np.clip(volume.array.astype(float), -1000, 1000) for volume in (found, acquired)]
    assert numbers["translation"]["mae"]["mean"] == pytest.approx(np.abs(clipped[0] - clipped[1]).mean(), rel=1e-5)
    assert {name for name in numbers["translation"] if name.endswith("synthrad")} == {
        *("mae_synthrad", "psnr_synthrad", "ms_ssim_synthrad")
    }
    assert numbers["translation"]["mae_synthrad"]["mean"] >= numbers["translation"]["body_mae"]["mean"]
    assert read_json(paths.best)["input_body_mae"] > 0
    assert "no problem" in capsys.readouterr().out  # MR and CT are not compared as if they were alike


def test_plans_of_other_channels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths(MODALITIES_NAME)
    write_modality_cohort(paths.raw, subjects=2, test_subjects=1, shape=(4, 24, 32))
    assert plan_and_preprocess.main(["-d", "912", "--preset", "tiny", "-c", "2d", "--processes", "1"]) == 0
    edit_description(paths.raw, phase_channels={"mr": {"0": "T2"}, "ct": {"0": "CT"}})
    assert read_description(paths.raw / "dataset.json").channels_of("mr") == ["T2"]
    with pytest.raises(ConfigurationError, match="T2"):
        preprocess_dataset(paths.name, configurations=["2d"], processes=1)
