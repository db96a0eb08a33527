"""Every kind of label problem for a task that uses labels; the files are checked in test_dataset.py."""

import numpy as np
import pytest

from longflow.integrity.dataset import verify_dataset
from tests.data.helpers import edit_description, edit_table, tiny_array, tiny_label, write_dataset, write_image

LABEL = "labelsTr/p1_1.nii.gz"


@pytest.fixture
def raw(tmp_path):
    return write_dataset(tmp_path / "Dataset001_Tiny", task="segment")


def only(raw, severity):
    problems = verify_dataset(raw, processes=1)
    assert len(problems) == 1, "\n".join(map(str, problems))
    assert problems[0].severity == severity
    return problems[0]


def test_a_good_dataset_has_no_problem(raw):
    assert verify_dataset(raw, processes=1) == []


def test_subjects_with_one_scan_are_fine_and_said_in_one_line(tmp_path):
    raw = write_dataset(tmp_path / "Dataset001_Tiny", subjects=("p1", "p2", "p3"), times=(0,), task="segment")
    problem = only(raw, "note")
    assert problem.found == "3 of 3 have one scan (p1, p2 and 1 more)"
    assert "excluded from pairs" in problem.advice


def test_labels_at_some_scans_are_counted(raw):
    (raw / LABEL).unlink()
    assert only(raw, "note").found == "5 of 6 scans have one (p1_1 without)"


def test_labels_of_one_subject_leave_no_other_to_validate_on(raw):
    for case in ("p2_0", "p2_1", "p2_2"):
        (raw / f"labelsTr/{case}.nii.gz").unlink()
    problem = only(raw, "warning")
    assert problem.found == "3 of 6 scans have one, all of subject p1" and problem.expected.startswith("labels of 2")


def test_no_labels_are_enough_for_pretraining(raw):
    for path in (raw / "labelsTr").iterdir():
        path.unlink()
    problem = only(raw, "note")
    assert problem.found == "none of 6 scans has one" and "Pretraining" in problem.advice
    assert "2 subjects must have labels" in problem.advice
    edit_description(raw, labels={})
    assert only(raw, "note").found == "none of 6 scans has one"


def test_a_structure_in_no_training_label(raw):
    edit_description(raw, labels={"background": 0, "lesion": 1, "cyst": 2})
    problem = only(raw, "warning")
    assert (problem.field, problem.found) == ("labels.cyst", "2 in no label image of the training scans")
    assert "its volume will be 0" in problem.advice


def test_a_structure_in_test_labels_alone_cannot_be_learnt(raw):
    edit_description(raw, labels={"background": 0, "lesion": 1, "cyst": 2})
    write_image(tiny_array(), raw / "imagesTs/t_0_0000.nii.gz")
    write_image(tiny_label() * np.uint8(2), raw / "labelsTs/t_0.nii.gz")
    (raw / "imagesTs/scans.csv").write_text("case,subject,time\nt_0,t,0\n")
    assert only(raw, "warning").field == "labels.cyst"


def test_a_region_is_there_where_one_of_its_values_is(raw):
    edit_description(raw, labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2])
    assert only(raw, "warning").field == "labels.core"


def test_scans_on_different_grids_need_registration(raw):
    (raw / LABEL).unlink()
    write_image(tiny_array(), raw / "imagesTr/p1_1_0000.nii.gz", origin=(10.0, -20.0, 31.0))
    problem = next(problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error")
    assert problem.field == "origin" and "longflow_register" in problem.advice


def test_one_scan_of_each_subject_needs_no_common_grid(raw):
    (raw / "imagesTr/p1_2_0000.nii.gz").unlink()
    (raw / "labelsTr/p1_2.nii.gz").unlink()
    edit_table(raw, "p1_2,p1,75\n", "")
    edit_table(raw, "p1_1,p1,30", "p1_1,p3,30")
    write_image(tiny_array(), raw / "imagesTr/p1_1_0000.nii.gz", origin=(0, 0, 0))
    write_image(tiny_label(), raw / LABEL, origin=(0, 0, 0))
    assert only(raw, "note").field == "subjects"


def test_a_label_on_another_grid_than_its_image(raw):
    write_image(tiny_label(), raw / LABEL, origin=(0.0, -20.0, 30.0))
    problem = only(raw, "error")
    assert (problem.file, problem.field) == (LABEL, "origin") and "grid of its scan" in problem.advice


@pytest.mark.parametrize("order", [[], [1]])
def test_regions_without_their_order(raw, order):
    edit_description(raw, labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=order)
    write_image(tiny_label() * np.uint8(2), raw / LABEL)
    problem = only(raw, "error")
    assert problem.field == "regions_class_order" and problem.found == (str(order) if order else "missing")
    assert problem.expected == "2 label values, one for each of whole, core"


def test_an_ignore_label_that_is_not_the_highest(raw):
    edit_description(raw, labels={"background": 0, "ignore": 1, "lesion": 2})
    write_image(tiny_label() * np.uint8(2), raw / LABEL)
    assert only(raw, "error").expected == "'background' with 0, then 1, 2, ...; 'ignore' (if any) the highest"


def test_a_label_value_that_is_not_named(raw):
    write_image(tiny_label() * np.uint8(3), raw / LABEL)
    problem = only(raw, "error")
    assert (problem.field, problem.found, problem.expected) == ("label values", "3", "0, 1")
