"""From numbers per prediction to statements about a cohort.

The subject is the unit: a subject's predictions are averaged first, then subjects are averaged, and intervals are those
of independent subjects. Predictions of one subject are not independent; intervals over predictions would be too narrow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from longflow.evaluation.intervals import mean_interval, weighted_mean_interval
from longflow.evaluation.significance import sign_flip_p

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
        "interval": ("95 % interval of the mean over subjects, by Student's t; null with fewer than two subjects"),
        "p": (
            "of differences: two-sided p value of the sign-flip test over subjects, without correction for several "
            "tests; with fewer than 6 subjects it cannot reach 0.05"
        ),
        "undefined": f"{unit} for which the number is not defined; they are excluded from it",
    }


def summary(subjects: Sequence[str], values: Sequence[float | None]) -> dict[str, Any]:
    """Summarise values over subjects.

    :param subjects: of each value.
    :param values: None where not defined.
    :returns: mean, median, interval (:func:`mean_interval`), subjects and undefined, the last two as counts.
    """
    per_subject = list(subject_means(subjects, values).values())
    return {
        "mean": float(np.mean(per_subject)) if per_subject else None,
        "median": float(np.median(per_subject)) if per_subject else None,
        "interval": mean_interval(per_subject),
        "subjects": len(per_subject),
        "undefined": sum(value is None for value in values),
    }


def weighted_summary(
    subjects: Sequence[str], values: Sequence[float | None], weights: Sequence[float]
) -> dict[str, Any]:
    """Summarise one value of each subject, with a weighted mean.

    :param subjects: all different.
    :param values: None where not defined.
    :param weights: of the values, above 0 where they are defined.
    :returns: as of :func:`summary`; mean and interval are weighted, the median is not.
    """
    defined = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    found = summary(subjects, values)
    if defined:
        kept, of_kept = zip(*defined, strict=True)
        found |= {"mean": float(np.average(kept, weights=of_kept)), "interval": weighted_mean_interval(kept, of_kept)}
    return found


def paired_summary(
    subjects: Sequence[str], one: Sequence[float | None], other: Sequence[float | None]
) -> dict[str, Any]:
    """Summarise the differences one - other over subjects, and test them.

    :param subjects: of each pair of values.
    :param one: None where not defined.
    :param other: likewise.
    :returns: as of :func:`summary`, and p (:func:`longflow.evaluation.significance.sign_flip_p`).
    """
    values = differences(one, other)
    return {**summary(subjects, values), "p": sign_flip_p(list(subject_means(subjects, values).values()))}


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
