"""Volumes over time: slopes, changes between consecutive scans, and how prediction and reference agree on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from longflow.evaluation.summary import RESAMPLES, SEED, summary

#: what each number means, in the order of tables; written next to every result
TRAJECTORY_DEFINITIONS = {
    "slope": (
        "of the predicted volume over time, ml per time unit, by least squares over the scans of a subject; undefined "
        "with fewer than two scans, and where the structure is in none of them, in neither prediction nor reference"
    ),
    "true_slope": "the same of the reference volume, over the same scans",
    "slope_error": "slope - reference slope, ml per time unit: negative where growth is underestimated or loss "
    "exaggerated",
    "absolute_slope_error": "|slope - reference slope|, ml per time unit",
    "relative_slope_error": "|slope - reference slope| / |reference slope|; undefined where the reference volume "
    "does not change",
    "volume_error": (
        "mean over a subject's scans of |volume - reference volume|, divided by the mean of both volumes over the "
        "scans: 0 "
        "to 2; undefined where the structure is in none of them"
    ),
    "change_correlation": (
        "Pearson's r between predicted and reference changes of volume (ml) between "
        "consecutive scans, of all subjects; "
        "interval from subjects drawn with replacement, each with all its pairs; undefined for fewer than three pairs, "
        "or where either does not vary"
    ),
    "bland_altman": (
        "of predicted minus reference change of volume between consecutive scans, ml: bias (mean) and 95 % limits of "
        "agreement, bias -+ 1.96 SD, with the SD of a single change of a single subject (Bland & Altman 2007, "
        "section 3), which is the usual SD where each subject has one change; no limits for fewer than two changes"
    ),
}


def slope(times: Sequence[float], volumes: Sequence[float]) -> float | None:
    """Compute the slope of the least-squares line of volume over time.

    :param times: time units.
    :param volumes: ml.
    :returns: ml per time unit; None with fewer than two different times.
    """
    times = np.asarray(times, dtype=np.float64)
    if len(np.unique(times)) < 2:
        return None
    volumes = np.asarray(volumes, dtype=np.float64)
    if np.ptp(volumes) == 0:
        return 0.0  # not a rounding error
    centred = times - times.mean()
    return float(centred @ volumes / (centred @ centred))


def trajectory(
    times: Sequence[float], predicted: Sequence[float], reference: Sequence[float]
) -> dict[str, float | None]:
    """Measure one structure of one subject over time.

    :param times: of its scans, time units.
    :param predicted: volumes of the prediction, ml.
    :param reference: volumes of the reference, ml.
    """
    predicted, reference = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    total = predicted.mean() + reference.mean()
    if not total:
        return dict.fromkeys(
            ("slope", "true_slope", "slope_error", "absolute_slope_error", "relative_slope_error", "volume_error")
        )
    predicted_slope, true_slope = slope(times, predicted), slope(times, reference)
    # a slope that is rounding alone is none to divide by
    changes = true_slope is not None and abs(true_slope) * np.ptp(times) > 1e-9 * reference.max()
    error = None if predicted_slope is None else predicted_slope - true_slope
    return {
        "slope": predicted_slope,
        "true_slope": true_slope,
        "slope_error": error,
        "absolute_slope_error": None if error is None else abs(error),
        "relative_slope_error": abs(error / true_slope) if changes else None,
        "volume_error": float(np.abs(predicted - reference).mean() / (0.5 * total)),
    }


def summarise_trajectories(rows: Sequence[dict[str, Any]], changes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarise slopes and changes of one structure over subjects.

    :param rows: one for each subject: subject and the numbers of :func:`trajectory`.
    :param changes: one for each pair of consecutive scans: subject, change and true_change (ml).
    """
    of_rows = [row["subject"] for row in rows]
    names = ("slope_error", "absolute_slope_error", "relative_slope_error", "volume_error")
    subjects = [row["subject"] for row in changes]
    predicted, reference = ([row[name] for row in changes] for name in ("change", "true_change"))
    return {
        **{name: summary(of_rows, [row[name] for row in rows]) for name in names},
        "change_correlation": correlation(subjects, predicted, reference),
        "bland_altman": bland_altman(subjects, predicted, reference),
    }


def correlation(subjects: Sequence[str], predicted: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Compute Pearson's r of values of several subjects, with a bootstrap interval over subjects.

    Resamples in which r is not defined are excluded from the interval.

    :param subjects: of each value.
    """
    predicted, reference = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    r = _pearson(predicted, reference)
    of_subject = [np.flatnonzero(np.asarray(subjects) == subject) for subject in sorted(set(subjects))]
    interval = None
    if r is not None and len(of_subject) > 2:
        generator = np.random.default_rng(SEED)
        drawn = generator.integers(0, len(of_subject), (RESAMPLES, len(of_subject)))
        values = [_pearson(predicted[chosen], reference[chosen]) for chosen in _positions(of_subject, drawn)]
        low, high = np.percentile([value for value in values if value is not None], [2.5, 97.5])
        interval = [float(low), float(high)]
    return {"r": r, "interval": interval, "changes": len(predicted), "subjects": len(of_subject)}


def _positions(of_subject: Sequence[np.ndarray], drawn: np.ndarray):
    for subjects in drawn:
        yield np.concatenate([of_subject[subject] for subject in subjects])


def _pearson(one: np.ndarray, other: np.ndarray) -> float | None:
    if len(one) < 3 or not np.ptp(one) or not np.ptp(other):
        return None
    one, other = one - one.mean(), other - other.mean()
    return float(np.clip(one @ other / np.sqrt((one @ one) * (other @ other)), -1, 1))


def bland_altman(subjects: Sequence[str], predicted: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Compute bias and 95 % limits of agreement of predicted - reference.

    A subject's several differences are not independent. So the variance of a single difference is the sum of that
    between and that within subjects, by one-way analysis of variance (Bland & Altman, J. Biopharm. Stat. 17, 2007,
    section 3: the reference value varies). With one difference for each subject it is the ordinary variance.

    :returns: bias, sd, limits (two, in order), changes, subjects; None where there are too few.
    """
    errors = np.asarray(predicted, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    names, group = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    result = {"bias": None, "sd": None, "limits": None, "changes": len(errors), "subjects": len(names)}
    if not len(errors):
        return result
    bias = float(errors.mean())
    result["bias"] = bias
    if len(errors) > 1:
        sd = float(np.sqrt(_variance_of_one(errors, group)))
        result |= {"sd": sd, "limits": [bias - 1.96 * sd, bias + 1.96 * sd]}
    return result


def _variance_of_one(errors: np.ndarray, group: np.ndarray) -> float:
    """Variance between groups plus variance within them, by the mean squares of a one-way analysis of variance."""
    counts = np.bincount(group)
    count, groups = len(errors), len(counts)
    if groups == 1 or groups == count:
        return float(errors.var(ddof=1))
    means = np.bincount(group, errors) / counts
    within = ((errors - means[group]) ** 2).sum() / (count - groups)
    between = (counts * (means - errors.mean()) ** 2).sum() / (groups - 1)
    per_group = (count - (counts**2).sum() / count) / (groups - 1)
    return float(within + max(0.0, (between - within) / per_group))
