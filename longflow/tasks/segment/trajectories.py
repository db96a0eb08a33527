"""Volumes over time: slopes, changes between consecutive scans, and how prediction and reference agree on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import nctdtrit

from longflow.evaluation.intervals import jackknife_interval, mean_interval
from longflow.evaluation.summary import summary, weighted_summary

#: 95 % of normal values are within this many SD
Z_95 = 1.96

#: an absolute correlation above it is 1 but for rounding
_PERFECT = 1 - 1e-12

#: what each number means, in the order of tables; written next to every result
TRAJECTORY_DEFINITIONS = {
    "slope": (
        "of the predicted volume over time, ml per time unit, by least squares over the scans of a subject; undefined "
        "with fewer than two scans, and where the structure is in none of them, in neither prediction nor reference"
    ),
    "true_slope": "the same of the reference volume, over the same scans",
    "slope_error": "slope - reference slope, ml per time unit: negative where growth is underestimated or loss "
    "exaggerated. Its mean over subjects, and that of its absolute value, is weighted by slope_precision, so that a "
    "subject that was followed for a week does not count like one that was followed for a year",
    "absolute_slope_error": "|slope - reference slope|, ml per time unit; weighted likewise",
    "slope_precision": "sum of squared distances of a subject's times from their mean: the inverse of the variance of "
    "its slope for volumes that all have the same error",
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
        "interval by the jackknife over subjects on Fisher's scale; undefined for fewer than three pairs, or where "
        "either does not vary"
    ),
    "calibration_slope": (
        "d.r / d.d of predicted changes d and reference changes r of consecutive scans: 1 where changes have the right "
        "size, below 1 where they are exaggerated (noise does that, too), above 1 where they are too small; interval "
        "by the jackknife over subjects"
    ),
    "bland_altman": (
        "of predicted minus reference change of volume between consecutive scans, ml: bias (mean over subjects of each "
        "subject's mean) and 95 % limits of agreement, bias -+ 1.96 SD, with the SD of a single change of a single "
        "subject, unbiased although consecutive changes share a scan; limits_intervals are their 95 % intervals "
        "(Carkeet 2015). No limits for fewer than two subjects"
    ),
}


def slope(times: Sequence[float], volumes: Sequence[float]) -> float | None:
    """Compute the slope of the least-squares line of volume over time.

    :param times: time units.
    :param volumes: ml.
    :returns: ml per time unit; None with fewer than two different times.
    """
    times = np.asarray(times, dtype=np.float64)
    if not slope_precision(times):
        return None
    volumes = np.asarray(volumes, dtype=np.float64)
    if np.ptp(volumes) == 0:
        return 0.0  # not a rounding error
    centred = times - times.mean()
    return float(centred @ volumes / (centred @ centred))


def slope_precision(times: Sequence[float]) -> float:
    """Compute the sum of squared distances of times from their mean; 0 with fewer than two different times.

    >>> slope_precision([0, 2, 4])
    8.0
    """
    times = np.asarray(times, dtype=np.float64)
    return float(((times - times.mean()) ** 2).sum()) if np.ptp(times) else 0.0


def trajectory(
    times: Sequence[float], predicted: Sequence[float], reference: Sequence[float]
) -> dict[str, float | None]:
    """Measure one structure of one subject over time.

    :param times: of its scans, time units.
    :param predicted: volumes of the prediction, ml.
    :param reference: volumes of the reference, ml.
    """
    predicted, reference = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    precision = {"slope_precision": slope_precision(times)}
    total = predicted.mean() + reference.mean()
    if not total:
        names = ("slope", "true_slope", "slope_error", "absolute_slope_error", "relative_slope_error", "volume_error")
        return {**dict.fromkeys(names), **precision}
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
        **precision,
    }


def summarise_trajectories(rows: Sequence[dict[str, Any]], changes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarise slopes and changes of one structure over subjects.

    :param rows: one for each subject: subject and the numbers of :func:`trajectory`.
    :param changes: one for each pair of consecutive scans: subject, change and true_change (ml).
    """
    of_rows = [row["subject"] for row in rows]
    precisions = [row["slope_precision"] for row in rows]
    subjects = [row["subject"] for row in changes]
    predicted, reference = ([row[name] for row in changes] for name in ("change", "true_change"))
    return {
        **{
            name: weighted_summary(of_rows, [row[name] for row in rows], precisions)
            for name in ("slope_error", "absolute_slope_error")
        },
        **{name: summary(of_rows, [row[name] for row in rows]) for name in ("relative_slope_error", "volume_error")},
        "change_correlation": correlation(subjects, predicted, reference),
        "calibration_slope": calibration_slope(subjects, predicted, reference),
        "bland_altman": bland_altman(subjects, predicted, reference),
    }


def correlation(subjects: Sequence[str], predicted: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Compute Pearson's r of values of several subjects, with an interval over subjects.

    The interval leaves out one subject at a time, on Fisher's scale artanh(r).

    :param subjects: of each value.
    """
    predicted, reference = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    r = _pearson(predicted, reference)

    def on_fishers_scale(positions: np.ndarray) -> float | None:
        own = _pearson(predicted[positions], reference[positions])
        return None if own is None or abs(own) > _PERFECT else float(np.arctanh(own))

    interval = [r, r] if r is not None and abs(r) > _PERFECT else None
    if interval is None:
        interval = jackknife_interval(on_fishers_scale, subjects, np.tanh)
    return {"r": r, "interval": interval, "changes": len(predicted), "subjects": len(set(subjects))}


def _pearson(one: np.ndarray, other: np.ndarray) -> float | None:
    if len(one) < 3 or not np.ptp(one) or not np.ptp(other):
        return None
    one, other = one - one.mean(), other - other.mean()
    return float(np.clip(one @ other / np.sqrt((one @ one) * (other @ other)), -1, 1))


def calibration_slope(
    subjects: Sequence[str], predicted: Sequence[float], reference: Sequence[float]
) -> dict[str, Any]:
    """Compute d.r / d.d: the factor by which predicted changes d are best multiplied to give reference changes r.

    :param subjects: of each change.
    :param predicted: changes, ml.
    :param reference: likewise.
    :returns: slope and its interval, leaving out one subject at a time; None where no change is predicted.
    """
    d, r = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)

    def slope_of(positions: np.ndarray) -> float | None:
        squared = d[positions] @ d[positions]
        return float(d[positions] @ r[positions] / squared) if squared else None

    return {"slope": slope_of(np.arange(len(d))), "interval": jackknife_interval(slope_of, subjects)}


def bland_altman(subjects: Sequence[str], predicted: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Compute bias and 95 % limits of agreement of predicted - reference, with their intervals.

    A subject's several differences are not independent: consecutive changes share a scan, whose error is in both with
    opposite signs. So subjects are the unit. With m_i the mean and q_i the mean square, around the bias, of the
    differences of subject i of n,

        bias = mean of m_i,    SD^2 = mean of q_i + variance of m_i / n

    SD^2 is the variance of a single difference of a single subject. It is unbiased whatever the correlation within
    subjects is, because the mean of q_i lacks exactly the variance of the bias. With one difference for each subject
    it is the ordinary variance. (Bland & Altman, J. Biopharm. Stat. 17, 2007, section 3, have the same limits from an
    analysis of variance that takes the differences of a subject for independent around its mean.)

    The interval of the limit bias + z SD is that of Carkeet (Optometry and Vision Science 92, 2015) by the noncentral t
    distribution, with n - 1 degrees of freedom and the standard error of this bias, or the one that all differences
    would give if they were independent, whichever is larger. It is exact for one normal difference for each subject.

    :returns: bias, bias_interval, sd, limits (two, in order), limits_intervals (of each limit), changes, subjects; None
        where there are too few: everything but the bias takes two subjects.
    """
    errors = np.asarray(predicted, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    names, group = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    unknown = dict.fromkeys(("bias", "bias_interval", "sd", "limits", "limits_intervals"))
    result = {**unknown, "changes": len(errors), "subjects": len(names)}
    if not len(errors):
        return result
    counts = np.bincount(group)
    means = np.bincount(group, errors) / counts
    bias = float(means.mean())
    result |= {"bias": bias, "bias_interval": mean_interval(means.tolist())}
    if len(names) > 1:
        squared_error = means.var(ddof=1) / len(names)
        sd = float(np.sqrt((np.bincount(group, (errors - bias) ** 2) / counts).mean() + squared_error))
        result |= {"sd": sd, "limits": [bias - Z_95 * sd, bias + Z_95 * sd], "limits_intervals": [[bias, bias]] * 2}
        if sd:
            share = np.sqrt(max(squared_error / sd**2, 1 / len(errors)))  # standard error of the bias / SD
            outer, inner = (float(share * nctdtrit(len(names) - 1, Z_95 / share, q)) for q in (0.975, 0.025))
            below, above = [bias - outer * sd, bias - inner * sd], [bias + inner * sd, bias + outer * sd]
            result["limits_intervals"] = [below, above]
    return result
