import shutil

import numpy as np
import pytest

from longflow.data.dataset import Scan, read_rows, write_scans
from longflow.data.images import write_volume
from longflow.errors import DataError
from longflow.files import write_json
from longflow.reading import read_json
from longflow.report.timeline import SEGMENTED, SEGMENTED_SCANS, SEGMENTED_VOLUMES, Predicted, Subject, read_results
from tests.report.conftest import HOSTILE
from tests.tasks.conftest import GEOMETRY, SHAPE


def test_everything_that_is_there(evaluated):
    results = read_results(evaluated)
    assert [one.name for one in results.subjects] == [HOSTILE, "s1"]
    subject = results.subjects[1]
    assert [(one.kind, one.time) for one in subject.moments] == [
        ("acquired", 0.0),
        ("acquired", 1.5),
        ("acquired", 4.0),
        ("prediction", 4.0),
    ]
    (forecast,) = subject.predicted
    assert forecast.reference.images[0].parent.name == "targetsTs"
    assert forecast.reference.label.parent.name == "labelsTs"
    assert forecast.last.case == "s1_1.5"
    assert not subject.warnings
    assert results.definitions == {"rmse": "root mean squared error"}
    assert [row["subject"] for row in results.tables["metrics.csv"]] == ["s1", HOSTILE]


def test_without_evaluation_sidecars_and_dataset(evaluated, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(evaluated / "nowhere"))
    for path in (*evaluated.glob("*.json"), evaluated / "metrics.csv"):
        if path.name != "dataset.json":
            path.unlink()
    (_, subject) = read_results(evaluated).subjects
    assert [one.kind for one in subject.moments] == ["prediction"]
    assert subject.predicted[0].reference is None and subject.predicted[0].sidecar == {}


def test_scans_that_are_missing_or_changed_are_said(evaluated):
    raw = evaluated.parent / "raw" / "Dataset101_Tiny" / "imagesTs"
    (raw / "s1_0_0000.nii.gz").unlink()
    write_volume(np.zeros(SHAPE), GEOMETRY, "float32", raw / "s1_1.5_0000.nii.gz")
    (_, subject) = read_results(evaluated).subjects
    missing, changed = subject.warnings
    assert "of the 2 scans that it was made from, 1 were not found (s1_0)" in missing
    assert "s1_1.5_0000.nii.gz was changed after" in changed
    assert [(one.kind, one.case, one.time) for one in subject.requested] == [("missing", "s1_0", 0.0)]


def test_half_predicted(evaluated):
    (evaluated / "s1_4_0000.nii.gz").unlink()
    (evaluated.parent / "raw" / "Dataset101_Tiny" / "targetsTs" / "s1_4_0000.nii.gz").unlink()
    results = read_results(evaluated)
    assert [one.name for one in results.subjects] == [HOSTILE]
    assert results.requested_only == ("s1",)


def test_a_patient_of_the_same_name_in_the_dataset_is_not_shown(evaluated, tmp_path):
    """Two hospitals may both have a P001: with a folder that is not of the dataset, the dataset's scans stay away."""
    own = tmp_path / "new_patients"
    write_scans([Scan("s1_0", "s1", 0.0, ())], own / "scans.csv")
    shutil.copy(evaluated / "dataset.json", own)
    write_volume(np.zeros(SHAPE), GEOMETRY, "float32", own / "s1_0_0000.nii.gz")
    (_, subject) = read_results(evaluated, [own]).subjects
    assert [one.case for one in subject.acquired] == ["s1_0"]


def test_a_folder_of_the_dataset_brings_its_references(evaluated):
    images = evaluated.parent / "raw" / "Dataset101_Tiny" / "imagesTs"
    (_, subject) = read_results(evaluated, [images]).subjects
    assert subject.predicted[0].reference is not None


@pytest.mark.parametrize(
    "strange", [{"context": 3}, {"context": [1, None]}, {"warnings": "x"}, {"dataset": ["a"]}, {"fitness": 3}]
)
def test_a_strange_sidecar_is_no_obstacle(evaluated, strange):
    path = evaluated / "s1_4.json"
    write_json(read_json(path) | strange, path)
    (_, subject) = read_results(evaluated).subjects
    assert len(subject.predicted) == 1


def test_no_predictions(evaluated, tmp_path):
    with pytest.raises(DataError, match=r"has no scans\.csv"):
        read_results(tmp_path)
    for path in evaluated.glob("*.nii.gz"):
        path.unlink()
    assert read_rows(evaluated / "scans.csv")
    with pytest.raises(DataError, match="holds no prediction"):
        read_results(evaluated)


def test_label_maps_of_a_segmenter_are_those_of_scans_without_a_rater(evaluated):
    label = evaluated.parent / "raw" / "Dataset101_Tiny" / "labelsTs" / "s1_4.nii.gz"
    for folder, case in ((SEGMENTED, "s1_4"), (SEGMENTED_SCANS, "s1_4"), (SEGMENTED_SCANS, "s1_0")):
        (evaluated / folder).mkdir(parents=True, exist_ok=True)
        (evaluated / folder / f"{case}.nii.gz").write_bytes(label.read_bytes())
    volumes = {"tumour": {"voxels": 3, "volume_ml": 0.75}}
    write_json(
        {"case": "s1_0", "subject": "s1", "time": 0.0, "volumes": volumes}, evaluated / SEGMENTED_SCANS / "s1_0.json"
    )
    results = read_results(evaluated)
    row = {"case": "s1_0", "subject": "s1", "time": "0.0", "source": "observed", "structure": "tumour"}
    assert results.tables[SEGMENTED_VOLUMES] == [{**row, "volume_ml": "0.75"}]
    assert results.label_names == {1: "tumour"}
    subject = results.subjects[1]
    assert subject.predicted[0].label == evaluated / SEGMENTED / "s1_4.nii.gz"
    found = {one.case: one.label for one in subject.acquired}
    assert found == {"s1_0": evaluated / SEGMENTED_SCANS / "s1_0.nii.gz", "s1_1.5": None, "s1_4": label}


def test_the_gravest_verdict_is_that_of_the_subject():
    sidecars = ({"fitness": {"verdict": "fit"}}, {"fitness": {"verdict": "doubtful", "reasons": ["Thick."]}}, {})
    predicted = tuple(Predicted(case=f"s_{number}", time=1.0, sidecar=one) for number, one in enumerate(sidecars))
    assert Subject("s", (), predicted, ()).verdict == "doubtful"
    assert [one.reasons for one in predicted] == [[], ["Thick."], []]
    assert Subject("s", (), predicted[2:], ()).verdict == ""
