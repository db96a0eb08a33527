"""The fingerprint of times: scans per subject, intervals and spans."""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from longflow.data.dataset import Series
from longflow.plans import TimeUnit

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


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
        names = list(cls.model_fields)[1:]
        numbers = np.percentile(np.asarray(values, dtype=np.float64), PERCENTILES)
        return cls(count=len(values), **{name: float(number) for name, number in zip(names, numbers, strict=True)})


class TemporalFingerprint(BaseModel):
    """Scans and times of every subject, in time units of the dataset."""

    model_config = ConfigDict(extra="forbid")

    time_unit: TimeUnit
    times: list[list[float]] = Field(
        description="times since the first scan, one list per subject; two phases of one time count once"
    )
    scans_per_subject: Distribution
    intervals: Distribution = Field(description="between neighbouring scans, over all subjects")
    spans: Distribution = Field(description="from the first scan to the last, of subjects with two scans or more")


def temporal_fingerprint(series: list[Series], time_unit: TimeUnit) -> TemporalFingerprint:
    """Measure scans per subject, intervals and spans of a dataset.

    Times are kept relative to the first scan of a subject: fingerprints are shared, so they hold no dates.

    :param series: the scans that have images.
    :param time_unit: of the dataset.
    :returns: the measured numbers.
    """
    times = [relative_times(sorted(set(one.times))) for one in series]
    intervals = [np.diff(one) for one in times]
    return TemporalFingerprint(
        time_unit=time_unit,
        times=times,
        scans_per_subject=Distribution.of([len(one) for one in times]),
        intervals=Distribution.of(np.concatenate(intervals) if intervals else []),
        spans=Distribution.of([one[-1] for one in times if len(one) > 1]),
    )


def relative_times(times: list[float]) -> list[float]:
    """Return times since the first one, without the rounding error of the subtraction (0.3 - 0.1 is 0.2)."""
    return [float(f"{time - times[0]:.12g}") for time in times]
