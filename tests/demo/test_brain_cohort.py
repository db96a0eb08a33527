import csv

import numpy as np
import pytest

from longflow.data.dataset import series_of_folder, training_series
from longflow.demo.brain import STRUCTURES, draw_patient, true_volumes
from longflow.demo.brain_cohort import DATASET_NAME, visit_times, write_brain_cohort
from longflow.errors import DataError

TINY = {"subjects": 2, "test_subjects": 1, "shape": (22, 30, 25)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home") / "raw" / DATASET_NAME
    write_brain_cohort(folder, **TINY)
    return folder


def test_every_scan_has_a_label_and_its_true_volumes(raw):
    description, training = training_series(raw)
    held_out = series_of_folder(raw / "imagesTs", description, raw / "labelsTs")
    assert description.task == "segment" and [len(training), len(held_out)] == [2, 1]
    with open(raw / "true_volumes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scans = [scan for series in (*training, *held_out) for scan in series.scans]
    assert all(scan.exists and scan.label for scan in scans)
    assert len(rows) == len(STRUCTURES) * len(scans)
    row = next(row for row in rows if row["case"] == "brain002_01" and row["structure"] == "thalami")
    assert float(row["volume_ml"]) == pytest.approx(
        true_volumes(draw_patient(2), float(row["time"]))["thalami"], abs=1e-4
    )


def test_times_begin_at_zero_and_are_irregular():
    for seed in range(10):
        times = visit_times(draw_patient(seed), (3, 5))
        assert times[0] == 0 and 3 <= len(times) <= 5
        assert (np.diff(times) > 0.2).all() and np.ptp(np.diff(times)) > 0.01


def test_a_cohort_is_kept_and_another_one_is_not_overwritten(raw):
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*") if path.is_file()}
    write_brain_cohort(raw, **TINY)
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*") if path.is_file()} == before
    with pytest.raises(DataError, match="holds another dataset"):
        write_brain_cohort(raw, **TINY, seed=1)
