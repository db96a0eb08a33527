"""The energy score of several images, and how their spread compares with their error."""

import math
from collections.abc import Sequence

import numpy as np

from longflow.evaluation.summary import subject_means

#: voxels that are worked on at a time, in float64
_VOXELS = 1_000_000


def energy_score(samples: np.ndarray, observed: np.ndarray) -> float:
    """Compute the energy score of a sample of images (Gneiting & Raftery 2007, eq. 22), per voxel.

    ES = E|X - y| - E|X - X'| / 2, with the Euclidean norm over voxels divided by the root of their number. So it has
    the unit of an RMSE, and is the RMSE where all samples are alike. In one dimension it is the CRPS. Pairs of
    different samples stand for X, X' (Ferro 2014), so that its expectation does not depend on the number of samples.

    :param samples: (samples, voxels), at least two samples.
    :param observed: y, (voxels,).
    """
    number, voxels = samples.shape
    products = np.zeros((number, number))
    for first in range(0, voxels, _VOXELS):
        part = slice(first, first + _VOXELS)
        errors = samples[:, part].astype(np.float64) - observed[part]
        products += errors @ errors.T
    squares = np.diag(products)
    apart = np.sqrt(np.maximum(0, squares[:, None] + squares - 2 * products))
    np.fill_diagonal(apart, 0)  # but for rounding
    score = np.sqrt(squares).mean() - apart.sum() / (2 * number * (number - 1))
    return float(score / math.sqrt(voxels))


def gaussian_energy_score(rmse: float, deviation: float) -> float:
    """Compute the energy score, per voxel, of a forecast with independent normal errors of one size at each voxel.

    With many voxels a distance is its root mean square, |X - y| sqrt(RMSE^2 + s^2) and |X - X'| sqrt(2) s, but for
    a share of about 1 / voxels.

    :param rmse: of the forecast.
    :param deviation: s, standard deviation of the errors.
    """
    return math.sqrt(rmse**2 + deviation**2) - deviation / math.sqrt(2)


def spread_of(samples: np.ndarray) -> float:
    """Compute the error that the mean of samples has if the truth is one more of them, root mean square over voxels.

    It is sqrt(mean variance x (n + 1) / n) (Fortin 2014): the mean of n samples has an error of its own.

    :param samples: (samples, voxels), at least two samples.
    """
    number = len(samples)
    variance = samples.var(axis=0, ddof=1, dtype=np.float64).mean()
    return math.sqrt(variance * (number + 1) / number)


def spread_skill(subjects: Sequence[str], spreads: Sequence[float], errors: Sequence[float]) -> float | None:
    """Compute the ratio of spread to error, both as roots of mean squares over subjects; 1 where they fit.

    :param subjects: of each forecast.
    :param spreads: of :func:`spread_of`.
    :param errors: RMSE of the mean of the samples, in the same unit.
    :returns: below 1 where the samples are too much alike; None without error.
    """
    spread, error = (
        float(np.mean(list(subject_means(subjects, [value**2 for value in values]).values())))
        for values in (spreads, errors)
    )
    return math.sqrt(spread / error) if error else None
