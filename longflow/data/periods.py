"""The period of a subject whose scans repeat: a heart beat, a breath, a cycle."""

from collections.abc import Sequence

import numpy as np

from longflow.data.dataset import Scan, parse_time
from longflow.errors import DataError


def period_of(scans: Sequence[Scan], period: float | str | None) -> float | None:
    """Return the period of a subject.

    :param scans: of the subject.
    :param period: of the plans: a number, the column of scans.csv that holds it, or None.
    :returns: in time units; None where none is known. Of several values in the column, the median.
    :raises DataError: a cell of the column is not a number above 0; the case is named.
    """
    if not isinstance(period, str):
        return period
    cells = [(scan.case, scan.covariates.get(period, "")) for scan in scans]
    values = [_checked(case, cell, period) for case, cell in cells if cell.strip()]
    return float(np.median(values)) if values else None


def neighbours_in_period(times: Sequence[float], target: float, period: float) -> tuple[int, int, float]:
    """Find the scans around a time, when every scan is repeated after each whole number of periods.

    :param times: (scans,).
    :param target: a time.
    :param period: in the unit of the times.
    :returns: position of the nearest scan at or before the target, of the nearest after it, and the weight of the
        second in linear interpolation, 0 to 1. Of two scans at the same phase, the later one counts.
    """
    since = np.mod(target - np.asarray(times, np.float64), period)  # from a scan's last repetition to the target
    until = period - since
    before, after = (len(times) - 1 - int(np.argmin(one[::-1])) for one in (since, until))
    return before, after, float(since[before] / (since[before] + until[after]))


def _checked(case: str, cell: str, column: str) -> float:
    value = parse_time(cell)
    if value is None or value <= 0:
        raise DataError(
            f"The period of case {case} (column '{column}' of scans.csv) is '{cell[:80]}', expected a number above 0 "
            "in the dataset's time unit. Correct it, or leave the cell empty where it is not known."
        )
    return value
