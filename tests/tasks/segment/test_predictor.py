import numpy as np
import pytest
import SimpleITK as sitk
import torch

from longflow.data.images import Volume, read_scan, write_volume
from longflow.errors import ConfigurationError, DataError
from longflow.files import file_digest, write_json
from longflow.inference.models import PredictionSettings
from longflow.inference.predictor import predict_folder
from longflow.inference.windows import WindowSettings
from longflow.preprocessing.restore import export_labels
from longflow.preprocessing.series import RawSeries, prepare_volumes
from longflow.reading import read_json
from longflow.tasks.segment.keep_largest import keep_largest
from longflow.tasks.segment.other_scans import others_of
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.windows import predict_logits
from tests.inference.helpers import LABELS, REGIONS, plans_to_segment, segmentation_model
from tests.inference.test_predictor import make_input, names, rewrite
from tests.training.helpers import SHAPE, finished_model, geometry, make_dataset, scan_array


@pytest.fixture
def segmenter(dataset):
    segmentation_model(dataset)
    return Segmenter.load(device="cpu", mirror=False)


@pytest.fixture
def folder(dataset, tmp_path):
    """Two subjects of three scans, and a row without an image each (a_3, b_3)."""
    return make_input(dataset, tmp_path / "in")


def oblique_image():
    image = sitk.GetImageFromArray(scan_array(9, 0).astype(np.int16))
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin((1.0, 2.0, 3.0))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    return image


def test_a_scan_is_prepared_alone_and_labelled_on_its_own_grid(segmenter):
    """The parts that prediction consists of are tested each against nnU-Net; here, that they are put together so."""
    image = oblique_image()
    found = segmenter.predict(image)
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, name)() == getattr(image, name)()
    assert found.GetPixelID() == sitk.sitkUInt8
    array = scan_array(9, 0)
    assert np.array_equal(segmenter.predict(array, spacing=(2.0, 1.0, 1.0)), sitk.GetArrayFromImage(found))

    (member,) = segmenter.models.members
    volume = Volume(array[None], geometry(spacing=(2.0, 1.0, 1.0)), "int16")
    prepared = prepare_volumes(RawSeries.of_scan("s", volume), member.plans, "3d_fullres")
    logits = predict_logits(member.methods, prepared.images[0], WindowSettings())
    expected = export_labels(logits, prepared.properties, member.plans)
    assert np.array_equal(sitk.GetArrayFromImage(found), expected) and len(np.unique(expected)) > 1


def test_mirroring_is_as_the_method_has_it_unless_given(dataset):
    segmentation_model(dataset)
    assert Segmenter.load(device="cpu").models.mirror  # unet mirrors, as nnU-Net
    found = [
        Segmenter.load(device="cpu", mirror=mirror).predict(scan_array(9, 0), (1, 1, 1))
        for mirror in (None, True, False)
    ]
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_labels_beyond_255_get_a_type_that_holds_them(dataset):
    labels = {"background": 0, **{f"part {value}": value for value in range(1, 301)}}
    segmentation_model(dataset, plans_to_segment(labels))
    segmenter = Segmenter.load(device="cpu", mirror=False)
    (method,) = segmenter.models.members[0].methods
    method.network.unet.decoder.seg_layers[-1].bias.data[300] = 100
    found = segmenter.predict(scan_array(9, 0), (1, 1, 1))
    assert found.dtype == np.uint16 and (found == 300).all()


def test_several_channels_and_what_cannot_be_segmented(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=1, scans=1, channels=2, prepare=False)
    segmentation_model(dataset, plans_to_segment(channels=2))
    segmenter = Segmenter.load(device="cpu", mirror=False)
    scan = np.stack([scan_array(1, 0, channel=channel) for channel in (0, 1)])
    found = segmenter.predict(scan, (1, 1, 1))
    assert found.shape == SHAPE
    image = sitk.Compose(*[sitk.GetImageFromArray(channel) for channel in scan])
    assert np.array_equal(sitk.GetArrayFromImage(segmenter.predict(image)), found)
    with pytest.raises(DataError, match="has 1 channels, expected 2: channel 0, channel 1"):
        segmenter.predict(scan[0], (1, 1, 1))
    with pytest.raises(DataError, match="a spacing of three numbers"):
        segmenter.predict(scan)
    with pytest.raises(DataError, match="NaN or infinite"):
        segmenter.predict(scan * np.nan, (1, 1, 1))


def test_every_scan_of_a_folder_is_segmented(segmenter, folder, tmp_path, caplog):
    out = tmp_path / "out"
    with caplog.at_level("INFO"):
        requests = predict_folder(segmenter, folder, out)
    cases = [f"{subject}_{index}" for subject in "ab" for index in range(3)]
    assert [item.target.case for item in requests] == cases
    assert "Rows without an image are excluded: a_3, b_3." in caplog.text
    files = [f"{case}{ending}" for case in cases for ending in (".json", ".nii.gz")]
    assert names(out) == sorted([*files, "dataset.json", "scans.csv", "volumes.csv"])
    for case in cases:
        scan, label = read_scan((folder / f"{case}_0000.nii.gz",)), read_scan((out / f"{case}.nii.gz",))
        assert not scan.geometry.differences(label.geometry) and label.data_type == "uint8"
        assert np.array_equal(label.array[0], segmenter.segment(scan))
    assert read_json(out / "dataset.json")["labels"] == LABELS


def test_a_sidecar_says_what_was_segmented_and_how(segmenter, folder, tmp_path):
    predict_folder(segmenter, folder, tmp_path / "out")
    content = read_json(tmp_path / "out" / "a_1.json")
    assert set(content.pop("versions")) >= {"torch", "nnunetv2"} and content.pop("longflow_version")
    assert content.pop("intended_use").startswith("research") and len(content.pop("plan_identity")[0]) == 16
    assert set(content.pop("volumes")) == {"core", "rim"}
    assert list(content.pop("digests")["inputs"]) == ["a_1_0000.nii.gz"]
    assert content.pop("fitness")["verdict"] == "unknown"
    assert content == {
        "case": "a_1",
        "subject": "a",
        "time": 10.0,
        "images": ["a_1_0000.nii.gz"],
        "time_unit": "days",
        "dataset": "Dataset001_Test",
        "method": ["unet"],
        "configuration": ["3d_fullres"],
        "plans": ["longflowPlans"],
        "folds": [[0]],
        "keep_largest": None,
        "mirror": False,
        "warnings": [],
    }


def test_scans_of_a_subject_may_lie_on_different_grids(segmenter, folder, tmp_path):
    other = geometry((6, 11, 9), (2.0, 1.0, 1.0))
    write_volume(scan_array(50, 1, (6, 11, 9)), other, "int16", folder / "a_1_0000.nii.gz")
    predict_folder(segmenter, folder, tmp_path / "out")
    assert not read_scan((tmp_path / "out" / "a_1.nii.gz",)).geometry.differences(other)


@pytest.fixture
def longitudinal(dataset):
    """A model that looks at other scans, with random weights in every layer."""
    segmentation_model(dataset)
    finished_model(dataset, plans_to_segment(), "unet_longitudinal", random=True)
    return Segmenter.load(method="unet_longitudinal", device="cpu", mirror=False)


def test_a_scan_is_segmented_with_the_others_of_its_subject(longitudinal, folder, tmp_path):
    out = tmp_path / "out"
    predict_folder(longitudinal, folder, out)
    content = read_json(out / "a_1.json")
    assert content["other_scans"] == ["a_0", "a_2"]
    assert list(content["digests"]["inputs"]) == ["a_1_0000.nii.gz", "a_0_0000.nii.gz", "a_2_0000.nii.gz"]
    (member,) = longitudinal.models.members
    volumes = [read_scan((folder / f"a_{index}_0000.nii.gz",)) for index in range(3)]
    series = prepare_volumes(RawSeries("a", ["0", "1", "2"], [0.0, 10, 20], volumes), member.plans, "3d_fullres")
    others = others_of(series, 1, member.plans)
    logits = predict_logits(member.methods, np.asarray(series.images[1]), WindowSettings(), others)
    alone = predict_logits(member.methods, np.asarray(series.images[1]), WindowSettings())
    assert np.abs(logits - alone).max() > 0.01 * np.abs(alone).max()
    expected = export_labels(logits, series.properties, member.plans)
    assert np.array_equal(read_scan((out / "a_1.nii.gz",)).array[0], expected)


def test_a_label_map_is_made_again_where_another_scan_of_the_subject_changed(longitudinal, folder, tmp_path, caplog):
    out = tmp_path / "out"
    predict_folder(longitudinal, folder, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    write_volume(scan_array(77, 2), geometry(SHAPE), "int16", folder / "a_2_0000.nii.gz")
    predict_folder(longitudinal, folder, out)
    made = {path.name for path in out.glob("*.nii.gz") if path.stat().st_mtime_ns != before[path.name]}
    assert made == {f"a_{index}.nii.gz" for index in range(3)}


def test_another_scan_on_another_grid_is_warned_of(longitudinal, folder, tmp_path, caplog):
    other = geometry((6, 11, 9), (2.0, 1.0, 1.0))
    write_volume(scan_array(50, 1, (6, 11, 9)), other, "int16", folder / "a_1_0000.nii.gz")
    predict_folder(longitudinal, folder, tmp_path / "out")
    warnings = read_json(tmp_path / "out" / "a_0.json")["warnings"]
    assert any("a_0 is segmented without a_1, which is on another grid" in warning for warning in warnings)
    assert "a_0 is segmented without a_1" in caplog.text


def test_a_damaged_scan_is_named_and_the_others_are_done(segmenter, folder, tmp_path):
    """Run again, nothing but the mended one is made."""
    path, out = folder / "a_1_0000.nii.gz", tmp_path / "out"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1 of 6 label maps could not be made.*(?s:.)*a_1: .*a_1_0000.nii.gz"):
        predict_folder(segmenter, folder, out)
    assert len(list(out.glob("*.nii.gz"))) == 5 and not (out / "a_1.json").exists()
    before = {label: label.stat().st_mtime_ns for label in out.glob("*.nii.gz")}
    path.write_bytes(whole)
    predict_folder(segmenter, folder, out)
    assert len(list(out.glob("*.nii.gz"))) == 6
    assert before == {label: label.stat().st_mtime_ns for label in before}


def test_an_older_label_map_does_not_pass_for_one_that_failed(segmenter, folder, tmp_path):
    """Made again by another model, a folder must not keep what the first one made of a scan that is now damaged."""
    out = tmp_path / "out"
    predict_folder(segmenter, folder, out)
    (folder / "a_1_0000.nii.gz").write_bytes(b"")
    segmenter.models.mirror = True
    with pytest.raises(DataError, match="1 of 6 label maps"):
        predict_folder(segmenter, folder, out, overwrite=True)
    assert "a_1" not in (out / "scans.csv").read_text() + (out / "volumes.csv").read_text()
    assert read_json(out / "a_2.json")["mirror"] is True and not (out / "a_1.nii.gz").exists()
    for path in folder.glob("*.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="6 of 6 label maps"):
        predict_folder(segmenter, folder, out)
    assert names(out) == ["dataset.json", "scans.csv", "volumes.csv"]
    assert (out / "scans.csv").read_text().count("\n") == (out / "volumes.csv").read_text().count("\n") == 1


def test_times_are_for_forecasts_and_phases_for_translations(segmenter, folder, tmp_path):
    with pytest.raises(ConfigurationError, match=r"Times \(-t\) are for forecasts, but unet__.* segments"):
        predict_folder(segmenter, folder, tmp_path / "out", {"times": (50,)})
    with pytest.raises(ConfigurationError, match=r"A phase \(--to\) is for translations, but unet__.* segments"):
        predict_folder(segmenter, folder, tmp_path / "out", {"to": "native"})
    assert not (tmp_path / "out").exists()


def test_a_solver_is_for_forecasts(segmenter):
    with pytest.raises(ConfigurationError, match="needs no solver"):
        Segmenter.of(segmenter.models.selection, PredictionSettings("cpu", solver="euler"))


def test_a_folder_without_scans(segmenter, folder, tmp_path):
    rewrite(folder, (folder / "scans.csv").read_text(), "case,subject,time\n")
    with pytest.raises(DataError, match=r"cannot be segmented(?s:.)*scans.csv: file: found no line"):
        predict_folder(segmenter, folder, tmp_path / "out")


def test_labels_are_not_written_among_acquired_scans(dataset, segmenter, folder):
    for place in ("labelsTr", "."):
        with pytest.raises(ConfigurationError, match=r"belongs to a raw dataset. Label maps would stand"):
            predict_folder(segmenter, folder, dataset.raw / place)
    with pytest.raises(ConfigurationError, match="Input and output are the same folder; label maps would stand"):
        predict_folder(segmenter, folder, folder, overwrite=True)


def test_a_model_that_forecasts_is_refused(dataset):
    segmentation_model(dataset)
    finished_model(dataset, plans_to_segment().model_copy(update={"task": "forecast", "labels": {}}))
    with pytest.raises(ConfigurationError, match=r"cronos__.* is a model for the task 'forecast', not for 'segment'"):
        Segmenter.load(method="cronos", device="cpu")


def record(dataset, *models, steps=(), candidate=""):
    """Write best.json, as longflow_find_best does."""
    members = [
        {"method": one.method, "plans_name": one.plans_name, "configuration": one.configuration, "folds": [0]}
        for one in models
    ]
    weights = [file_digest(one.fold(0).final) for one in models]
    content = {"members": members, "reduction": None, "shrinkage": 1, "candidate": candidate}
    kept = {"weights": weights, "steps": [list(step) for step in steps]}
    write_json({**content, "keep_largest": kept}, dataset.best)


@pytest.fixture
def two_models(dataset):
    """Two models of other plans, both with random weights."""
    other = plans_to_segment().model_copy(update={"plans_name": "Other"})
    return segmentation_model(dataset), segmentation_model(dataset, other, seed=5)


def test_an_ensemble_averages_probabilities_on_the_grid_of_the_scan(dataset, two_models, folder, tmp_path):
    singles = []
    for model in two_models:
        record(dataset, model)
        single = Segmenter.load(device="cpu", mirror=False)
        volume = read_scan((folder / "a_0_0000.nii.gz",))
        singles.append(single.probabilities(single.read(single.requests(folder, single.models.description)[0])))
        assert not (dataset.results / "probabilities").exists()
    record(dataset, *two_models, candidate="both")
    segmenter = Segmenter.load(device="cpu", mirror=False)
    expected = np.mean(singles, axis=0).argmax(axis=0)
    found = segmenter.segment(volume)
    assert np.array_equal(found, expected) and len(np.unique(found)) > 1
    assert not np.array_equal(found, singles[0].argmax(axis=0))
    predict_folder(segmenter, folder, tmp_path / "out")
    assert np.array_equal(read_scan((tmp_path / "out" / "a_0.nii.gz",)).array[0], expected)
    assert read_json(tmp_path / "out" / "a_0.json")["plans"] == ["longflowPlans", "Other"]


def test_an_ensemble_looks_at_other_scans_where_one_of_its_models_does(dataset, folder):
    models = segmentation_model(dataset), finished_model(dataset, plans_to_segment(), "unet_longitudinal", random=True)
    record(dataset, *models)
    segmenter = Segmenter.load(device="cpu", mirror=False)
    item = segmenter.requests(folder, segmenter.models.description)[1]
    assert [scan.case for scan in item.others] == ["a_0", "a_2"]
    alone, with_others = segmenter.read(item).scans
    assert alone.others is None and with_others.cases == ["a_0", "a_2"]


def test_models_with_other_labels_are_not_averaged(dataset):
    other = plans_to_segment({"background": 0, "core": 1}).model_copy(update={"plans_name": "Other"})
    models = segmentation_model(dataset), segmentation_model(dataset, other)
    record(dataset, *models)
    with pytest.raises(ConfigurationError, match=r"were trained with other labels .*cannot be averaged"):
        Segmenter.load(device="cpu")


def test_the_largest_component_is_kept_where_that_was_found_to_be_better(dataset, folder, tmp_path):
    """Random weights give many components; without the decision, and with the switch, all of them stay."""
    model = segmentation_model(dataset)
    raw, out = Segmenter.load(device="cpu", mirror=False), tmp_path / "out"
    predict_folder(raw, folder, out)
    record(dataset, model, steps=[("core", "rim"), ("rim",)], candidate=model.folder.name)
    segmenter = Segmenter.load(device="cpu", mirror=False)
    volume = read_scan((folder / "a_0_0000.nii.gz",))
    everything = raw.segment(volume)
    expected = keep_largest(everything, [("core", "rim"), ("rim",)], segmenter.structures)
    assert np.array_equal(segmenter.segment(volume), expected) and not np.array_equal(expected, everything)
    with pytest.raises(ConfigurationError, match=r"keep_largest None, this command has \[\['core', 'rim'\]"):
        predict_folder(segmenter, folder, out)
    predict_folder(segmenter, folder, out, {"keep_all_components": True})  # finished, and the same
    assert np.array_equal(read_scan((out / "a_0.nii.gz",)).array[0], everything)
    assert read_json(out / "a_0.json")["keep_largest"] is None
    predict_folder(segmenter, folder, tmp_path / "kept")
    assert np.array_equal(read_scan((tmp_path / "kept" / "a_0.nii.gz",)).array[0], expected)
    assert read_json(tmp_path / "kept" / "a_0.json")["keep_largest"] == [["core", "rim"], ["rim"]]
    sidecar = out / "a_0.json"  # an earlier version did not say
    content = read_json(sidecar)
    del content["keep_largest"]
    write_json(content, sidecar)
    for one in out.glob("*.json"):
        if one != sidecar and one.name != "dataset.json":
            one.unlink()
    predict_folder(segmenter, folder, out)
    assert np.array_equal(read_scan((out / "a_0.nii.gz",)).array[0], expected)


def test_folds_are_averaged(dataset):
    for fold in (0, 1):
        segmentation_model(dataset, fold=fold, seed=fold)
    scan = scan_array(9, 0)
    zero, one, both = (
        Segmenter.load(device="cpu", mirror=False, folds=folds).predict(scan, (1, 1, 1)) for folds in ([0], [1], None)
    )
    assert not np.array_equal(zero, one)
    agreed = zero == one
    assert not np.array_equal(both, zero) and np.mean(both[agreed] == zero[agreed]) > 0.8


def test_regions_and_slices(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=1, scans=1, dimensions=2, prepare=False)
    plans = plans_to_segment(REGIONS, [1, 2], dimensions=2)
    segmentation_model(dataset, plans, configuration="2d")
    segmenter = Segmenter.load(device="cpu")
    (method,) = segmenter.models.members[0].methods
    outputs = method.network.unet.decoder.seg_layers[-1]
    outputs.weight.data.zero_()
    for whole, core, label in ((1, -1, 1), (1, 1, 2), (-1, -1, 0)):
        outputs.bias.data = torch.tensor([whole, core], dtype=torch.float32)
        found = segmenter.predict(scan_array(9, 0), (1, 1, 1))
        assert found.shape == SHAPE and (found == label).all()
