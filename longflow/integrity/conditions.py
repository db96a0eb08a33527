"""The integrity of conditions: the period after which scans repeat, and the covariates of dataset.json."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from longflow.data.covariates import CODES
from longflow.data.dataset import DatasetDescription, Row, parse_time
from longflow.errors import first_few
from longflow.integrity.problems import DATASET_JSON, Problem, error, warning
from longflow.task import get_task

#: a series covers its period where the time from its first scan to one interval after its last scan reaches this share
COVERED = 0.95


def condition_problems(
    description: DatasetDescription, table: str, rows: Sequence[Row], is_training: bool
) -> list[Problem]:
    """Find the problems of period and covariates.

    :param description: dataset.json.
    :param table: path of the table in messages.
    :param rows: its usable lines.
    :param is_training: False for scans to predict from, where a column may be missing.
    :returns: the problems.
    """
    if not get_task(description.task).uses_conditions:
        advice = f"Methods of the task '{description.task}' use no covariates. They are ignored."
        found = first_few(description.covariates, most=3)
        return [warning(DATASET_JSON, "covariates", found, "none", advice)] if description.covariates else []
    if not rows:
        return []
    problems = [] if description.period is None else _period_problems(description.period, table, rows, is_training)
    for column in description.covariates:
        problems += _covariate_problems(column, table, rows, is_training)
    return problems


def _period_problems(period: float | str, table: str, rows: Sequence[Row], is_training: bool) -> list[Problem]:
    if not isinstance(period, str):
        return _length_problems({row.subject: [period] for row in rows}, table, rows)
    expected = "numbers above 0, in the dataset's time unit"
    if period not in rows[0].covariates:
        kind = error if is_training else warning
        advice = (
            f'Add the column, or correct "period" in {DATASET_JSON}: a number without quotes, or the name of a column.'
            if is_training
            else "The forecasts are made without a period. Add the column if it is known."
        )
        return [kind(table, f"column {period}", "missing", f"the period of each subject: {expected}", advice)]
    cells = [(row, cell) for row in rows if (cell := row.covariates[period])]
    wrong = [f"'{cell[:40]}' (line {row.line})" for row, cell in cells if not (parse_time(cell) or 0) > 0]
    if wrong:
        advice = "Correct them. Leave the cell empty where the period is not known."
        return [error(table, f"column {period}", first_few(wrong, most=3), expected, advice)]
    if not cells:
        advice = f'No scan has a period: the key "period" of {DATASET_JSON} has no effect.'
        return [warning(table, f"column {period}", "empty", expected, advice)]
    periods: dict[str, list[float]] = defaultdict(list)
    for row, cell in cells:
        periods[row.subject].append(float(cell))
    return _length_problems(periods, table, rows)


def _length_problems(periods: dict[str, list[float]], table: str, rows: Sequence[Row]) -> list[Problem]:
    """Find the subjects whose scans cover less than a period.

    :param periods: of the lines of each subject.
    """
    times: dict[str, set[float]] = defaultdict(set)
    for row in rows:
        if (time := parse_time(row.time)) is not None:
            times[row.subject].add(time)
    short = []
    for subject, values in sorted(periods.items()):
        moments, period = sorted(times[subject]), float(np.median(values))
        # the scans of one whole beat end one interval before the next beat begins
        if len(moments) > 1 and moments[-1] - moments[0] + np.median(np.diff(moments)) < COVERED * period:
            short.append(f"{subject}: {moments[-1] - moments[0]:g}, period {period:g}")
    if not short:
        return []
    advice = (
        "Check that the period is in the dataset's time unit. If it is, the scans of these subjects do not repeat, and "
        "the period says only in which part of it a scan was acquired."
    )
    found = f"longer than the series of {len(short)} of {len(periods)} subjects ({first_few(short, most=3)})"
    return [warning(table, "period", found, "at most the time that a subject's scans cover", advice)]


def _covariate_problems(column: str, table: str, rows: Sequence[Row], is_training: bool) -> list[Problem]:
    field = f"covariate {column}"
    if column not in rows[0].covariates:
        kind = error if is_training else warning
        advice = (
            f'Add the column, or remove it from "covariates" in {DATASET_JSON}. Leave cells empty where a value is not '
            "known."
            if is_training
            else "It counts as not known for every scan. Add the column if the values are known."
        )
        return [kind(table, field, "missing", f"a column '{column}' of numbers", advice)]
    cells = [(row, cell) for row in rows if (cell := row.covariates[column])]
    wrong = [f"'{cell[:40]}' (line {row.line})" for row, cell in cells if parse_time(cell) is None]
    if wrong:
        return [error(table, field, f"{len(wrong)} cells: {first_few(wrong, most=3)}", "numbers", CODES)]
    different = {float(cell) for _, cell in cells}
    if len(different) > 1 or not is_training:
        return []
    advice = "It says nothing about a scan, and is excluded from the plans."
    found = f"{cells[0][1]} in every line" if cells else "no value in any line"
    return [warning(table, field, found, "different values", advice)]
