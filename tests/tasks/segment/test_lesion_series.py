import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from longflow.data.dataset import is_name
from longflow.data.images import Geometry
from longflow.errors import ConfigurationError, DataError
from longflow.reading import read_json
from longflow.tasks.segment.lesion_changes import ChangeRule
from longflow.tasks.segment.lesion_series import LESIONS_CSV, LesionJob, follow_lesions, history, lesion_at

SHAPE = (8, 24, 60)
#: a file's axes along the patient's -x, -y, z: mm of NIfTI viewers are the voxel times 2
GRID = Geometry((60, 24, 8), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


def blocks(*of, value=1):
    """Blocks of 8 x 8 voxels across, (start, stop) along x."""
    array = np.zeros(SHAPE, np.uint8)
    for start, stop in of:
        array[:, 8:16, start:stop] = value
    return array


@pytest.fixture
def job(tmp_path, labelled):
    return LesionJob(tmp_path / "out", "whole", tmp_path / "raw", labelled, processes=1)


@pytest.fixture
def write(tmp_path, write_labels, write_table):
    """Write subjects of visits (time, label map, reference or None)."""

    def write(grids=None, **subjects):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        rows = []
        for subject, visits in subjects.items():
            for number, (time, array, reference) in enumerate(visits):
                case = f"{subject}_{number}"
                grid = (grids or {}).get(case, GRID)
                write_labels(tmp_path / "out", case, array, grid)
                if reference is not None:
                    write_labels(tmp_path / "raw" / "labelsTs", case, reference, grid)
                rows.append((case, subject, time))
        write_table(tmp_path / "out" / "scans.csv", *rows)

    return write


SERIES = [(0, blocks((0, 4), (10, 14)), None), (5, blocks((0, 8)), None), (9, blocks((0, 8), (30, 32)), None)]


def test_the_table(job, write):
    write(a=SERIES, b=[(1, blocks((4, 8)), None)])
    results, rows = follow_lesions(job)
    with open(job.folder / "lesions.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["subject"], line["lesion"], line["time"], line["change"]) for line in lines] == [
        ("a", "1", "0.0", "first visit"),
        ("a", "1", "5.0", "grown"),
        ("a", "1", "9.0", "stable"),
        ("a", "2", "0.0", "first visit"),
        ("a", "2", "5.0", "gone"),
        ("a", "3", "9.0", "new"),
        ("b", "1", "1.0", "first visit"),
    ]
    voxel = 8 * 8 * 8 / 1000  # ml of a slab of one voxel along x
    assert [float(line["ml"]) for line in lines] == pytest.approx([4 * voxel, 8 * voxel, 8 * voxel, 4 * voxel, 0,
                                                                   2 * voxel, 4 * voxel])  # fmt: skip
    assert [line["before_ml"] for line in lines[:2]] == ["", str(4 * voxel)]
    # the middle of voxels 30 and 31 along x, of 8 to 15 along y and of 0 to 7 along z
    assert [lines[5][f"{axis}_mm"] for axis in "xyz"] == ["61.0", "23.0", "7.0"]
    assert results["subjects_with_one_visit"] == ["b"]
    assert results["compared"] is None and results["pairs_not_checked"] == 2
    assert read_json(job.folder / "lesions.json") == results
    assert len(rows) == len(lines)


def test_changes_are_compared_where_every_visit_has_a_reference(job, write):
    one, other = blocks((0, 4)), blocks((0, 8))
    write(a=[(0, one, one), (1, other, other)], b=[(0, one, one), (1, one, other)], c=[(0, one, one), (1, one, None)])
    results, _ = follow_lesions(job)
    assert results["compared"]["subjects"] == 2 and results["compared"]["subjects_right"] == ["a"]
    assert results["compared"]["by_change"]["grown"] == {"reference": 2, "detected": 1, "predicted": 1, "correct": 1}
    text = (job.folder / "lesions_reference.csv").read_text()
    assert "b,1,b_1,1.0" in text and "c_" not in text


def test_voxels_whose_reference_is_unknown_count_in_neither(job, write):
    unknown = blocks((0, 4)) + blocks((20, 30), value=3)
    write(a=[(0, blocks((0, 4), (22, 28)), unknown), (1, blocks((0, 4)), unknown)])
    _, rows = follow_lesions(job)
    assert [row["lesion"] for row in rows] == [1, 1]


def test_the_rule_and_the_output_can_be_chosen(job, write, tmp_path):
    write(a=[(0, blocks((0, 10), (20, 21)), None), (1, blocks((0, 11), (20, 21)), None)])
    rule = ChangeRule(relative=0.05, absolute_ml=0.1, smallest_ml=0.6, gap=3)
    _, rows = follow_lesions(replace(job, rule=rule, output=tmp_path / "mine.csv"))
    assert [(row["lesion"], row["change"]) for row in rows] == [(1, "first visit"), (1, "grown")]
    assert (tmp_path / "mine.json").is_file() and not (job.folder / "lesions.csv").exists()


def test_subjects_on_several_grids_are_named_and_not_followed(job, write):
    moved = replace(GRID, origin=(3.0, 0.0, 0.0))
    write({"b_1": moved}, a=SERIES[:2], b=SERIES[:2])
    results, rows = follow_lesions(job)
    assert {row["subject"] for row in rows} == {"a"}
    assert "origin" in results["other_grids"]["b"] and "b_1" in results["other_grids"]["b"]
    write({"a_1": moved}, a=SERIES[:2])
    with pytest.raises(DataError, match=r"No subject has two visits on one grid: .*a_1.*longflow_register"):
        follow_lesions(job)


def test_scans_that_look_shifted_are_named(job, write, write_scan, tmp_path):
    """A body that moves by half its size, while the label maps are on one grid."""
    write(a=SERIES[:2], b=SERIES[:2])
    body = np.zeros((8, 48, 60), np.float32)
    body[:, 8:24, 8:32] = 100 + np.arange(24)
    for case, shift in (("a_0", 0), ("a_1", 20), ("b_0", 0), ("b_1", 0)):
        write_scan(tmp_path / "raw" / "imagesTs", case, np.roll(body, shift, 2))
    results, _ = follow_lesions(job)
    assert results["shifted"] == ["a_0 and a_1"] and results["pairs_not_checked"] == 0


def test_a_lesion_at_a_place(job, write):
    write(a=SERIES, b=SERIES[:2])
    assert lesion_at(job, "a", (20, 16, 0)) == ("a", 2)
    assert lesion_at(job, "a", (62, 16, 14)) == ("a", 3)  # it is there at the last visit alone
    assert lesion_at(job, "a", (10, 24, 4), time=5) == ("a", 1)


def test_a_place_without_a_lesion(job, write):
    write(a=SERIES)
    with pytest.raises(
        DataError, match=r"no lesion of 'whole' at \(40.0, 16.0, 4.0\) in a.*14.0 mm away at time 0, les"
    ):
        lesion_at(job, None, (40, 16, 4))
    with pytest.raises(DataError, match=r"no lesion .* time 5"):
        lesion_at(job, "a", (26, 16, 4), time=5)
    with pytest.raises(
        DataError, match=r"\(-20.0, 16.0, 4.0\) is outside the field of view.*\(0.0, 0.0, 0.0\) to \(118"
    ):
        lesion_at(job, "a", (-20, 16, 4))
    with pytest.raises(DataError, match=r"no visit at time 7. Expected: 0, 5, 9"):
        lesion_at(job, "a", (0, 16, 4), time=7)
    with pytest.raises(DataError, match=r"There is no subject z .*--subject: a"):
        lesion_at(job, "z", (0, 16, 4))
    write(a=SERIES, b=SERIES)
    with pytest.raises(DataError, match=r"A place is in one subject.*--subject: a, b"):
        lesion_at(job, None, (0, 16, 4))


def test_history_follows_what_a_lesion_merges_with(job, write):
    visits = [blocks((0, 4), (8, 11)), blocks((0, 11)), blocks((0, 4), (8, 11)), blocks((0, 4), (8, 11), (40, 43))]
    write(a=[(time, array, None) for time, array in enumerate(visits)])
    _, rows = follow_lesions(job)
    story = [(row["time"], row["lesion"], row["change"]) for row in history(rows, "a", 2)]
    assert story == [
        (0, 2, "first visit"),
        (1, 1, "merged"),
        (1, 2, "merged"),
        (2, 1, "split"),
        (2, 3, "split"),
        (3, 1, "stable"),
        (3, 3, "stable"),
    ]


def test_bad_input(job, write):
    with pytest.raises(ConfigurationError, match=r"no structure 'tumour' in .* Expected one of: whole, core"):
        follow_lesions(replace(job, structure="tumour"))
    write(a=SERIES[:1], b=SERIES[:1])
    with pytest.raises(DataError, match=r"Every subject in .* has one visit"):
        follow_lesions(job)
    with pytest.raises(DataError, match="does not exist"):
        follow_lesions(replace(job, folder=job.folder / "nowhere"))


def test_no_scan_has_the_name_of_the_files():
    """Its sidecar would be lesions.json."""
    assert not is_name(LESIONS_CSV.removesuffix(".csv"))
