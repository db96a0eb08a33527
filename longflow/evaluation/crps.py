"""The continuous ranked probability score (CRPS): one error for a forecast with its uncertainty."""

from collections.abc import Sequence

import numpy as np


def crps(sample: Sequence[float] | np.ndarray, observed: float) -> float:
    """Compute the CRPS of a forecast that is a sample, as an empirical distribution (Gneiting & Raftery 2007, eq. 21).

    CRPS = E|X - y| - E|X - X'| / 2, with X, X' drawn from the sample. It has the unit of the number; lower is better.
    For one number it is the absolute error. So it can be compared with that of a forecast without uncertainty.

    :param sample: numbers with equal weights, at least one.
    :param observed: y.

    >>> crps([3.0], 5.0), crps([0.0, 2.0], 1.0)
    (2.0, 0.5)
    """
    values = np.sort(np.asarray(sample, dtype=np.float64))
    ranks = np.arange(1, len(values) + 1)
    half_spread = ((2 * ranks - len(values) - 1) @ values) / len(values) ** 2  # E|X - X'| / 2
    return float(np.abs(values - observed).mean() - half_spread)
