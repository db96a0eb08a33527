"""From numbers per target to statements about a cohort.

The subject is the unit: a subject's targets are averaged first, then subjects are averaged, and intervals come from
resampling subjects. Targets of one subject are not independent; intervals over targets would be too narrow.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from longflow.tasks.forecast.metrics import DEFINITIONS

#: the rows of every target: the forecast, and the baselines that it is compared with
FORECAST, LCI, CONTEXT_MEAN = "forecast", "lci", "context_mean"
METHODS = (FORECAST, LCI, CONTEXT_MEAN)

RESAMPLES = 5000
SEED = 0
MAX_HORIZON_BINS = 4

#: a row: case, subject, horizon, method and the numbers of :data:`longflow.tasks.forecast.metrics.DEFINITIONS`
Row = dict[str, Any]

COMPARISON_DEFINITIONS = {
    "mean": "mean over subjects of each subject's mean over its targets",
    "median": "median over subjects of each subject's mean over its targets",
    "interval": (
        f"95 % bootstrap interval of the mean: subjects drawn with replacement, {RESAMPLES} times, seed {SEED}, "
        "2.5th and 97.5th percentile; null with fewer than two subjects"
    ),
    "undefined": "targets for which the number is not defined; they are left out of it",
    "difference_to_lci": (
        "forecast minus LCI, paired: per target where both are defined, then per subject, then over subjects"
    ),
    "better_than_lci": (
        "share of targets whose NRMSE is lower than that of LCI; interval of this share, from subjects drawn with "
        "replacement, each with all its targets; null where all targets or none are better"
    ),
}


def compare(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that is said about a cohort, overall and by horizon; JSON-ready."""
    return {
        "overall": summarise(rows),
        "by_horizon": [
            {"from": low, "to": high, **summarise([row for row in rows if low <= row["horizon"] <= high])}
            for low, high in horizon_bins([row["horizon"] for row in rows if row["method"] == LCI])
        ],
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Numbers of each method, the forecast's paired difference to LCI, and how often it is better."""
    by_method = {method: [row for row in rows if row["method"] == method] for method in METHODS}
    return {
        "subjects": len({row["subject"] for row in rows}),
        "targets": len(by_method[FORECAST]),
        **{
            method: {
                name: summary([row["subject"] for row in of_method], [row[name] for row in of_method])
                for name in DEFINITIONS
            }
            for method, of_method in by_method.items()
        },
        "difference_to_lci": {
            name: summary([row["subject"] for row in by_method[FORECAST]], _differences_to_lci(by_method, name))
            for name in DEFINITIONS
        },
        "better_than_lci": _share_better(by_method),
    }


def _differences_to_lci(by_method: dict[str, list[Row]], name: str) -> list[float | None]:
    """Forecast - LCI of each forecast's row; None where either is not defined."""
    lci = {row["case"]: row[name] for row in by_method[LCI]}
    forecasts = by_method[FORECAST]
    return differences([row[name] for row in forecasts], [lci[row["case"]] for row in forecasts])


def differences(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """One - other, value by value; None where either is not defined."""
    return [None if a is None or b is None else a - b for a, b in zip(one, other, strict=True)]


def _share_better(by_method: dict[str, list[Row]]) -> dict[str, Any]:
    better = [
        None if difference is None else float(difference < 0) for difference in _differences_to_lci(by_method, "nrmse")
    ]
    defined = [value for value in better if value is not None]
    subjects = [row["subject"] for row in by_method[FORECAST]]
    targets = Counter(subject for subject, value in zip(subjects, better, strict=True) if value is not None)
    shares = subject_means(subjects, better)
    share = float(np.mean(defined)) if defined else None
    weights = [targets[subject] for subject in shares]
    return {
        "share": share,
        "better": int(sum(defined)),
        "targets": len(defined),
        "interval": None if share in (None, 0, 1) else bootstrap_interval(list(shares.values()), weights=weights),
    }


def summary(subjects: Sequence[str], values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, median and interval over subjects of values, each of a subject; undefined ones are counted."""
    per_subject = list(subject_means(subjects, values).values())
    return {
        "mean": float(np.mean(per_subject)) if per_subject else None,
        "median": float(np.median(per_subject)) if per_subject else None,
        "interval": bootstrap_interval(per_subject),
        "subjects": len(per_subject),
        "undefined": sum(value is None for value in values),
    }


def subject_means(subjects: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    """Each subject's mean over its defined values, in order of name; subjects without any are left out."""
    collected: dict[str, list[float]] = {}
    for subject, value in zip(subjects, values, strict=True):
        if value is not None:
            collected.setdefault(subject, []).append(value)
    return {subject: float(np.mean(collected[subject])) for subject in sorted(collected)}


def bootstrap_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    weights: Sequence[float] | None = None,
) -> list[float] | None:
    """Percentile bootstrap interval of the mean of independent values (one per subject); None for fewer than two.

    :param weights: of the values, for a weighted mean; a subject that is drawn brings its own.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    if len(values) < 2:
        return None
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    generator = np.random.default_rng(seed)
    portion = max(1, 1_000_000 // len(values))  # resamples drawn at a time, so that memory stays small
    means = np.empty(resamples)
    for done in range(0, resamples, portion):
        drawn = generator.integers(0, len(values), (min(portion, resamples - done), len(values)))
        means[done : done + len(drawn)] = np.average(values[drawn], axis=1, weights=weights[drawn])
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return [float(low), float(high)]


def horizon_bins(horizons: Sequence[float], most: int = MAX_HORIZON_BINS) -> list[tuple[float, float]]:
    """Bins of about equally many targets, as (lowest, highest) horizon in each, both included.

    Where there are no more than ``most`` distinct horizons, each is its own bin. Equal horizons are never split.
    """
    values = np.sort(np.asarray(horizons, dtype=np.float64))
    distinct = np.unique(values)
    if len(distinct) <= most:
        return [(float(value), float(value)) for value in distinct]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, most + 1)[1:-1], method="lower"))
    bin_of = np.searchsorted(edges, distinct, side="left")
    return [(float(distinct[bin_of == b].min()), float(distinct[bin_of == b].max())) for b in np.unique(bin_of)]
