import csv
import stat
from dataclasses import replace

import pytest

from longflow.dicom.choice import choose
from longflow.dicom.table import COLUMNS, ReviewPaths, known_subjects, read_decisions, row_of, write_review
from longflow.errors import DataError
from tests.dicom.helpers import MR, write_series
from tests.dicom.test_survey import survey


@pytest.fixture
def paths(tmp_path):
    return ReviewPaths(tmp_path / "review")


@pytest.fixture
def found(tmp_path):
    for study, day in (("s1", "20200110"), ("s2", "20200820")):
        write_series(tmp_path / "export", study=study, StudyDate=day, AcquisitionDate=day)
    result = survey(tmp_path / "export")
    return replace(result, findings=choose(result.findings, False))


def change(paths, line, **cells):
    """Edit a row of the table as a person does."""
    with open(paths.table, newline="") as file:
        rows = list(csv.DictReader(file))
    rows[line] |= cells
    with open(paths.table, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def test_a_table_for_a_person(found, paths):
    row = row_of(found.findings[1])
    assert {**row, "id": ""} == {
        **{"use": "yes", "reason": "", "subject": "P001", "time": "223", "phase": "venous", "patient": "p1"},
        **{"name": "Miller^Anna", "date": row["date"], "description": "Abdomen portal venous 3.0", "modality": "CT"},
        **{"series": "1", "slices": 6, "spacing": "0.5 x 0.8 x 3", "times": "", "unit": "days", "period": ""},
        **{"phase_reason": "'portal' in the description", "structures": "", "files": 6, "id": ""},
    }
    assert str(row["date"]) == "2020-08-20"
    write_review(found, paths)
    assert stat.S_IMODE(paths.folder.stat().st_mode) == 0o700
    assert [one.use for one in read_decisions(found, paths).findings] == ["yes", "yes"]
    assert known_subjects(paths) == {("p1", ""): "P001"}
    assert "2020-01-10" in paths.key.read_text()


def test_edits_are_decisions(found, paths):
    write_review(found, paths)
    change(paths, 0, use="No")
    change(paths, 1, subject="Anna", time="12.5", phase="late")
    first, second = read_decisions(found, paths).findings
    assert first.use == "no" and (second.subject, second.time, second.phase.phase) == ("Anna", 12.5, "late")


def test_a_table_that_a_spreadsheet_saved_with_semicolons(found, paths):
    write_review(found, paths)
    paths.table.write_text(paths.table.read_text().replace(",", ";"))
    assert len(read_decisions(found, paths).findings) == 2


def test_an_edited_table_is_not_replaced(found, paths):
    write_review(found, paths)
    write_review(found, paths)
    change(paths, 0, use="no")
    with pytest.raises(DataError, match="was edited since it was proposed"):
        write_review(found, paths)
    write_review(found, paths, overwrite=True)
    assert read_decisions(found, paths).findings[0].use == "yes"


def test_questions_must_be_answered(found, paths):
    write_review(replace(found, findings=[one.decided("ask", "which?") for one in found.findings]), paths)
    with pytest.raises(DataError, match=r"2 rows have use = ask \(line 2, 3\)"):
        read_decisions(found, paths)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"use": "maybe"}, "line 2: use is 'maybe'"),
        ({"subject": "a/b"}, "line 2: subject is 'a/b'"),
        ({"time": "2020-01-10"}, "line 2: time is '2020-01-10', expected days"),
        ({"phase": "a/b"}, "line 2: phase is 'a/b'"),
    ],
)
def test_invalid_cells(found, paths, cells, message):
    write_review(found, paths)
    change(paths, 0, **cells)
    with pytest.raises(DataError, match=message):
        read_decisions(found, paths)


def test_a_stack_that_cannot_be_read_cannot_be_used(tmp_path, paths):
    write_series(tmp_path / "export", skip=(3,))
    found = survey(tmp_path / "export")
    write_review(found, paths)
    change(paths, 0, use="yes")
    with pytest.raises(DataError, match="cannot be read: missing slices"):
        read_decisions(found, paths)


def test_an_export_that_has_changed(found, paths, tmp_path):
    with pytest.raises(DataError, match="without --accept first"):
        read_decisions(found, paths)
    write_review(found, paths)
    write_series(tmp_path / "export", study="s3")
    with pytest.raises(DataError, match=r"differ in 1 rows \(Abdomen portal venous 3.0\)"):
        read_decisions(survey(tmp_path / "export"), paths)


def test_formulas_in_headers_do_not_run(tmp_path, paths):
    write_series(tmp_path / "export", SeriesDescription="=1+1", patient="+49")
    found = survey(tmp_path / "export")
    write_review(replace(found, findings=choose(found.findings, False)), paths)
    assert "'=1+1" in paths.table.read_text()
    assert known_subjects(paths) == {("+49", ""): "P001"}


def test_times_of_a_cine(tmp_path, paths):
    for time in range(5):
        values = {"TriggerTime": 40 * time, "NominalInterval": 900, "SOPClassUID": MR, "Modality": "MR"}
        write_series(tmp_path / "export", first_number=100 * time, **values)
    found = survey(tmp_path / "export")
    write_review(replace(found, findings=choose(found.findings, False)), paths)
    change(paths, 0, times="0 41 82 123 164", period="850.5")
    (one,) = read_decisions(found, paths).findings
    assert one.times == (0, 41, 82, 123, 164) and one.stack.period == 850.5
    change(paths, 0, times="0 1 2")
    with pytest.raises(DataError, match="times has 3 entries, expected 5"):
        read_decisions(found, paths)
    change(paths, 0, times="0 1 2 3 4", period="-1")
    with pytest.raises(DataError, match="period is '-1'"):
        read_decisions(found, paths)


def test_a_folder_that_cannot_be_made(found, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="with --review"):
        write_review(found, ReviewPaths(tmp_path / "file" / "x"))
