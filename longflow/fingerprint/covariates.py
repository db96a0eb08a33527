"""The fingerprint of covariates: how often each is known, and the range of its values. It names no subject."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from longflow.data.covariates import covariates_of
from longflow.data.dataset import Series


class CovariateFingerprint(BaseModel):
    """A column of scans.csv over the training scans; numbers are None where no scan has a value."""

    model_config = ConfigDict(extra="forbid")

    name: str
    scans: int = Field(ge=1)
    known: int = Field(ge=0, description="scans that have a value")
    mean: float | None = None
    standard_deviation: float | None = None
    minimum: float | None = None
    maximum: float | None = None


def covariate_fingerprints(series: Sequence[Series], columns: Sequence[str]) -> list[CovariateFingerprint]:
    """Measure the covariates of a dataset.

    :param series: the scans that have images.
    :param columns: names of the covariates.
    :returns: one entry for each.
    :raises DataError: a cell is not a number.
    """
    rows = [covariates_of(scan, columns) for one in series for scan in one.scans]
    return [_measured(name, [row[name] for row in rows]) for name in columns]


def _measured(name: str, cells: list[float | None]) -> CovariateFingerprint:
    values = [value for value in cells if value is not None]
    found = CovariateFingerprint(name=name, scans=len(cells), known=len(values))
    if not values:
        return found
    numbers = {
        "mean": float(np.mean(values)),
        "standard_deviation": float(np.std(values)),
        "minimum": min(values),
        "maximum": max(values),
    }
    return found.model_copy(update=numbers)
