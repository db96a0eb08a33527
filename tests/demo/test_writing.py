"""Cohorts of all demos are written in one way."""

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan, series_of_folder, training_series
from longflow.data.images import read_scan
from longflow.demo.writing import (
    PhantomScan,
    centred_geometry,
    cohort_settings,
    is_written,
    rows_of_subject,
    stored_seed,
    subject_seed,
    write_cohort_dataset,
)
from longflow.errors import DataError
from longflow.reading import read_json

DESCRIPTION = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", task="forecast")
SETTINGS = {"subjects": 1, "test_subjects": 1}
SHAPE = (2, 3, 4)


def draw(number: int):
    """Two scans a subject, filled with the number of the subject; the second of the held-out one is a target."""
    for time in (0, 1):
        scan = Scan(f"s{number}_{time}", f"s{number}", time, ())
        image = np.full(SHAPE, number + 1, np.int16)
        label = None if time else np.full(SHAPE, 7, np.uint8)
        yield PhantomScan(scan, image, centred_geometry(SHAPE, (3, 2, 1)), label, is_target=number == time == 1)


def test_training_subjects_and_held_out_subjects_are_apart(tmp_path):
    write_cohort_dataset(tmp_path, DESCRIPTION, SETTINGS, draw, {"known.csv": [{"subject": "s0", "size": 3}]})
    description, (training,) = training_series(tmp_path)
    assert [scan.case for scan in training.scans] == ["s0_0", "s0_1"]
    assert [scan.label is not None for scan in training.scans] == [True, False]
    (held_out,) = series_of_folder(tmp_path / "imagesTs", description, tmp_path / "labelsTs")
    assert [(scan.case, scan.exists) for scan in held_out.scans] == [("s1_0", True), ("s1_1", False)]
    reference = read_scan((tmp_path / "targetsTs" / "s1_1_0000.nii.gz",))
    assert np.array_equal(reference.array[0], np.full(SHAPE, 2)) and reference.data_type == "int16"
    assert (tmp_path / "known.csv").read_text().split() == ["subject,size", "s0,3"]
    assert read_json(tmp_path / "dataset.json")["numTraining"] == 2


def test_a_cohort_that_was_interrupted_is_not_finished(tmp_path):
    def interrupted(number):
        yield from draw(number)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort_dataset(tmp_path, DESCRIPTION, SETTINGS, interrupted)
    assert list(tmp_path.rglob("*.nii.gz")) and not is_written(tmp_path, SETTINGS)


def test_a_finished_cohort_is_kept_and_another_is_not_overwritten(tmp_path):
    write_cohort_dataset(tmp_path, DESCRIPTION, SETTINGS, draw)
    assert is_written(tmp_path, SETTINGS)
    write_cohort_dataset(tmp_path, DESCRIPTION, SETTINGS, lambda number: pytest.fail("drawn again"))
    with pytest.raises(DataError, match="holds another dataset"):
        write_cohort_dataset(tmp_path, DESCRIPTION, {**SETTINGS, "subjects": 2}, draw)


def test_the_middle_of_the_grid_is_the_origin():
    geometry = centred_geometry(SHAPE, (3, 2, 1))
    assert geometry.size == (4, 3, 2) and geometry.spacing == (1, 2, 3)
    assert geometry.origin == (-1.5, -2, -1.5)


def test_a_subject_of_a_written_cohort_has_the_seed_that_it_was_drawn_with(tmp_path):
    settings = cohort_settings(1, 1, 7, SHAPE, visits=[2, 3])
    assert settings == {"subjects": 1, "test_subjects": 1, "seed": 7, "shape": [2, 3, 4], "visits": [2, 3]}
    write_cohort_dataset(tmp_path, DESCRIPTION, settings, draw)
    assert stored_seed(tmp_path, "phantom012") == subject_seed(7, 12) == 7012


def test_rows_of_training_subjects_and_of_held_out_ones():
    training = list(rows_of_subject("s0", [0.0, 2.5], []))
    assert training == [(Scan("s0_00", "s0", 0.0, ()), False), (Scan("s0_01", "s0", 2.5, ()), False)]
    *_, near, far = rows_of_subject("s1", [0.0], [3.0, 9.0])
    assert (near, far) == ((Scan("s1_near", "s1", 3.0, ()), True), (Scan("s1_far", "s1", 9.0, ()), True))
