"""Intervals over subjects and trainings: what other subjects and other seeds would have given.

Every training (a seed of a fold) is measured on the same subjects as the others of its fold: two crossed random
factors. The variance of the mean over n subjects and S seeds is A + B - E, with A = variance of the subjects' means
/ n, B = variance of the seeds' means / S, and E = residual mean square / (n S), which is in both (Searle, Casella &
McCulloch, Variance Components, 1992, section 4.3). The degrees of freedom are Satterthwaite's (Biometrics Bulletin 2,
1946). The variance is never taken to be less than A or B. With two seeds that differ, the interval is very wide: two
seeds say little about a third.

Several folds have subjects of their own. There A is over all subjects, and the seeds' variance is pooled over folds, of
which each has the share of its subjects.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from longflow.evaluation.intervals import CONFIDENCE, mean_interval, t_quantile


def interval_over_runs(runs: Sequence[Mapping[str, float]], confidence: float = CONFIDENCE) -> list[float] | None:
    """Compute an interval of the mean over subjects and trainings.

    :param runs: of each training: value by subject. Trainings with the same subjects are seeds of one fold.
    :param confidence: share of the intervals that hold the mean, for normal effects of subjects and seeds.
    :returns: lower and upper limit; Student's interval over subjects where no fold has several trainings; None for
        fewer than two subjects.
    """
    values: dict[str, list[float]] = {}
    for run in runs:
        for subject, value in run.items():
            values.setdefault(subject, []).append(value)
    means = {subject: float(np.mean(own)) for subject, own in values.items()}
    folds: dict[frozenset[str], list[Mapping[str, float]]] = {}
    for run in runs:
        folds.setdefault(frozenset(run), []).append(run)
    repeated = [own for own in folds.values() if len(own) > 1]
    number = len(means)
    if number < 2 or not repeated:
        return mean_interval([means[subject] for subject in sorted(means)], confidence)

    of_seeds, residual, degrees, residual_degrees = _mean_squares(repeated)
    share_of_seeds = share_of_residual = 0.0
    for subjects, own in folds.items():
        weight = sum(len(own) / len(values[subject]) for subject in subjects) / number
        share_of_seeds += weight**2 / len(own)
        share_of_residual += weight**2 / (len(own) * len(subjects))
    by_subjects = float(np.var(list(means.values()), ddof=1)) / number
    by_seeds, in_both = of_seeds * share_of_seeds, residual * share_of_residual
    parts = ((by_subjects, number - 1), (by_seeds, degrees), (in_both, residual_degrees))
    together = by_subjects + by_seeds - in_both
    if together >= max(by_subjects, by_seeds):
        variance, freedom = together, _satterthwaite(together, parts)
    else:
        variance, freedom = max(parts[:2])
    mean = float(np.mean(list(means.values())))
    half = t_quantile(freedom, confidence) * np.sqrt(variance) if variance > 0 else 0.0
    return [mean - float(half), mean + float(half)]


def _mean_squares(repeated: Sequence[Sequence[Mapping[str, float]]]) -> tuple[float, float, int, int]:
    """Pool the variance of the seeds' means and the residual mean square over folds with several trainings.

    :returns: both, and the degrees of freedom of each.
    """
    of_seeds = residual = 0.0
    degrees = residual_degrees = 0
    for own in repeated:
        table = np.array([[run[subject] for subject in sorted(run)] for run in own])  # (seeds, subjects)
        seeds, subjects = table.shape
        rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        of_seeds += (seeds - 1) * float(table.mean(axis=1).var(ddof=1))
        residual += float((rest**2).sum())
        degrees += seeds - 1
        residual_degrees += (seeds - 1) * (subjects - 1)
    return of_seeds / degrees, residual / max(residual_degrees, 1), degrees, residual_degrees


def _satterthwaite(variance: float, parts: Sequence[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of independent variances. :param parts: each with its own degrees."""
    denominator = sum(part**2 / degrees for part, degrees in parts if degrees)
    return variance**2 / denominator if denominator > 0 else float(parts[0][1])
