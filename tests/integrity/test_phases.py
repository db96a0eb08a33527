"""Every kind of problem of contrast phases, for a task that uses them."""

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Row
from longflow.integrity.dataset import verify_dataset
from longflow.integrity.phases import expected_phases, pairs_of_rows, phase_problems
from tests.data.helpers import (
    edit_description,
    edit_table,
    phase_array,
    phase_label,
    write_image,
    write_phase_dataset,
)


@pytest.fixture
def raw(tmp_path):
    return write_phase_dataset(tmp_path / "Dataset001_Tiny", subjects=("p1", "p2", "p3"))


def check(raw):
    return verify_dataset(raw, processes=1)


def only(problems, severity="error"):
    assert len(problems) == 1, "\n".join(map(str, problems))
    assert problems[0].severity == severity
    return problems[0]


def rows_of(*lines):
    """Lines (subject, time, phase) of a table, from line 2 on."""
    return [
        Row(number, f"{subject}_{number}", subject, str(time), {"phase": phase})
        for number, (subject, time, phase) in enumerate(lines, start=2)
    ]


def problems_of(*lines, phases=(), test=()):
    description = DatasetDescription(
        channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days", task="translate", phases=list(phases)
    )
    tables = [("scans.csv", rows_of(*lines))] + ([("imagesTs/scans.csv", rows_of(*test))] if test else [])
    return phase_problems(description, *tables)


PAIRS = (("a", 0, "native"), ("a", 0, "arterial"), ("b", 0, "native"), ("b", 0, "arterial"))


def test_a_good_dataset_has_no_problem(raw):
    assert check(raw) == []
    assert problems_of(*PAIRS) == problems_of(*PAIRS, phases=("native", "arterial"), test=[("c", 0, "native")]) == []


def test_no_column_is_one_problem(raw):
    text = (raw / "scans.csv").read_text().splitlines()
    (raw / "scans.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in text) + "\n")
    problem = only(check(raw))
    assert (problem.file, problem.field, problem.found) == ("scans.csv", "phase", "missing or empty")


def test_an_empty_cell(raw):
    edit_table(raw, "p1_0_native,p1,0,native", "p1_0_native,p1,0,")
    problems = {(problem.severity, problem.field): problem for problem in check(raw)}
    assert problems.pop(("error", "line 2: phase")).expected == "native or arterial"
    assert problems.pop(("warning", "subject p1")).found == "arterial at 0 alone"
    assert not problems


@pytest.mark.parametrize(("written", "meant"), [("nativ", "native"), ("Native", "native"), ("artierial", "arterial")])
@pytest.mark.parametrize("phases", [[], ["native", "arterial"]])
def test_a_misspelt_phase_is_named_with_the_nearest(raw, written, meant, phases):
    edit_description(raw, phases=phases)
    edit_table(raw, f"p2_0_{meant},p2,0,{meant}", f"p2_0_{meant},p2,0,{written}")
    problems = {problem.severity: problem for problem in check(raw)}
    assert (problems["error"].found, problems["error"].expected) == (f"'{written}'", f"{meant}?")
    assert problems["error"].field == ("line 4: phase" if meant == "native" else "line 5: phase")
    assert problems["warning"].field == "subject p2" and len(check(raw)) == 2


def test_a_third_phase_is_excluded_where_dataset_json_names_the_two():
    lines = (*PAIRS, ("a", 0, "venous"), ("b", 0, "venous"))
    problem = only(problems_of(*lines, phases=("native", "arterial")), "warning")
    assert (problem.found, problem.expected) == ("'venous' in 2 lines (a_6, b_7)", "native or arterial")
    assert "excluded from training" in problem.advice


def test_a_third_phase_needs_two_to_be_named():
    lines = (*PAIRS, ("a", 0, "venous"), ("b", 0, "venous"))
    problem = only(problems_of(*lines))
    assert (problem.file, problem.field, problem.expected) == (
        "dataset.json",
        "phases",
        "two of arterial, native, venous",
    )


def test_a_phase_of_dataset_json_that_no_scan_has():
    problem = only(problems_of(*PAIRS, phases=("native", "portal")))
    assert (problem.file, problem.field) == ("dataset.json", "phases.portal")
    assert "arterial, native" in problem.expected


def test_one_phase_alone_in_the_whole_table():
    problem = only(problems_of(("a", 0, "native"), ("b", 0, "native")))
    assert problem.found == "native in every line" and "other phase" in problem.advice


def test_a_phase_is_part_of_names_of_files():
    problem = only(problems_of(*((subject, 0, phase) for subject in "ab" for phase in ("w/o", "arterial"))))
    assert problem.found == "'w/o'" and "without slashes" in problem.expected


def test_a_subject_with_one_phase_is_excluded_and_named(raw):
    edit_table(raw, "p3_0_arterial,p3,0,arterial\n", "")
    (raw / "imagesTr" / "p3_0_arterial_0000.nii.gz").unlink()
    (raw / "labelsTr" / "p3_0_arterial.nii.gz").unlink()
    problem = only(check(raw), "warning")
    assert (problem.field, problem.found) == ("subject p3", "native at 0 alone")
    assert problem.expected == "native and arterial at one time" and "excluded from training" in problem.advice


def test_no_subject_with_a_pair_is_an_error():
    problems = problems_of(("a", 0, "native"), ("b", 0, "arterial"), ("c", 0, "native"))
    assert [problem.field for problem in problems if problem.severity == "warning"] == [f"subject {s}" for s in "abc"]
    problem = only([problem for problem in problems if problem.severity == "error"])
    assert problem.found == "0 of 3 have a pair" and problem.expected == "native and arterial of 2 subjects at least"


def test_one_subject_with_a_pair_cannot_be_validated():
    problem = only(problems_of(*PAIRS[:2]), "warning")
    assert problem.found == "1 of 1 have a pair (a)"


def test_phases_at_two_times_are_no_pair():
    problem = only(problems_of(*PAIRS, ("c", 0, "native"), ("c", 0.5, "arterial")), "warning")
    assert problem.found == "native at 0 and arterial at 0.5 alone" and "give both the same time" in problem.advice


def test_a_further_scan_of_a_subject_with_a_pair():
    problem = only(problems_of(*PAIRS, ("a", 30, "arterial")), "warning")
    assert problem.found == "arterial at 30 alone" and "the pairs of the subject are used" in problem.advice


def test_the_same_phase_twice_at_one_time(raw):
    edit_table(raw, "p1_0_arterial,p1,0,arterial", "p1_0_arterial,p1,0,native")
    problem = only([problem for problem in check(raw) if problem.severity == "error"])
    assert problem.field == "line 3: time"
    assert problem.found == "0 of subject p1 in phase native, as in line 2"


def test_test_scans_need_one_of_the_two_phases():
    test = (("c", 0, "native"), ("d", 0, "nativ"), ("e", 0, "venous"), ("f", 0, ""))
    problems = problems_of(*PAIRS, test=test)
    assert {problem.severity for problem in problems} == {"error"}
    assert {problem.file for problem in problems} == {"imagesTs/scans.csv"}
    assert sorted(problem.found for problem in problems) == ["'nativ'", "'venous' in 1 lines (e_4)", "empty"]


def test_a_test_scan_without_its_file(raw):
    (raw / "imagesTs").mkdir()
    (raw / "imagesTs" / "scans.csv").write_text("case,subject,time,phase\nt_0,t,0,native\n")
    problem = only(check(raw))
    assert (problem.file, problem.expected) == ("imagesTs/scans.csv", "a file imagesTs/t_0_0000.nii.gz")


def test_a_pair_on_two_grids_needs_registration(raw):
    path = raw / "imagesTr" / "p1_0_arterial_0000.nii.gz"
    write_image(phase_array(0, True), path, origin=(12.0, -20.0, 30.0))
    write_image(phase_label(), raw / "labelsTr" / "p1_0_arterial.nii.gz", origin=(12.0, -20.0, 30.0))
    fields = {(problem.severity, problem.file, problem.field): problem.advice for problem in check(raw)}
    advice = fields["error", "imagesTr/p1_0_arterial_0000.nii.gz", "origin"]
    assert "longflow_register" in advice and "deformable" in advice


def test_scans_in_a_third_phase_may_lie_anywhere(raw):
    edit_description(raw, phases=["native", "arterial"])
    with open(raw / "scans.csv", "a") as file:
        file.write("p1_0_venous,p1,0,venous\n")
    write_image(phase_array(0, True), raw / "imagesTr" / "p1_0_venous_0000.nii.gz", origin=(12.0, -20.0, 30.0))
    assert {problem.severity for problem in check(raw)} == {"warning"}


def test_scans_without_labels_are_counted_and_no_series_is_required(raw):
    (raw / "labelsTr" / "p1_0_native.nii.gz").unlink()
    problem = only(check(raw), "warning")
    assert problem.found == "1 of 6 scans have none (p1_0_native)" and "without labels" in problem.advice


def test_expected_phases_are_the_most_frequent_ones():
    lines = rows_of(*PAIRS, ("c", 0, "aterial"), ("d", 0, "nativ"))
    description = DatasetDescription(channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days")
    assert expected_phases(description, lines) == ["native", "arterial"]
    named = description.model_copy(update={"phases": ["x", "y"]})
    assert expected_phases(named, lines) == ["x", "y"]


def test_pairs_of_rows_are_positions():
    lines = rows_of(("a", 0, "arterial"), ("a", 0, "native"), ("a", 9, "native"), ("a", "soon", "native"))
    assert pairs_of_rows(lines, ["native", "arterial"]) == [(1, 0)]
    assert pairs_of_rows(lines, ["native"]) == []
    assert np.array_equal(pairs_of_rows([], ["native", "arterial"]), [])
