"""Intervals over subjects and trainings: what other subjects and other seeds would have given.

Every training (a seed of a fold) is measured on the same subjects as the others of its fold: two crossed random
factors. With n subjects and S seeds, the variance of the mean has two parts: A, the variance of the subjects' means
/ n, and B, that of the seeds' means / S. Each has its own Student's factor, of n - 1 and S - 1 degrees of freedom:

    half width^2 = t(n - 1)^2 A + t(S - 1)^2 B

It is exact where one part is 0, and a little too wide between (as Cochran's solution for two variances, Biometrics 20,
1964, and since what is random in both is counted in both). Satterthwaite's single factor for A + B is narrower, but
with three seeds it covered 92 to 93 % in place of 95 %: where B is small by chance, it takes the degrees of freedom of
the subjects. With two seeds that differ, the interval is very wide: two say little about a third.

Several folds have subjects of their own. There A is over all subjects, and the seeds' variance is pooled over folds, of
which each has the share of its subjects.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from longflow.evaluation.intervals import CONFIDENCE, mean_interval, t_quantile


def interval_over_runs(runs: Sequence[Mapping[str, float]], confidence: float = CONFIDENCE) -> list[float] | None:
    """Compute an interval of the mean over subjects and trainings.

    :param runs: of each training: value by subject. Trainings with the same subjects are seeds of one fold.
    :param confidence: smallest share of the intervals that hold the mean, for normal effects of subjects and seeds.
    :returns: lower and upper limit; Student's interval over subjects where no fold has several trainings; None for
        fewer than two subjects.
    """
    values: dict[str, list[float]] = {}
    folds: dict[frozenset[str], list[Mapping[str, float]]] = {}
    for run in runs:
        folds.setdefault(frozenset(run), []).append(run)
        for subject, value in run.items():
            values.setdefault(subject, []).append(value)
    means = [float(np.mean(values[subject])) for subject in sorted(values)]
    degrees = sum(len(own) - 1 for own in folds.values())
    if len(means) < 2 or not degrees:
        return mean_interval(means, confidence)

    squares = share = 0.0
    for subjects, own in folds.items():
        of_seeds = np.array([np.mean(list(run.values())) for run in own])
        squares += float(((of_seeds - of_seeds.mean()) ** 2).sum())
        weight = sum(len(own) / len(values[subject]) for subject in subjects) / len(means)
        share += weight**2 / len(own)
    by_subjects = float(np.var(means, ddof=1)) / len(means)
    by_seeds = squares / degrees * share
    mean = float(np.mean(means))
    parts = t_quantile(len(means) - 1, confidence) ** 2 * by_subjects + t_quantile(degrees, confidence) ** 2 * by_seeds
    return [mean - float(np.sqrt(parts)), mean + float(np.sqrt(parts))]
