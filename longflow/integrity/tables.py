"""The integrity of the table of scans: its lines, and whether its times fit the stated unit."""

import re
from collections.abc import Sequence
from datetime import datetime

from longflow.data.dataset import (
    REQUIRED_COLUMNS,
    DatasetDescription,
    Row,
    is_name,
    parse_time,
    spelled_alike,
    told_apart_by,
)
from longflow.errors import first_few
from longflow.integrity.problems import Problem, error, warning
from longflow.paths import LONGEST_NAME

#: dates that people read, as 31.1.2024, 2024-01-31T10:00, 2019_01 or 31 Jan 2024
DATE = re.compile(r"[0-9]{1,4}([-./_ ])(?:[0-9]{1,2}|[A-Za-z]{3,9})\1[0-9]{1,4}([T ].*)?|[0-9]{4}[-/_][0-9]{1,2}")
#: ways to write a date as one number: what messages call it, its number of digits and its format
DATES_AS_NUMBERS = (
    ("yyyymmdd", 8, "%Y%m%d"),
    ("ddmmyyyy", 8, "%d%m%Y"),
    ("mmddyyyy", 8, "%m%d%Y"),
    ("yymmdd", 6, "%y%m%d"),
    ("ddmmyy", 6, "%d%m%y"),
    ("mmddyy", 6, "%m%d%y"),
    ("yyyymm", 6, "%Y%m"),
)
#: fewest different numbers of six digits that are not dates by chance
SURELY_DATES = 3
#: what a case, a subject and a phase must be
NAME_EXPECTED = (
    f"a name without slashes or control characters, not beginning with a point, {LONGEST_NAME} bytes at most"
)
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


def column_problems(table: str, rows: Sequence[Row], description: DatasetDescription) -> list[Problem]:
    """Find the problems of the columns time and subject as a whole.

    :param table: its path in messages.
    :param rows: its usable lines.
    :param description: dataset.json.
    :returns: the problems.
    """
    times = [(row.subject, row.time) for row in rows]
    return time_unit_problems(times, description.time_unit, table) + spelling_problems(rows, table)


def spelling_problems(rows: Sequence[Row], table: str) -> list[Problem]:
    """Find subjects that may be one patient in several spellings (:func:`longflow.data.dataset.normal_name`)."""
    lines: dict[str, int] = {}
    for row in rows:
        lines.setdefault(row.subject, row.line)
    advice = (
        "If they are one patient, give all scans one spelling: otherwise the patient is trained on and tested on. If "
        "not, ignore this warning."
    )
    return [
        warning(
            table,
            f"line {max(lines[name] for name in names)}: subject",
            " and ".join(f"{name!r} (line {lines[name]})" for name in names),
            "one spelling for each patient",
            advice,
        )
        for names in spelled_alike(lines)
    ]


def table_problems(table: str, rows: list[Row], apart_by: Sequence[str] = ()) -> tuple[list[Problem], list[Row]]:
    """Find the problems of the lines of a table.

    :param table: its path in messages.
    :param rows: its lines, as read.
    :param apart_by: columns by which two scans of one subject and time are told apart. A line without such a cell is
        reported by the check of that column.
    :returns: the problems, and the lines whose files can be looked for (their time may be invalid).
    """
    problems = []
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


def _line(row: Row, table: str) -> list[Problem]:
    problems = []
    if row.surplus:
        columns = len(REQUIRED_COLUMNS) + len(row.covariates)
        cells = (row.case, row.subject, row.time, *row.covariates.values(), *row.surplus)
        problems.append(
            error(
                table,
                f"line {row.line}: cells",
                f"{columns + len(row.surplus)} ({','.join(cells)[:50]})",
                f"{columns}, as in the first line",
                "Write decimals with a point. Put text that contains a comma in quotes.",
            )
        )
    for name, value in (("case", row.case), ("subject", row.subject)):
        if not is_name(value):
            problems.append(
                error(
                    table,
                    f"line {row.line}: {name}",
                    f"'{value[:80]}'" if value else "empty",
                    NAME_EXPECTED,
                    "A case is the name of the file without _0000 and its ending. A subject is any name for the "
                    "patient.",
                )
            )
    if parse_time(row.time) is None:
        is_date = DATE.fullmatch(row.time)
        decimal_comma = re.fullmatch(r"-?[0-9]+,[0-9]+", row.time)
        problems.append(
            error(
                table,
                f"line {row.line}: time",
                f"'{row.time[:80]}'{', a date' if is_date else ''}" if row.time else "empty",
                "a number in the dataset's time_unit",
                "Write decimals with a point." if decimal_comma else COUNT_DAYS,
            )
        )
    return problems


def time_unit_problems(cells: Sequence[tuple[str, str]], unit: str, table: str) -> list[Problem]:
    """Find times that do not fit the stated unit: dates, years, and spans longer than a life.

    :param cells: (subject, cell of the column time) of each scan; cells that are no numbers are reported elsewhere.
    :param unit: time_unit of the dataset.
    :param table: path of the table in messages.
    :returns: at most one problem.
    """
    numbers = [(subject, text, time) for subject, text in cells if (time := parse_time(text)) is not None]
    if not numbers:
        return []
    values = [time for *_, time in numbers]
    shown = first_few((text for _, text, _ in numbers), most=3)
    of_visits = unit in ("days", "weeks", "months", "years", "visits")
    if layout := _layout_of_dates([text for _, text, _ in numbers]):
        name, digits = layout
        sure = of_visits and (digits == 8 or len(set(values)) >= SURELY_DATES)
        if of_visits or digits == 8:  # six digits can be milliseconds
            kind = error if sure else warning
            return [kind(table, "time", f"{shown}: dates as {name}", f"numbers in {unit}", COUNT_DAYS)]
    if of_visits and unit != "years" and all(value.is_integer() and 1900 <= value <= 2100 for value in values):
        advice = "If these are years, set time_unit to years in dataset.json. If not, ignore this warning."
        return [warning(table, "time", f"{shown}: years?", f"numbers in {unit}", advice)]
    if unit == "frames" and not all(value.is_integer() for value in values):
        advice = "If these are times of acquisition, set time_unit to s or ms in dataset.json."
        return [warning(table, "time", shown, "whole numbers for time_unit frames", advice)]
    return _span_problems([(subject, time) for subject, _, time in numbers], unit, table)


def _layout_of_dates(texts: Sequence[str]) -> tuple[str, int] | None:
    """Return the way in which all of these numbers may be dates, and its digits; None where there is none."""
    digits = [re.sub(r"\.0*$", "", text) for text in texts]
    for name, length, layout in DATES_AS_NUMBERS:
        if all(len(text) == length and text.isdecimal() and _is_date(text, layout) for text in digits):
            return name, length
    return None


def _is_date(text: str, layout: str) -> bool:
    try:
        return 1900 <= datetime.strptime(text, layout).year <= 2100
    except ValueError:
        return False


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
