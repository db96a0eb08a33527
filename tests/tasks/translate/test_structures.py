import csv
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.errors import ConfigurationError, DataError
from longflow.evaluation.evaluation import EvaluationJob
from longflow.inference.selection import select
from longflow.tasks.translate.evaluation import evaluate_translations
from longflow.tasks.translate.structures import STRUCTURES_CSV
from longflow.tasks.translate.tables import show_translations
from tests.data.helpers import edit_description, phase_label, write_phase_dataset
from tests.tasks.forecast import segmenting
from tests.tasks.forecast.segmenting import segment_by_threshold, segmenter_dataset

#: structures by HU: noise makes their borders differ between scans; the first has the name of one of the dataset
LABELS, EDGES = {"background": 0, "vessel": 1, "core": 2}, [38.0, 52.0]


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(segmenting, "EDGES", EDGES)
    return write_phase_dataset(tmp_path / "raw", subjects=("p1", "p2", "p3"))


@pytest.fixture
def job(tmp_path, raw, write_translation):
    """A translation of each subject into the native phase, 10 HU off; a model that segments CT."""
    for subject in ("p1", "p2", "p3"):
        write_translation(tmp_path / "out", f"{subject}_0_arterial", "native", 10.0)
    segmenter_dataset(channels=("CT",), labels=LABELS)
    return EvaluationJob(tmp_path / "out", (), raw, read_description(raw / "dataset.json"), 1, select("103"), "cpu")


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def classes(path):
    return np.digitize(read_scan((path,)).array[0], EDGES)


def test_structures_of_the_translation_are_those_of_the_acquired_scan_as_far_as_dice_says(job, raw, monkeypatch):
    labelled = segment_by_threshold(monkeypatch)
    evaluation = evaluate_translations(job)
    assert len(labelled) == 3 + 6  # translations; acquired scans of both phases
    assert set(evaluation.written) >= {STRUCTURES_CSV, "segmented/"}
    with open(job.predictions / STRUCTURES_CSV, newline="") as file:
        rows = {(row["case"], row["structure"], row["image"]): row for row in csv.DictReader(file)}
    translated = classes(job.predictions / "p2_0_arterial_native_0000.nii.gz")
    native, arterial = (classes(raw / "imagesTr" / f"p2_0_{phase}_0000.nii.gz") for phase in ("native", "arterial"))
    for name, value in (("vessel", 1), ("core", 2)):
        for image, found in (("translation", translated), ("input", arterial)):
            row = rows["p2_0_arterial_native", name, image]
            assert float(row["dice"]) == pytest.approx(dice(found == value, native == value))
            voxel_ml = 1.5 * 1.5 * 5 / 1000
            error = abs(int((found == value).sum()) - int((native == value).sum())) * voxel_ml
            assert float(row["volume_error_ml"]) == pytest.approx(error)
    drawn = phase_label() == 1
    for image, found in (("translation", translated), ("input", arterial), ("acquired", native)):
        row = rows["p2_0_arterial_native", "vessel", image]
        assert float(row["dice_to_labels"]) == pytest.approx(dice(found == 1, drawn))
        assert rows["p2_0_arterial_native", "core", image]["dice_to_labels"] == ""  # nobody drew it
    assert rows["p2_0_arterial_native", "core", "acquired"]["dice"] == ""

    found = evaluation.results["structures"]["by_direction"]["native"]["core"]
    assert found["translation"]["dice"]["subjects"] == 3 and found["difference"]["dice"]["p_holm"] is not None
    evaluate_translations(job)
    assert len(labelled) == 9  # finished label maps are kept


def test_the_table(job, monkeypatch):
    segment_by_threshold(monkeypatch)
    console = Console(file=StringIO(), width=200)
    show_translations(evaluate_translations(job).results, console)
    text = " ".join(console.file.getvalue().split())
    assert "Structures in translations to native, segmented by unet" in text
    assert "Dice, with the acquired scan segmented" in text and "Dice, with the label map" in text


def test_without_a_model_nothing_is_segmented(job):
    evaluation = evaluate_translations(EvaluationJob(job.predictions, (), job.raw, job.description, 1))
    assert evaluation.results["structures"] is None
    assert not (job.predictions / "segmented").exists()


def test_phases_of_other_modalities(job, raw, monkeypatch, write_translation):
    """The model segments CT: translations to MR are not segmented, and MR is no baseline of a synthetic CT."""
    segment_by_threshold(monkeypatch)
    channels = {"native": {"0": "CT"}, "arterial": {"0": "T1"}}
    edit_description(raw, phases=["native", "arterial"], phase_channels=channels)
    write_translation(job.predictions, "p1_0_native", "arterial", 0.0)
    described = read_description(raw / "dataset.json")
    job = EvaluationJob(job.predictions, (), raw, described, 1, job.segmenter, "cpu")
    found = evaluate_translations(job).results["structures"]
    assert found["not_segmented"] == ["arterial"] and set(found["by_direction"]) == {"native"}
    assert "input" not in found["by_direction"]["native"]["core"]


def test_a_model_of_other_channels(job):
    segmenter_dataset(channels=("T1",), name="Dataset105_Other")
    other = EvaluationJob(job.predictions, (), job.raw, job.description, 1, select("105"), "cpu")
    with pytest.raises(ConfigurationError, match=r"1 channel \(T1\), but the translations of raw to native have .*CT"):
        evaluate_translations(other)


def test_translations_there_and_back_alone(job, tmp_path, write_translation):
    write_translation(tmp_path / "back", "p1_0_arterial_native", "arterial", 5.0, round_trip=True)
    back = EvaluationJob(tmp_path / "back", (job.predictions,), job.raw, job.description, 1, job.segmenter, "cpu")
    with pytest.raises(DataError, match="all translations lead back"):
        evaluate_translations(back)
