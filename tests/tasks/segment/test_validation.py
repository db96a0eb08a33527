import logging

import numpy as np
import pytest
import torch

from longflow.cli import evaluate, predict
from longflow.data.dataset import (
    DatasetDescription,
    Scan,
    image_path,
    read_rows,
    series_of_folder,
    write_description,
    write_scans,
)
from longflow.data.images import read_image, read_scan, write_volume
from longflow.errors import DataError
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.methods.registry import validation_class_of
from longflow.paths import DatasetPaths
from longflow.plans import write_plans
from longflow.reading import read_json
from longflow.tasks.segment import validation as label_validation
from longflow.tasks.segment.validation import LabelValidation, dice_of_structures, mean_dice
from longflow.training.splits import Cohort
from tests.tasks.segment.cohort import segment_plans
from tests.training.helpers import geometry, prepare_all, trained_model

SHAPE = (6, 12, 14)
TIMES = (0.0, 10.0, 30.0)


class Threshold(Method):
    """Segments by the image: left (1) from 0, right (2) from 2 of the normal form; nothing to learn."""

    task, samples, validation, reductions, mirrors = "segment", "labelled", "labels", ("logits",), True

    def predict(self, batch):
        image = batch.image[:, 0]
        left, right = (image >= 0) & (image < 2), image >= 2
        return {"logits": torch.stack([~(left | right), left, right], 1).float()}


class Nothing(Threshold):
    """Segments nothing."""

    def predict(self, batch):
        return {"logits": torch.cat([torch.ones_like(batch.image), *[torch.zeros_like(batch.image)] * 2], 1)}


def image_array(subject: int, scan: int) -> np.ndarray:
    """Blocks of three intensities, the brightest in a corner; what it is in the normal form does not matter."""
    array = np.full(SHAPE, 10.0, dtype=np.float32)
    array[1:5, 2 : 8 + scan, 2:9] = 30
    array[4:, 8:, 9 + subject :] = 60
    return array


def true_label(array: np.ndarray) -> np.ndarray:
    """What :class:`Threshold` finds in a scan that is normalised by its own mean and standard deviation."""
    normal = (array - array.mean()) / array.std()
    return np.digitize(normal, [0, 2]).astype(np.int16)


def make_labelled(labelled=lambda subject, scan: True, label_of=true_label, plans=None) -> tuple[DatasetPaths, Cohort]:
    """Two subjects of three scans below LONGFLOW_HOME, raw and prepared, and the cohort of both."""
    paths, plans = DatasetPaths("Dataset001_Test"), plans or segment_plans()
    description = DatasetDescription(
        channel_names={"0": "channel 0"}, file_ending=".nii.gz", time_unit="days", labels=plans.labels, task="segment"
    )
    rows = []
    for subject in range(2):
        for index, time in enumerate(TIMES):
            case, array = f"s{subject}_{index}", image_array(subject, index)
            file = image_path(paths.raw / "imagesTr", case, 0, description)
            write_volume(array, geometry(SHAPE), "int16", file)
            if labelled(subject, index):
                write_volume(label_of(array), geometry(SHAPE), "uint8", paths.raw / "labelsTr" / f"{case}.nii.gz")
            rows.append(Scan(case, f"s{subject}", time, (file,)))
    write_scans(rows, paths.raw / "scans.csv")
    write_description(description, paths.raw / "dataset.json")
    write_plans(plans, paths.plans())
    prepare_all(paths, plans)
    cache = paths.cache(plans.plans_name, "3d_fullres")
    return paths, Cohort(cache, {f"s{subject}": [f"s{subject}_{index}" for index in range(3)] for subject in range(2)})


def validation_on(paths, cohort, plans=None, fold=0) -> LabelValidation:
    job = FoldJob(paths, plans or segment_plans(), "3d_fullres", "unet", fold)
    return LabelValidation(job, cohort, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))


def method_of(kind=Threshold):
    return kind(segment_plans(), "3d_fullres").eval()


def test_a_perfect_and_an_empty_segmentation():
    validation = validation_on(*make_labelled())
    perfect = validation.score(method_of())
    assert perfect.value == pytest.approx(0) and perfect.note == "Dice 1.0000"
    assert perfect.columns == {"dice": 1.0, "dice_left": 1.0, "dice_right": 1.0}
    nothing = validation.score(method_of(Nothing))
    assert nothing.value == 1 and nothing.columns == {"dice": 0, "dice_left": 0, "dice_right": 0}


def test_the_score_is_that_of_the_prepared_grid_in_numpy():
    """Truth: left a row too wide. The crop is the whole image, so Dice can be taken in the files."""

    def wide(array):
        label = true_label(array)
        label[1:5, 1, 2:9] = 1
        return label

    score = validation_on(*make_labelled(label_of=wide)).score(method_of())
    found = []
    for subject in range(2):
        for scan in range(3):
            array = image_array(subject, scan)
            one, other = true_label(array) == 1, wide(array) == 1
            found.append(2 * (one & other).sum() / (one.sum() + other.sum()))
    assert score.columns["dice_left"] == pytest.approx(np.mean(found)) and score.columns["dice_right"] == 1
    assert score.value == pytest.approx(1 - (np.mean(found) + 1) / 2) and 0 < score.value < 0.5


def test_only_scans_with_labels_of_validation_subjects_count():
    paths, cohort = make_labelled(lambda subject, scan: (subject, scan) in [(0, 1), (1, 0), (1, 2)])
    assert validation_on(paths, cohort).all_scans == [("s0", 1), ("s1", 0), ("s1", 2)]
    one = Cohort(cohort.folder, {"s1": cohort.scans["s1"]})
    assert validation_on(paths, one).scans == [("s1", 0), ("s1", 2)]


def test_a_fixed_even_choice_of_scans_is_scored(monkeypatch):
    monkeypatch.setattr(label_validation, "MOST_SCANS", 3)
    validation = validation_on(*make_labelled())
    assert validation.scans == [("s0", 0), ("s0", 2), ("s1", 2)] and len(validation.all_scans) == 6


def test_no_label_in_the_validation():
    with pytest.raises(DataError, match=r"None of the 2 subjects that validate fold 3 .*labelsTr"):
        validation_on(*make_labelled(lambda *_: False), fold=3)


def test_labels_without_a_structure():
    with pytest.raises(DataError, match="fold 0 hold none of the structures left, right"):
        validation_on(*make_labelled(label_of=lambda array: np.zeros(SHAPE, np.int16)))


def test_the_trainer_finds_it():
    assert validation_class_of(Threshold) is LabelValidation


def test_out_of_fold_label_maps_are_a_valid_folder(caplog):
    paths, cohort = make_labelled(lambda subject, scan: scan != 1)
    validation = validation_on(paths, cohort)
    with caplog.at_level(logging.INFO, "longflow"):
        validation.finish(method_of())
    folder = validation.job.paths.validation("labels")
    cases = ["s0_0", "s0_2", "s1_0", "s1_2"]
    assert sorted(path.name for path in folder.glob("*.nii.gz")) == [f"{case}.nii.gz" for case in cases]
    for case in cases:
        found, label = (place / f"{case}.nii.gz" for place in (folder, paths.raw / "labelsTr"))
        assert np.array_equal(read_scan((found,)).array, read_scan((label,)).array)
        assert read_scan((found,)).geometry == read_scan((label,)).geometry
        assert read_image(found).GetPixelIDTypeAsString() == "8-bit unsigned integer"
    sidecar = read_json(folder / "s1_2.json")
    voxels = int((true_label(image_array(1, 2)) == 1).sum())
    assert sidecar["volumes"]["left"]["voxels"] == voxels and sidecar["dice"] == {"left": 1.0, "right": 1.0}
    assert (sidecar["subject"], sidecar["time"], sidecar["method"], sidecar["folds"]) == ("s1", 30.0, ["unet"], [[0]])
    listed = series_of_folder(folder, DatasetDescription(**read_json(folder / "dataset.json")))
    assert [scan.case for one in listed for scan in one.scans] == cases
    assert (folder / "volumes.csv").read_text().count("\n") == 1 + 2 * len(cases)
    assert "Mean Dice of 4 out-of-fold label maps: 1.0000 (left 1.0000, right 1.0000)" in caplog.text


def test_evaluating_out_of_fold_label_maps_gives_the_logged_dice(caplog):
    def wide(array):
        label = true_label(array)
        label[1:5, 1, 2:9] = 1
        return label

    validation = validation_on(*make_labelled(label_of=wide))
    with caplog.at_level(logging.INFO, "longflow"):
        validation.finish(method_of())
    folder = validation.job.paths.validation("labels")
    assert evaluate.main(["-d", "1", "-i", str(folder), "-np", "1"]) == 0
    dice = read_json(folder / "metrics.json")["overall"]["dice"]["mean"]
    assert 0.5 < dice < 1 and f"Mean Dice of 6 out-of-fold label maps: {dice:.4f} (" in caplog.text


def test_longflow_predict_takes_out_of_fold_label_maps_for_its_own(caplog):
    """Same fields, settings and files: what the fold validated is finished, the other scans are added."""
    validation = validation_on(*make_labelled(lambda subject, scan: scan != 1))
    job, folder = validation.job, validation.job.paths.validation("labels")
    trained_model(job.dataset, job.plans, "unet")
    validation.finish(method_of())
    before = {path.name: path.read_bytes() for path in folder.glob("s*.*") if path.name != "scans.csv"}
    arguments = ("-d", "1", "-m", "unet", "-f", "0", "--device", "cpu")
    assert predict.main(["-i", str(job.dataset.raw / "imagesTr"), "-o", str(folder), *arguments]) == 0
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert [row.case for row in read_rows(folder / "scans.csv")] == [f"s{s}_{i}" for s in range(2) for i in range(3)]
    out_of_fold, predicted = read_json(folder / "s0_0.json"), read_json(folder / "s0_1.json")
    predicted.pop("fitness")  # validation writes sidecars without a verdict: its subjects are of the training data
    assert out_of_fold.keys() - predicted.keys() == {"dice"} and predicted.keys() <= out_of_fold.keys()


def test_at_the_end_inputs_are_mirrored_as_the_method_says_and_not_before(monkeypatch):
    mirrored = []
    logits = label_validation.predict_logits

    def noted(methods, image, settings, others=None):
        mirrored.append(settings.mirror)
        return logits(methods, image, settings)

    monkeypatch.setattr(label_validation, "predict_logits", noted)
    paths, cohort = make_labelled(lambda subject, scan: scan == 0)
    validation = validation_on(paths, cohort)
    validation.score(method_of())
    validation.finish(method_of())
    assert mirrored == [False, False, True, True]


def test_a_label_that_has_been_removed_since():
    paths, cohort = make_labelled()
    validation = validation_on(paths, cohort)
    (paths.raw / "labelsTr" / "s1_0.nii.gz").unlink()
    with pytest.raises(DataError, match="The label of s1_0 has left labelsTr"):
        validation.finish(method_of())


def test_dice_of_regions_without_ignored_voxels():
    plans = segment_plans({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, (1, 2))
    true = np.array([0, 1, 1, 2, 3, 3]).reshape(1, 1, 6)
    found = np.array([1, 1, 0, 2, 2, 0]).reshape(1, 1, 6)
    assert dice_of_structures(found, true, plans) == {"whole": pytest.approx(2 * 2 / (3 + 3)), "core": 1.0}
    plain = segment_plans({"background": 0, "whole": [1, 2], "core": [2]}, (1, 2))
    assert dice_of_structures(found, true, plain)["core"] == pytest.approx(2 / 3)


def test_mean_dice_leaves_out_what_is_undefined():
    """Over scans, then structures, then subjects."""
    subjects = [
        [{"a": 0.5, "b": None}, {"a": 0.7, "b": 1.0}],
        [{"a": 0.2, "b": None}],
        [{"a": None, "b": None}],
    ]
    mean, structures = mean_dice(subjects)
    assert mean == pytest.approx(np.mean([np.mean([0.6, 1.0]), 0.2]))
    assert structures == {"a": pytest.approx(np.mean([0.6, 0.2])), "b": 1.0}
    assert np.isnan(mean_dice([[{"a": None}]])[0])
