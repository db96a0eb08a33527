"""``series.csv``: the findings of a survey as a table for a person, and the decisions read back from it.

It stands in a folder with ``contact_sheet.html`` and ``key.csv``. These hold names and dates of patients: the folder
stays in the hospital, and nobody but its owner can open it.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longflow.data.dataset import parse_time
from longflow.dicom.headers import Frame
from longflow.dicom.moments import parse_date
from longflow.dicom.phases import Guess
from longflow.dicom.stacks import step_of
from longflow.dicom.survey import ASK, NO, YES, Finding, Patient, Survey
from longflow.errors import DataError, first_few
from longflow.files import FORMULA, write_csv, write_json
from longflow.paths import is_name
from longflow.reading import read_json, read_table, read_text

logger = logging.getLogger(__name__)

#: columns that a person may edit, then those that describe a row
EDITABLE = ("use", "subject", "time", "phase", "times", "period")
COLUMNS = (
    *("use", "reason", "subject", "time", "phase", "patient", "name", "date", "description", "modality", "series"),
    *("slices", "spacing", "times", "unit", "period", "phase_reason", "structures", "files", "id"),
)
KEY_COLUMNS = ("subject", "patient", "issuer", "name", "first_date")


@dataclass(frozen=True)
class ReviewPaths:
    """The folder with the tables of an import.

    :param folder: of them.
    """

    folder: Path

    @property
    def table(self) -> Path:
        return self.folder / "series.csv"

    @property
    def contact_sheet(self) -> Path:
        return self.folder / "contact_sheet.html"

    @property
    def key(self) -> Path:
        """Return the table that says which patient a subject is, and which date its day 0."""
        return self.folder / "key.csv"

    @property
    def proposed(self) -> Path:
        """Return the digest of the table as it was proposed: an edited table is never replaced without a flag."""
        return self.folder / ".proposed.json"


def write_review(survey: Survey, paths: ReviewPaths, overwrite: bool = False) -> None:
    """Write the table and the key.

    :param survey: with the proposed use of every finding.
    :param paths: where to.
    :param overwrite: replace a table that a person has edited.
    :raises DataError: there is an edited table, or the folder cannot be written.
    """
    if paths.table.is_file() and not overwrite and _is_edited(paths):
        raise DataError(
            f"{paths.table} was edited since it was proposed. Import with it: run the same command with --accept. Or "
            "propose a new table, without these edits: --overwrite."
        )
    try:
        paths.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(paths.folder, 0o700)
    except OSError as error:
        raise DataError(
            f"{paths.folder} could not be made: {error.strerror or error}. Choose another folder for the tables with "
            "--review."
        ) from error
    write_csv(COLUMNS, [row_of(finding) for finding in survey.findings], paths.table)
    write_csv(KEY_COLUMNS, _key_rows(survey), paths.key)
    write_json({"sha256": _digest(paths.table)}, paths.proposed)


def _is_edited(paths: ReviewPaths) -> bool:
    try:
        return read_json(paths.proposed, dict).get("sha256") != _digest(paths.table)
    except DataError:
        return True


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _key_rows(survey: Survey) -> list[dict[str, Any]]:
    rows: dict[Patient, dict[str, Any]] = {}
    for finding in survey.findings:
        patient = finding.patient
        if patient not in rows and finding.subject:
            row = {"subject": finding.subject, "patient": patient[0], "issuer": patient[1] if patient[0] else ""}
            rows[patient] = {**row, "name": survey.names.get(patient), "first_date": survey.first_dates.get(patient)}
    return list(rows.values())


def known_subjects(paths: ReviewPaths) -> dict[Patient, str]:
    """Read the subjects of an earlier survey, so that a patient keeps the name."""
    if not paths.key.is_file():
        return {}
    lines = [line.cells for line in read_table(paths.key, *KEY_COLUMNS)]
    return {(_shown(row["patient"]), _shown(row["issuer"])): row["subject"] for row in lines if row["patient"]}


def row_of(finding: Finding) -> dict[str, Any]:
    """Return the cells of a finding."""
    one, stack = finding.instance, finding.stack
    date = parse_date(one.study_date)
    row = {
        "use": finding.use,
        "reason": finding.reason,
        "subject": finding.subject,
        "time": _number(finding.time) if finding.unit == "days" else "",
        "phase": finding.phase.phase,
        "patient": one.patient_id,
        "name": one.patient_name,
        "date": date or one.study_date,
        "description": one.description,
        "modality": one.modality,
        "series": one.series_number,
        "structures": "; ".join(finding.structures),
        "files": finding.files,
        "id": finding.id,
    }
    if stack:
        row |= {
            "slices": len(stack.points[0]),
            "spacing": spacing_of(stack.points[0]),
            "times": " ".join(map(_number, finding.times)),
            "unit": stack.unit,
            "period": _number(stack.period),
            "phase_reason": finding.phase.reason if stack.unit == "days" else "",
        }
    return row


def spacing_of(frames: Sequence[Frame]) -> str:
    """Return the distance of columns, rows and slices, mm, human-readable."""
    first = frames[0]
    between = abs(float(step_of(frames) @ first.normal))
    return f"{first.spacing[1]:.3g} x {first.spacing[0]:.3g} x {between:.3g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def read_decisions(survey: Survey, paths: ReviewPaths) -> Survey:
    """Apply the table, as a person left it, to a survey of the same export.

    :param survey: of the export as it is now.
    :param paths: of the table.
    :returns: the survey with the decisions of the table.
    :raises DataError: there is no table, the export has changed since, a cell is invalid, or a ``use`` is still "ask".
    """
    if not paths.table.is_file():
        raise DataError(f"{paths.table} does not exist. Run the same command without --accept first.")
    separator = ";" if read_text(paths.table).partition("\n")[0].count(";") > 5 else ","
    lines = read_table(paths.table, "id", *EDITABLE, separator=separator)
    rows = {line.cells["id"]: (line.number, line.cells) for line in lines}
    found = {finding.id: finding for finding in survey.findings}
    if rows.keys() != found.keys() or len(lines) != len(rows):
        changed = [found[one].instance.description or one for one in found.keys() - rows.keys()]
        changed += [rows[one][1].get("description") or one for one in rows.keys() - found.keys()]
        what = f" ({first_few(sorted(changed), most=3)})" if changed else ""
        raise DataError(
            f"{paths.table} and the export differ in {len(changed)} rows{what}: files were added or removed, or rows "
            "were deleted (write use = no instead). Propose a new table: the same command without --accept, with "
            "--overwrite."
        )
    decided, errors = [], []
    for finding in survey.findings:
        number, cells = rows[finding.id]
        try:
            decided.append(_decided(finding, cells))
        except ValueError as error:
            errors.append(f"line {number}: {error}")
    if errors:
        raise DataError(f"{paths.table}, {first_few(errors, most=3)}.")
    if asked := [rows[one.id][0] for one in decided if one.use == ASK]:
        raise DataError(
            f"{paths.table}: {len(asked)} rows have use = ask (line {first_few(asked)}). Open the table and "
            f"{paths.contact_sheet.name}, write yes or no in each, save it, and run the same command again."
        )
    return replace(survey, findings=decided)


def _decided(finding: Finding, cells: Mapping[str, str]) -> Finding:
    """Return a finding with the cells of its row.

    :raises ValueError: a cell is invalid.
    """
    use = cells["use"].casefold()
    if use not in (YES, NO, ASK):
        raise ValueError(f"use is '{cells['use']}', expected yes or no")
    finding = replace(finding, use=use, reason=_shown(cells.get("reason", "")))
    if use != YES:
        return finding
    subject, phase = _shown(cells["subject"]), _shown(cells["phase"])
    if finding.stack is None and finding.label is None:
        raise ValueError(f"use is yes, but it cannot be used: {finding.reason}")
    if finding.label is not None:
        if finding.labels_of is None:
            raise ValueError(f"use is yes, but it cannot be used: {finding.reason}")
        return finding
    if finding.stack.problem:
        raise ValueError(f"use is yes, but it cannot be read: {finding.stack.problem}")
    if not is_name(subject):
        raise ValueError(f"subject is '{subject}', expected a name of letters and digits")
    if phase and not is_name(phase):
        raise ValueError(f"phase is '{phase}', expected one word")
    finding = replace(finding, subject=subject, phase=Guess(phase, finding.phase.reason))
    if finding.unit == "days":
        time = parse_time(cells["time"])
        if time is None:
            raise ValueError(f"time is '{cells['time']}', expected days as a number")
        return replace(finding, time=time)
    return _with_times(finding, cells)


def _with_times(finding: Finding, cells: Mapping[str, str]) -> Finding:
    times = [parse_time(text) for text in cells["times"].split()]
    if None in times or len(times) != len(finding.stack.points) or len(set(times)) < len(times):
        points = len(finding.stack.points)
        raise ValueError(f"times has {len(times)} entries, expected {points} different numbers with spaces between")
    period = parse_time(cells["period"]) if cells["period"] else None
    if cells["period"] and (period is None or period <= 0):
        raise ValueError(f"period is '{cells['period']}', expected a number above 0 or nothing")
    return replace(finding, times=tuple(times), stack=replace(finding.stack, period=period))


def _shown(cell: str) -> str:
    """Remove the apostrophe that makes a formula text."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA else cell
