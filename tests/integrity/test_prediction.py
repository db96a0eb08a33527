"""Prediction input: tables and names before, voxels in memory, and how far both are from the training data."""

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription
from longflow.data.images import read_scan
from longflow.integrity.prediction import scan_problems, trained_unit_problems, verify_input
from longflow.plans import TrainingData
from tests.data.helpers import SHAPE, tiny_array, write_image
from tests.methods.helpers import minimal_plans

T1 = DatasetDescription(channel_names={"0": "T1"}, file_ending=".nii.gz", time_unit="days")


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        write_image(tiny_array(index), tmp_path / f"a_{index}_0000.nii.gz")
    (tmp_path / "scans.csv").write_text("case,subject,time\na_0,a,0\na_1,a,90\na_2,a,180\na_next,a,365\n")
    return tmp_path


def test_a_good_folder_has_no_problem(folder):
    (folder / "notes.txt").touch()
    (folder / "a_0.json").touch()
    plans = minimal_plans()
    plans.temporal.longest_horizon = 365
    assert verify_input(folder, T1, plans) == []


def test_problems_of_table_and_names_are_found_at_once(folder):
    (folder / "a_2_0000.nii.gz").rename(folder / "A_2_0000.nii.gz")
    (folder / "a_1_0000.nii.gz").unlink()
    (folder / "a_1_0000.nii.gz").symlink_to("nowhere")
    with open(folder / "scans.csv", "a") as file:
        file.write("a_9,a,soon\n")
    problems = verify_input(folder, T1)
    assert {(one.severity, one.file, one.field) for one in problems} == {
        ("error", "A_2_0000.nii.gz", "name"),
        ("error", "a_1_0000.nii.gz", "file"),
        ("error", "scans.csv", "line 6: time"),
    }


def test_dates_as_numbers_are_an_error_and_years_a_warning(folder):
    (folder / "scans.csv").write_text("case,subject,time\na_0,a,20190101\na_1,a,20190401\na_2,a,20190701\n")
    assert [(one.severity, one.field) for one in verify_input(folder, T1)] == [("error", "time")]
    (folder / "scans.csv").write_text("case,subject,time\na_0,a,2019\na_1,a,2020\na_2,a,2021\n")
    assert [(one.severity, one.field) for one in verify_input(folder, T1)] == [("warning", "time")]


def test_the_table_of_a_raw_dataset_is_found_from_its_image_folder(folder, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    images = raw / "imagesTr"
    images.mkdir()
    for path in folder.glob("*.nii.gz"):
        path.rename(images / path.name)
    (folder / "scans.csv").rename(raw / "scans.csv")
    assert verify_input(images, T1) == []
    (images / "a_1_0000.nii.gz").rename(images / "A_1_0000.nii.gz")
    (problem,) = verify_input(images, T1)
    assert f"line 3 of {raw / 'scans.csv'}" in problem.expected


@pytest.mark.parametrize(
    ("unit", "interval", "trained", "likely"),
    [
        ("days", 3, (60, 90, 365), "months"),
        ("days", 0.25, (60, 90, 365), "years"),
        ("days", 13, (60, 90, 365), "weeks"),
        ("years", 90, (0.2, 0.25, 1), "days"),
        ("months", 91, (1, 3, 12), "days"),
        ("s", 40, (0.02, 0.04, 1), "ms"),
        ("ms", 0.04, (20, 40, 1000), "s"),
        ("days", 90, (60, 90, 365), None),
        ("days", 20, (60, 90, 365), "weeks"),
        ("days", 1000, (60, 90, 365), None),
        ("frames", 1000, (1, 1, 20), None),
    ],
)
def test_the_likely_unit_of_times(unit, interval, trained, likely):
    low, scale, high = trained
    further = {"time_unit": unit, "time_scale": scale, "shortest_interval": low, "longest_horizon": high}
    plans = minimal_plans()
    plans.temporal = plans.temporal.model_copy(update=further)
    problems = trained_unit_problems([[0, interval, 2 * interval], [5.0]], plans, "scans.csv")
    assert [f"The times may be in {likely} " in one.advice for one in problems] == ([True] if likely else [])
    assert trained_unit_problems([[1.0], [5.0]], plans, "scans.csv") == []


def test_the_shortest_interval_of_the_training_is_no_other_unit():
    """One interval in a hundred is of two weeks: rare, but trained on."""
    plans = plans_of(shortest_interval=14)
    plans.temporal = plans.temporal.model_copy(update={"shortest_interval": 60.0, "longest_horizon": 365.0})
    assert trained_unit_problems([[0, 14]], plans, "scans.csv") == []
    assert len(trained_unit_problems([[0, 13]], plans, "scans.csv")) == 1


def plans_of(channel="T1", foreground="bodies", low=450.0, high=990.0, **further):
    plans = minimal_plans()
    plans.channel_names, plans.channels[0].name = [channel], channel
    ranges = {"spacing": [(5.0, 5.0), (1.5, 1.5), (1.5, 1.5)], "field_of_view": [(30, 30), (12, 12), (12, 12)]}
    intensities = [{"percentile_00_5": low, "median": (low + high) / 2, "percentile_99_5": high}]
    content = {**ranges, "intensities": intensities, "foreground": foreground, "shortest_interval": None, **further}
    plans.training_data = TrainingData.model_validate(content)
    return plans


def problems_of(tmp_path, array, plans=None, **geometry):
    """Of a volume of 8 x 8 x 6 voxels of 1.5 x 1.5 x 5 mm."""
    path = tmp_path / "a_0000.nii.gz"
    write_image(array, path, **geometry)
    return scan_problems(read_scan((path,)), (path,), plans or plans_of())


def test_a_scan_like_the_training_data(tmp_path):
    assert problems_of(tmp_path, tiny_array()) == []
    assert problems_of(tmp_path, tiny_array(), spacing=(0.75, 0.75, 5.0)) == []
    assert problems_of(tmp_path, tiny_array() + 100) == []


@pytest.mark.parametrize(
    ("spacing", "field", "advice"),
    [
        ((0.0015, 0.0015, 0.005), "spacing", "may be in metres"),
        ((0.15, 0.15, 0.5), "spacing", "may be in centimetres"),
        ((1500.0, 1500.0, 5000.0), "spacing", "may be in micrometres"),
        ((1.5, 1.5, 20.0), "spacing", "Check the file"),
        ((0.6, 0.6, 5.0), "field of view", "Check the file"),
        ((4.0, 4.0, 5.0), "field of view", "Check the file"),
    ],
)
def test_a_grid_unlike_the_training_data(tmp_path, spacing, field, advice):
    (problem,) = problems_of(tmp_path, tiny_array(), spacing=spacing)
    assert (problem.severity, problem.file, problem.field) == ("warning", "a_0000.nii.gz", field)
    assert advice in problem.advice


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0), (10, 0), (1, 5000), (-1, 0)])
@pytest.mark.parametrize("foreground", ["bodies", "labels"])
def test_intensities_unlike_the_training_data(tmp_path, scale, shift, foreground):
    array = tiny_array().astype(np.float32) * scale + shift
    problems = problems_of(tmp_path, array, plans_of(foreground=foreground))
    if foreground == "labels" and scale == 10:
        return  # the structures may be among its darkest voxels
    (problem,) = problems
    assert (problem.severity, problem.field) == ("warning", "intensities")


def test_labelled_structures_darker_than_the_body_are_no_alarm(tmp_path):
    assert problems_of(tmp_path, tiny_array(), plans_of(foreground="labels", low=90.0, high=130.0)) == []


def test_the_checks_of_training_data(tmp_path):
    (problem,) = problems_of(tmp_path, np.full(SHAPE, 7, np.int16))
    assert (problem.severity, problem.found) == ("error", "all 7")
    (problem,) = problems_of(tmp_path, tiny_array() // 2 - 2048, plans_of(channel="CT"))
    assert (problem.severity, problem.field) == ("warning", "values")


def test_a_model_that_does_not_know_its_training_data(tmp_path):
    assert problems_of(tmp_path, tiny_array() * 10, minimal_plans(), spacing=(150.0, 150.0, 500.0)) == []
