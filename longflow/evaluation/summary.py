"""From numbers per prediction to statements about a cohort.

The subject is the unit: a subject's predictions are averaged first, then subjects are averaged, and intervals come from
resampling subjects. Predictions of one subject are not independent; intervals over predictions would be too narrow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 5000
SEED = 0
MAX_HORIZON_BINS = 4

#: the numbers of one prediction, with what they belong to (case, subject, ...)
Row = dict[str, Any]


def summary_definitions(unit: str) -> dict[str, str]:
    """Return what the keys of :func:`summary` mean.

    :param unit: what a subject has several of, as "scans".
    """
    return {
        "mean": f"mean over subjects of each subject's mean over its {unit}",
        "median": f"median over subjects of each subject's mean over its {unit}",
        "interval": (
            f"95 % bootstrap interval of the mean: subjects drawn with replacement, {RESAMPLES} times, seed {SEED}, "
            "2.5th and 97.5th percentile; null with fewer than two subjects"
        ),
        "undefined": f"{unit} for which the number is not defined; they are excluded from it",
    }


def summary(subjects: Sequence[str], values: Sequence[float | None]) -> dict[str, Any]:
    """Summarise values over subjects.

    :param subjects: of each value.
    :param values: None where not defined.
    :returns: mean, median, interval (:func:`bootstrap_interval`), subjects and undefined, the last two as counts.
    """
    per_subject = list(subject_means(subjects, values).values())
    return {
        "mean": float(np.mean(per_subject)) if per_subject else None,
        "median": float(np.median(per_subject)) if per_subject else None,
        "interval": bootstrap_interval(per_subject),
        "subjects": len(per_subject),
        "undefined": sum(value is None for value in values),
    }


def subject_means(subjects: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    """Return each subject's mean over its defined values, in order of name; subjects without any are excluded."""
    collected: dict[str, list[float]] = {}
    for subject, value in zip(subjects, values, strict=True):
        if value is not None:
            collected.setdefault(subject, []).append(value)
    return {subject: float(np.mean(collected[subject])) for subject in sorted(collected)}


def differences(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """Return one - other, value by value; None where either is not defined."""
    return [None if a is None or b is None else a - b for a, b in zip(one, other, strict=True)]


def bootstrap_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    weights: Sequence[float] | None = None,
) -> list[float] | None:
    """Compute the percentile bootstrap interval of the mean of independent values.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    :param values: one of each subject.
    :param weights: of the values, for a weighted mean; a subject that is drawn brings its weight.
    :returns: lower and upper limit; None for fewer than two values.
    """
    if len(values) < 2:
        return None
    sample = np.asarray(values, dtype=np.float64)
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    generator = np.random.default_rng(seed)
    portion = max(1, 1_000_000 // len(values))  # resamples drawn at a time, so that memory stays small
    means = np.empty(resamples)
    for done in range(0, resamples, portion):
        drawn = generator.integers(0, len(values), (min(portion, resamples - done), len(values)))
        means[done : done + len(drawn)] = np.average(sample[drawn], axis=1, weights=weight[drawn])
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return [float(low), float(high)]


def horizon_bins(horizons: Sequence[float], most: int = MAX_HORIZON_BINS) -> list[tuple[float, float]]:
    """Divide horizons into bins that hold about equally many.

    Where there are no more than ``most`` distinct horizons, each is its own bin. Equal horizons are never separated.

    :param horizons: time units, one of each target.
    :returns: lowest and highest horizon of each bin, both included.
    """
    values = np.sort(np.asarray(horizons, dtype=np.float64))
    distinct = np.unique(values)
    if len(distinct) <= most:
        return [(float(value), float(value)) for value in distinct]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, most + 1)[1:-1], method="lower"))
    bin_of = np.searchsorted(edges, distinct, side="left")
    return [(float(distinct[bin_of == b].min()), float(distinct[bin_of == b].max())) for b in np.unique(bin_of)]
