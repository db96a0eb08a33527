"""What is said about the forecasts of a cohort: their numbers, and those of the baselines on the same targets."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from longflow.evaluation.summary import (
    Row,
    bootstrap_interval,
    differences,
    horizon_bins,
    subject_means,
    summary,
    summary_definitions,
)
from longflow.tasks.forecast.metrics import DEFINITIONS

#: the rows of every target: the forecast, and the baselines that it is compared with
FORECAST, LCI, CONTEXT_MEAN = "forecast", "lci", "context_mean"
METHODS = (FORECAST, LCI, CONTEXT_MEAN)

COMPARISON_DEFINITIONS = {
    **summary_definitions("targets"),
    "difference_to_lci": (
        "forecast minus LCI, paired: per target where both are defined, then per subject, then over subjects"
    ),
    "better_than_lci": (
        "share of targets whose NRMSE is lower than that of LCI; interval of this share, from subjects drawn with "
        "replacement, each with all its targets; null where all targets or none are better"
    ),
}


def compare(rows: Sequence[Row], names: Iterable[str] = DEFINITIONS) -> dict[str, Any]:
    """Summarise the targets of a cohort, overall and by horizon; JSON-ready.

    :param rows: three of every target: case, subject, horizon, method and numbers.
    :param names: of the numbers.
    """
    return {
        "overall": summarise(rows, names),
        "by_horizon": [
            {"from": low, "to": high, **summarise([row for row in rows if low <= row["horizon"] <= high], names)}
            for low, high in horizon_bins([row["horizon"] for row in rows if row["method"] == LCI])
        ],
    }


def summarise(rows: Sequence[Row], names: Iterable[str] = DEFINITIONS) -> dict[str, Any]:
    """Summarise targets: numbers of each method, the forecast's paired difference to LCI, how often it is better.

    :param rows: as of :func:`compare`.
    :param names: of the numbers.
    """
    by_method = {method: [row for row in rows if row["method"] == method] for method in METHODS}
    return {
        "subjects": len({row["subject"] for row in rows}),
        "targets": len(by_method[FORECAST]),
        **{
            method: {
                name: summary([row["subject"] for row in of_method], [row[name] for row in of_method]) for name in names
            }
            for method, of_method in by_method.items()
        },
        "difference_to_lci": {
            name: summary([row["subject"] for row in by_method[FORECAST]], _differences_to_lci(by_method, name))
            for name in names
        },
        "better_than_lci": _share_better(by_method),
    }


def _differences_to_lci(by_method: dict[str, list[Row]], name: str) -> list[float | None]:
    """Forecast - LCI of each forecast's row; None where either is not defined."""
    lci = {row["case"]: row[name] for row in by_method[LCI]}
    forecasts = by_method[FORECAST]
    return differences([row[name] for row in forecasts], [lci[row["case"]] for row in forecasts])


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
