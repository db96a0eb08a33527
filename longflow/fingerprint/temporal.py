"""The fingerprint of times: scans per subject, intervals and spans."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from longflow.data.dataset import Series
from longflow.plans import TimeUnit

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
#: shares of weights closer than this are the same
SAME_SHARE = 1e-9


class Distribution(BaseModel):
    """Percentiles of some numbers; all None where there are no numbers."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=0)
    minimum: float | None = None
    percentile_5: float | None = None
    percentile_25: float | None = None
    median: float | None = None
    percentile_75: float | None = None
    percentile_95: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, values: np.ndarray | list[float]) -> "Distribution":
        """Compute the distribution of some numbers."""
        if len(values) == 0:
            return cls(count=0)
        return cls._of_percentiles(len(values), np.percentile(np.asarray(values, dtype=np.float64), PERCENTILES))

    @classmethod
    def of_intervals(cls, times: Sequence[Sequence[float]]) -> "Distribution":
        """Compute the distribution of the intervals of subjects. :param times: of each subject, ascending."""
        times = [one for one in times if len(one) > 1]
        if not times:
            return cls(count=0)
        return cls._of_percentiles(sum(len(one) - 1 for one in times), interval_percentiles(times, PERCENTILES))

    @classmethod
    def _of_percentiles(cls, count: int, numbers: np.ndarray) -> "Distribution":
        names = list(cls.model_fields)[1:]
        return cls(count=count, **{name: float(number) for name, number in zip(names, numbers, strict=True)})


class TemporalFingerprint(BaseModel):
    """Scans and times of every subject, in time units of the dataset."""

    model_config = ConfigDict(extra="forbid")

    time_unit: TimeUnit
    times: list[list[float]] = Field(
        description="times since the first scan, one list per subject; two phases of one time count once"
    )
    scans_per_subject: Distribution
    intervals: Distribution = Field(description="between neighbouring scans; every subject weighs the same")
    spans: Distribution = Field(description="from the first scan to the last, of subjects with two scans or more")


def temporal_fingerprint(series: list[Series], time_unit: TimeUnit) -> TemporalFingerprint:
    """Measure scans per subject, intervals and spans of a dataset.

    Times are kept relative to the first scan of a subject: fingerprints are shared, so they hold no dates.

    :param series: the scans that have images.
    :param time_unit: of the dataset.
    :returns: the measured numbers.
    """
    times = [relative_times(sorted(set(one.times))) for one in series]
    return TemporalFingerprint(
        time_unit=time_unit,
        times=times,
        scans_per_subject=Distribution.of([len(one) for one in times]),
        intervals=Distribution.of_intervals(times),
        spans=Distribution.of([one[-1] for one in times if len(one) > 1]),
    )


def interval_percentiles(times: Sequence[Sequence[float]], percentiles: Sequence[float]) -> np.ndarray:
    """Compute percentiles of the intervals between neighbouring scans, where every subject weighs the same.

    So a subject with 40 visits does not decide for all others.

    :param times: of each subject, ascending, at least two.
    :param percentiles: 0 to 100.
    :returns: (percentiles,), in the unit of the times.

    >>> interval_percentiles([[0, 10, 20, 30, 40], [0, 365], [0, 365]], [50]).tolist()
    [365.0]
    """
    intervals = [np.diff(one) for one in times]
    longest = max(map(len, intervals))
    weights = np.concatenate([np.full(len(one), longest / len(one)) for one in intervals])
    return weighted_percentiles(np.concatenate(intervals), weights, percentiles)


def weighted_percentiles(values: np.ndarray, weights: np.ndarray, percentiles: Sequence[float]) -> np.ndarray:
    """Choose among the values those below which the given shares of the weights lie; equal weights give NumPy's.

    Where a share is reached exactly between two values, NumPy's percentile decides between them.

    :param values: (values,).
    :param weights: (values,), positive.
    :param percentiles: 0 to 100.
    :returns: (percentiles,).
    """
    plain = np.percentile(values, percentiles)
    if (weights == weights[0]).all():
        return plain
    order = np.argsort(values)
    values, reached = values[order], np.cumsum(weights[order]) / weights.sum()
    lower, upper = (
        values[np.searchsorted(reached, np.asarray(percentiles) / 100 + step, side).clip(0, len(values) - 1)]
        for step, side in ((-SAME_SHARE, "left"), (SAME_SHARE, "right"))
    )
    return plain.clip(lower, upper)


def relative_times(times: list[float]) -> list[float]:
    """Return times since the first one, without the rounding error of the subtraction (0.3 - 0.1 is 0.2)."""
    return [float(f"{time - times[0]:.12g}") for time in times]
