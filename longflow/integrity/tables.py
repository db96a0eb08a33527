"""The integrity of the table of scans: its lines, and whether its times fit the stated unit."""

import csv
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from longflow.data.dataset import Row, is_name, parse_time, told_apart_by
from longflow.errors import first_few
from longflow.integrity.problems import Problem, error, warning

DATE = re.compile(r"^\d{1,4}([-./])\d{1,2}\1\d{1,4}([T ].*)?$")
COUNT_DAYS = (
    "Write numbers that count from any fixed day, as days since the subject's first scan. In a spreadsheet: subtract "
    "the first date from the date, and format the result as a number."
)

#: plausible range of the longest time between two scans of a subject: (at least, at most), in the unit
PLAUSIBLE_SPAN = {
    "days": (0.5, 47500),
    "weeks": (0.1, 6800),
    "months": (0.02, 1560),
    "years": (0.001, 130),
    "s": (1e-3, 86400),
    "ms": (1, 86400e3),
    "cycles": (1e-3, 1000),
}


def table_problems(
    path: Path, table: str, rows: list[Row], apart_by: Sequence[str] = ()
) -> tuple[list[Problem], list[Row]]:
    """Find the problems of the lines of a table.

    :param path: the file.
    :param table: its path in messages.
    :param rows: its lines, as read.
    :param apart_by: columns by which two scans of one subject and time are told apart. A line without such a cell is
        reported by the check of that column.
    :returns: the problems, and the lines whose files can be looked for (their time may be invalid).
    """
    problems = _cells(path, table) if path.suffix == ".csv" else []
    usable = []
    case_lines: dict[str, int] = {}
    moments: dict[tuple[str, float, tuple[str, ...]], int] = {}
    for row in rows:
        found = _line(row, table)
        time = parse_time(row.time)
        if row.case and row.case in case_lines:
            shown = f"{row.case}, as in line {case_lines[row.case]}"
            advice = "Delete one of the lines, or correct its case."
            found.append(error(table, f"line {row.line}: case", shown, "a case once", advice))
        cells = told_apart_by(row, apart_by)
        moment = row.subject, time, cells
        if row.subject and time is not None and all(cells) and moment in moments:
            further = "".join(f" in {column} {cell}" for column, cell in zip(apart_by, cells, strict=True))
            shown = f"{row.time} of subject {row.subject}{further}, as in line {moments[moment]}"
            expected = f"one scan for each {', '.join(('subject', 'time', *apart_by))}"
            advice = "Give the scans different times, or keep one of them."
            found.append(error(table, f"line {row.line}: time", shown, expected, advice))
        case_lines.setdefault(row.case, row.line)
        if time is not None:
            moments.setdefault(moment, row.line)
        problems += found
        if row.subject and is_name(row.case) and case_lines[row.case] == row.line:
            usable.append(row)
    return problems, usable


def _cells(path: Path, table: str) -> list[Problem]:
    """Find lines with more cells than the header: mostly a decimal comma, which would silently cut a number."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    expected = len(lines[0]) if lines else 0
    return [
        error(
            table,
            f"line {number}: cells",
            f"{len(line)} ({','.join(line)[:50]})",
            f"{expected}, as in the first line",
            "Write decimals with a point. Put text that contains a comma in quotes.",
        )
        for number, line in enumerate(lines[1:], start=2)
        if len(line) > expected
    ]


def _line(row: Row, table: str) -> list[Problem]:
    problems = []
    for name, value in (("case", row.case), ("subject", row.subject)):
        if not is_name(value):
            problems.append(
                error(
                    table,
                    f"line {row.line}: {name}",
                    f"'{value}'" if value else "empty",
                    "a name without slashes, not beginning with a point",
                    "A case is the name of the file without _0000 and its ending. A subject is any name for the "
                    "patient.",
                )
            )
    if parse_time(row.time) is None:
        is_date = DATE.match(row.time)
        decimal_comma = re.match(r"^-?\d+,\d+$", row.time)
        problems.append(
            error(
                table,
                f"line {row.line}: time",
                f"'{row.time}'{', a date' if is_date else ''}" if row.time else "empty",
                "a number in the dataset's time_unit",
                "Write decimals with a point." if decimal_comma else COUNT_DAYS,
            )
        )
    return problems


def time_unit_problems(times: list[tuple[str, float]], unit: str, table: str) -> list[Problem]:
    """Find times that do not fit the stated unit: dates, years, and spans longer than a life.

    :param times: (subject, time) of each scan.
    :param unit: time_unit of the dataset.
    :param table: path of the table in messages.
    :returns: at most one problem.
    """
    if not times:
        return []
    values = [time for _, time in times]
    shown = first_few((f"{value:.10g}" for value in values), most=3)
    of_visits = unit in ("days", "weeks", "months", "years", "visits")
    if all(_is_calendar_date(value) for value in values):
        kind = error if of_visits else warning
        return [kind(table, "time", f"{shown}: dates as yyyymmdd", f"numbers in {unit}", COUNT_DAYS)]
    if of_visits and unit != "years" and all(value.is_integer() and 1900 <= value <= 2100 for value in values):
        advice = "If these are years, set time_unit to years in dataset.json. If not, ignore this warning."
        return [warning(table, "time", f"{shown}: years?", f"numbers in {unit}", advice)]
    if unit == "frames" and not all(value.is_integer() for value in values):
        advice = "If these are times of acquisition, set time_unit to s or ms in dataset.json."
        return [warning(table, "time", shown, "whole numbers for time_unit frames", advice)]
    return _span_problems(times, unit, table)


def _is_calendar_date(value: float) -> bool:
    if not value.is_integer() or not 19000101 <= value <= 21001231:
        return False
    try:
        datetime.strptime(f"{value:.0f}", "%Y%m%d")
    except ValueError:
        return False
    return True


def _span_problems(times: list[tuple[str, float]], unit: str, table: str) -> list[Problem]:
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for subject, time in times:
        first[subject] = min(time, first.get(subject, time))
        last[subject] = max(time, last.get(subject, time))
    subject = max(first, key=lambda name: last[name] - first[name])
    span = last[subject] - first[subject]
    least, most = PLAUSIBLE_SPAN.get(unit, (0, float("inf")))
    if span == 0 or least <= span <= most:
        return []
    return [
        warning(
            table,
            "time",
            f"longest time between scans of a subject: {span:g} {unit} (subject {subject})",
            f"{least:g} to {most:g} {unit}",
            "Check that time_unit in dataset.json is the unit of these times.",
        )
    ]
