import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from longflow.data.dataset import Scan, training_series, write_scans
from longflow.data.images import read_scan
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.files import write_json
from longflow.integrity.dataset import verify_dataset
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.tasks.translate.predictor import Translator
from longflow.tasks.translate.translated_dataset import write_translated_dataset
from tests.data.helpers import edit_table, write_image, write_phase_dataset
from tests.inference.helpers import plans_to_translate, translation_model, use_one_convolution
from tests.inference.test_predictor import names

SHAPE = (4, 12, 10)
SUBJECTS = ("p1", "p2", "p3")
CASES = [f"{subject}_0_arterial" for subject in SUBJECTS]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Three labelled subjects in two phases; folds 0 and 1 are trained, and validated p1 and p2; p3 trained both."""
    use_one_convolution(monkeypatch)
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    paths = DatasetPaths("Dataset104_Phases")
    write_phase_dataset(paths.raw, SUBJECTS, shapes=(SHAPE,))
    for fold in (0, 1):
        translation_model(paths, random=True, fold=fold, seed=fold)
    validating = (["p1"], ["p2"], ["p3"])
    write_json([{"train": [one for one in SUBJECTS if one not in val], "val": val} for val in validating], paths.splits)
    return paths


@pytest.fixture
def translator(dataset):
    return Translator.load(device="cpu")


@pytest.fixture
def output(dataset):
    return dataset.raw.with_name("Dataset204_Native")


def image(folder, case):
    return read_scan((folder / "imagesTr" / f"{case}_0000.nii.gz",))


def test_images_are_translated_and_labels_copied(dataset, translator, output):
    calls = []
    result = write_translated_dataset(translator, "native", output, progress=lambda *call: calls.append(call))
    assert result.folder == output and result.written and result.unlabelled == 0
    assert calls == [*((number, 3, f"{case}_native") for number, case in enumerate(CASES)), (3, 3, "")]
    assert names(output) == ["dataset.json", "imagesTr", "labelsTr", "scans.csv", "translations.json"]
    assert names(output / "labelsTr") == [f"{case}_native.nii.gz" for case in CASES]
    for case in CASES:
        source, found = image(dataset.raw, case), image(output, f"{case}_native")
        assert found.data_type == "int16" and not found.geometry.differences(source.geometry)
        assert not np.array_equal(found.array, source.array)
        copied, label = output / "labelsTr" / f"{case}_native.nii.gz", dataset.raw / "labelsTr" / f"{case}.nii.gz"
        assert copied.read_bytes() == label.read_bytes()


def test_what_was_written_is_a_dataset_to_segment(translator, output):
    """An untrained network changes nothing, so that values are HU."""
    for method in translator.models.members[0].methods:
        for parameter in method.parameters():
            parameter.data.zero_()
    write_translated_dataset(translator, "native", output)
    description, series = training_series(output)
    assert (description.task, description.labels) == ("segment", {"background": 0, "vessel": 1})
    assert (description.channel_names, description.time_unit, description.phases) == ({"0": "CT"}, "days", [])
    content = read_json(output / "dataset.json")
    assert content["numTraining"] == 3 and content["file_ending"] == ".nii.gz"
    assert content["description"].startswith("Images of Dataset104_Phases translated by longflow from the phase 'art")
    assert "research only" in content["description"] and "synthesised images alone" in content["description"]
    assert [(one.subject, [scan.phase for scan in one.scans]) for one in series] == [(s, ["native"]) for s in SUBJECTS]
    assert all(scan.label and scan.exists for one in series for scan in one.scans)
    problems = verify_dataset(output, processes=1)
    assert {problem.severity for problem in problems} <= {"note"}, problems


@pytest.mark.slow
def test_nnunet_accepts_what_was_written(translator, output, capsys):
    write_translated_dataset(translator, "native", output)
    verify_dataset_integrity(str(output), num_processes=1)
    shown = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in shown and "Error" not in shown and "Warning" not in shown


def test_scans_are_translated_by_folds_not_trained_on_them(dataset, translator, output):
    """p1 by fold 0, p2 by fold 1; p3 trained both, which is said."""
    result = write_translated_dataset(translator, "native", output)
    assert result.trained_on == ["p3_0_arterial_native"]
    for case, folds, trained_on in zip(CASES, ([0], [1], [0, 1]), (False, False, True), strict=True):
        sidecar = read_json(output / "imagesTr" / f"{case}_native.json")
        assert (sidecar["folds"], sidecar["trained_on"]) == ([folds], trained_on)
        assert (sidecar["label"], sidecar["target_phase"]) == (f"{case}.nii.gz", "native")
        alone = Translator.load(device="cpu", folds=folds).translate(image(dataset.raw, case), "arterial")
        assert np.array_equal(image(output, f"{case}_native").array, np.rint(alone))


def test_subjects_outside_all_training_are_translated_by_all_folds(dataset, translator, output):
    """What the command is for: scans that exist in one phase alone train nothing."""
    splits = read_json(dataset.splits)
    write_json([{"train": [one for one in split["train"] if one != "p3"], "val": split["val"]} for split in splits],
               dataset.splits)  # fmt: skip
    assert write_translated_dataset(translator, "native", output).trained_on == []
    sidecar = read_json(output / "imagesTr" / "p3_0_arterial_native.json")
    assert sidecar["folds"] == [[0, 1]] and sidecar["trained_on"] is False


def test_labelled_scans_of_the_other_phase_alone(dataset, translator, output):
    """Scans without a label are counted; those of a third phase or without images are ignored."""
    (dataset.raw / "labelsTr" / "p1_0_arterial.nii.gz").unlink()
    for image_file in (dataset.raw / "imagesTr").glob("p2_0_arterial*"):
        image_file.unlink()
    edit_table(dataset.raw, "p3_0_native,p3,0,native", "p3_0_native,p3,0,venous")
    result = write_translated_dataset(translator, "native", output)
    assert [item.source.case for item in result.translations] == ["p3_0_arterial"] and result.unlabelled == 1
    assert read_json(output / "dataset.json")["numTraining"] == 1


def test_the_other_direction(translator, output):
    result = write_translated_dataset(translator, "arterial", output)
    assert [item.target.case for item in result.translations] == [f"{one}_0_native_arterial" for one in SUBJECTS]


def test_nothing_is_done_twice_and_what_was_stopped_is_continued(dataset, translator, output):
    broken = dataset.raw / "imagesTr" / "p2_0_arterial_0000.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"1 of 3 scans could not be (?s:.)*p2_0_arterial_native: .*truncated"):
        write_translated_dataset(translator, "native", output)
    assert not output.exists()
    unfinished = output.with_name(".unfinished-translate-Dataset204_Native") / "imagesTr"
    before = {path.name: path.stat().st_mtime_ns for path in unfinished.iterdir()}
    assert len(before) == 4  # two images and their sidecars
    broken.write_bytes(whole)
    assert write_translated_dataset(translator, "native", output).written and not unfinished.exists()
    assert {name: (output / "imagesTr" / name).stat().st_mtime_ns for name in before} == before
    assert not write_translated_dataset(translator, "native", output).written


def test_other_settings_ask_for_overwrite(dataset, translator, output):
    write_translated_dataset(translator, "native", output)
    for changed, phase in ((Translator.load(device="cpu", solver="euler"), "native"), (translator, "arterial")):
        with pytest.raises(ConfigurationError, match=r"made of other scans or with other settings .* --overwrite"):
            write_translated_dataset(changed, phase, output)
    write_translated_dataset(translator, "arterial", output, overwrite=True)
    assert names(output / "labelsTr") == [f"{subject}_0_native_arterial.nii.gz" for subject in SUBJECTS]
    assert len(names(output / "imagesTr")) == 6


def test_other_weights_and_other_scans_of_the_same_name_ask_for_overwrite(dataset, translator, output):
    write_translated_dataset(translator, "native", output)
    translation_model(dataset, random=True, fold=0, seed=5)
    with pytest.raises(ConfigurationError, match="made of other scans or with other settings or weights"):
        write_translated_dataset(Translator.load(device="cpu"), "native", output)
    translation_model(dataset, random=True, fold=0, seed=0)
    assert not write_translated_dataset(Translator.load(device="cpu"), "native", output).written
    first, second = (dataset.raw / "imagesTr" / f"{case}_0000.nii.gz" for case in CASES[:2])
    shutil.copy(second, first)
    with pytest.raises(ConfigurationError, match="made of other scans or with other settings or weights"):
        write_translated_dataset(translator, "native", output)


def test_an_unfinished_dataset_of_other_settings_is_written_from_scratch(dataset, translator, output):
    broken = dataset.raw / "imagesTr" / "p2_0_arterial_0000.nii.gz"
    broken.write_bytes(b"")
    with pytest.raises(DataError):
        write_translated_dataset(translator, "native", output)
    write_translated_dataset(translator, "arterial", output)
    assert all("native_arterial" in name for name in names(output / "imagesTr"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_others_wrote_is_never_replaced(dataset, translator, tmp_path, overwrite):
    for place in (dataset.raw, tmp_path / "file"):
        if place != dataset.raw:
            place.write_text("")
        with pytest.raises(ConfigurationError, match=r"not written by longflow_translate_dataset .* never replaced"):
            write_translated_dataset(translator, "native", place, overwrite)
    assert image(dataset.raw, CASES[0])


def without_labels(raw):
    shutil.rmtree(raw / "labelsTr")


def without_names(raw):
    content = read_json(raw / "dataset.json")
    write_json({**content, "labels": {}}, raw / "dataset.json")


def of_the_requested_phase(raw):
    for path in (raw / "labelsTr").glob("*arterial*"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_labels, r"Dataset104_Phases has no labels: .*labelsTr holds none .* longflow_predict -i IN"),
        (without_names, r"dataset.json has no 'labels', but labelsTr has images"),
        (of_the_requested_phase, r"the labelled ones are in the phase 'native' already"),
    ],
)
def test_there_must_be_labels_to_copy(dataset, translator, output, change, message):
    change(dataset.raw)
    with pytest.raises(DataError, match=message):
        write_translated_dataset(translator, "native", output)
    assert not output.exists() and len(names(output.parent)) == 1


def test_a_label_on_another_grid(dataset, translator, output):
    write_image(np.zeros(SHAPE, np.uint8), dataset.raw / "labelsTr" / "p1_0_arterial.nii.gz", (1.0, 1.5, 5.0))
    with pytest.raises(DataError, match=r"p1_0_arterial_native: .*p1_0_arterial.nii.gz: spacing is 1 x 1.5 x 5, but"):
        write_translated_dataset(translator, "native", output)


def test_an_unknown_phase(translator, output):
    with pytest.raises(NotFoundError, match=r"no phase 'artrial'\. Did you mean 'arterial'"):
        write_translated_dataset(translator, "artrial", output)


def test_splits_must_be_those_of_the_training(dataset, translator, output):
    """Without them the training subjects of a fold are unknown."""
    table = dataset.model("mfm", "longflowPlans", "3d_fullres").fold(0).validation("translation") / "scans.csv"
    write_scans([Scan("p2_0_native_arterial", "p2", 0.0, ())], table)
    with pytest.raises(ConfigurationError, match=r"fold 0 of mfm__.* was trained on p2, but by .* were changed after"):
        write_translated_dataset(translator, "native", output)
    table.unlink()
    write_json(read_json(dataset.splits)[:1], dataset.splits)
    with pytest.raises(ConfigurationError, match="does not name the training subjects of fold 1"):
        write_translated_dataset(translator, "native", output)
    dataset.splits.unlink()
    with pytest.raises(
        DataError, match=r"splits_final.json does not exist. It names the training subjects of each fold"
    ):
        write_translated_dataset(translator, "native", output)


def test_regions_stay_regions(dataset, output):
    """As nnU-Net has them, with the order in which they are labelled."""
    content = read_json(dataset.raw / "dataset.json")
    regions = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    write_json({**content, **regions, "dataset": {}, "licence": "own"}, dataset.raw / "dataset.json")
    write_translated_dataset(Translator.load(device="cpu"), "native", output)
    found = read_json(output / "dataset.json")
    assert {key: found[key] for key in regions} == regions and "dataset" not in found
    assert sitk.ReadImage(str(output / "labelsTr" / f"{CASES[0]}_native.nii.gz")).GetSize() == SHAPE[::-1]


def test_plans_of_two_dimensions(dataset, output):
    plans = plans_to_translate(dimensions=2, own_grid=True)
    plans.plans_name = "slices"
    translation_model(dataset, plans, configuration="2d", random=True)
    write_translated_dataset(Translator.load(configuration="2d", device="cpu"), "native", output)
    assert read_json(output / "imagesTr" / f"{CASES[0]}_native.json")["configuration"] == ["2d"]
