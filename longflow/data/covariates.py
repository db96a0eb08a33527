"""The covariates of scans: columns of scans.csv that methods are conditioned on, as age or treatment."""

from collections.abc import Sequence

from longflow.data.dataset import DatasetDescription, Scan
from longflow.errors import DataError
from longflow.reading import parse_number
from longflow.task import get_task

#: the values of a scan by the name of the column; None where a value is not known
Covariates = dict[str, float | None]

#: how to write values that are words
CODES = "Write words as numbers, as 0 for untreated and 1 for treated, and leave the cell empty where it is not known."


def covariates_of(scan: Scan, columns: Sequence[str]) -> Covariates:
    """Return the covariates of a scan.

    :param scan: with the further columns of its table.
    :param columns: names of the covariates.
    :returns: a value for each of them; None where the cell is empty or the table has no such column.
    :raises DataError: a cell is not a number; the case is named.
    """
    return {column: _number(scan, column) for column in columns}


def covariates_used(description: DatasetDescription) -> list[str]:
    """Return the columns that are conditions of methods; empty where the task has no such methods.

    :param description: dataset.json.
    """
    return list(description.covariates) if get_task(description.task).uses_conditions else []


def _number(scan: Scan, column: str) -> float | None:
    cell = scan.covariates.get(column, "")
    if not cell:
        return None
    value = parse_number(cell)
    if value is None:
        raise DataError(
            f"The covariate of case {scan.case} (column '{column}' of scans.csv) is '{cell[:80]}', expected a number. "
            f"{CODES}"
        )
    return value
