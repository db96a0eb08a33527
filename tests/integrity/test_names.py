"""Names of entries against rows: what is found, what is only nearly found, what no row names."""

import os
import unicodedata

import pytest

from longflow.data.dataset import DatasetDescription, Row
from longflow.integrity.names import Table, compare_names

ONE = DatasetDescription(channel_names={"0": "T1"}, file_ending=".nii.gz", time_unit="days")
TWO = DatasetDescription(channel_names={"0": "T1", "1": "T2"}, file_ending=".nii.gz", time_unit="days")


def compare(folder, cases, description=ONE, unused="error"):
    rows = [Row(line, case, "s", str(line), {}) for line, case in enumerate(cases, start=2)]
    return compare_names(folder, Table("scans.csv", rows, unused), description)


def test_files_of_rows_and_requested_rows(tmp_path):
    for name in ("a_0_0000.nii.gz", "b_0000.nii.gz", "scans.csv", ".DS_Store", "._a_0_0000.nii.gz", "b.json"):
        (tmp_path / name).touch()
    (tmp_path / "documents").mkdir()
    names = compare(tmp_path, ["a_0", "b", "wanted"])
    assert names.channels == {"a_0": {0}, "b": {0}} and not names.problems and not names.resembled


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("A_V2_0000.nii.gz", "other capital letters"),
        ("a_v2_0000.NII.GZ", "other capital letters"),
        ("a_v2_0000.nii", ".nii"),
        ("a_v2_0000.mha", ".mha"),
        ("a_v2.nii.gz", "a similar name"),
        ("a-v2_0000.nii.gz", "a similar name"),
        ("a v2_0000.nii.gz", "a similar name"),
        ("a_v2_0000.nii.gz.part", ".part"),
        ("a_v2_0000", "none"),
        ("ａ_v2_0000.nii.gz", "a similar name"),
        ("a_v2\u200b_0000.nii.gz", "a similar name"),
    ],
)
def test_a_scan_that_is_not_found_is_no_request(tmp_path, entry, found):
    (tmp_path / entry).touch()
    names = compare(tmp_path, ["a_v2", "a_next"], unused="warning")
    (problem,) = names.problems
    assert names.resembled == {"a_v2"} and not names.channels
    assert (problem.severity, problem.file, problem.found) == ("error", entry, found)
    assert problem.expected == "the file a_v2_0000.nii.gz, by line 2 of scans.csv"


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_unicode_forms_are_found_or_reported_and_never_requests(tmp_path, forms):
    row, file = (unicodedata.normalize(form, "Jos\u00e9") for form in forms)
    (tmp_path / f"{file}_0000.nii.gz").touch()
    names = compare(tmp_path, [row])
    assert names.channels.get(row) == {0} or names.resembled == {row}
    if names.resembled:
        assert "another Unicode form" in names.problems[0].found


@pytest.mark.parametrize("kind", ["link", "loop", "folder", "pipe"])
def test_an_entry_that_is_no_file(tmp_path, kind):
    for case in ("a_v2", "b"):  # a row names the first one alone
        entry = tmp_path / f"{case}_0000.nii.gz"
        if kind == "folder":
            entry.mkdir()
        elif kind == "pipe":
            os.mkfifo(entry)
        else:
            entry.symlink_to(entry.name if kind == "loop" else "../annex/none.nii.gz")
    names = compare(tmp_path, ["a_v2"])
    found = {
        "link": "a link to ../annex/none.nii.gz, which does not exist",
        "loop": "a link to a_v2_0000.nii.gz, which does not exist",
        "folder": "a folder",
        "pipe": "no regular file",
    }[kind]
    assert names.resembled == {"a_v2"} and [problem.severity for problem in names.problems] == ["error"] * 2
    assert names.problems[0].found == found and names.problems[1].file == "b_0000.nii.gz"


def test_a_link_to_a_file_is_that_file(tmp_path):
    (tmp_path / "elsewhere").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a_0000.nii.gz").symlink_to("../elsewhere")
    assert compare(tmp_path / "in", ["a"]).channels == {"a": {0}}


@pytest.mark.parametrize("unused", ["error", "warning"])
@pytest.mark.parametrize(
    "entry", ["b_0000.nii.gz", "b.nii.gz", "b_0000.mgz", "a_0000.nii", "A_0000.nii.gz", "a.nii.gz"]
)
def test_an_image_that_no_row_names(tmp_path, entry, unused):
    (tmp_path / "a_0000.nii.gz").touch()
    (tmp_path / entry).touch()
    names = compare(tmp_path, ["a"], unused=unused)
    (problem,) = names.problems
    assert problem.severity == unused and names.channels == {"a": {0}} and not names.resembled


@pytest.mark.parametrize("entry", ["notes.txt", "b_0000.json", "README.md", "a_next_0000.json", "volumes.csv"])
def test_other_files_are_no_images(tmp_path, entry):
    (tmp_path / entry).touch()
    (problem,) = compare(tmp_path, ["a_next"]).problems
    assert problem.severity == "warning" and "not read" in problem.advice


def test_missing_and_surplus_channels(tmp_path):
    for name in ("a_0000", "a_0001", "a_0002", "b_0001", "c_0000"):
        (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "b_0000.NII.gz").touch()
    names = compare(tmp_path, ["a", "b", "c"], TWO)
    assert names.channels == {"a": {0, 1, 2}, "b": {1}, "c": {0}} and names.resembled == {"b"}


def test_a_regular_file_of_another_row_is_not_taken_for_a_similar_one(tmp_path):
    for name in ("a_0000.nii.gz", "A_0000.nii.gz", "a_0_0000.nii.gz"):
        (tmp_path / name).touch()
    names = compare(tmp_path, ["a", "A", "a_0", "a_1"])
    assert set(names.channels) == {"a", "A", "a_0"} and not names.problems
