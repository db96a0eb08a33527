"""What is said about the forecasts of a cohort: their numbers, and those of the ladder on the same targets."""

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
from longflow.tasks.forecast.ladder import LCI, RUNGS, best_rung
from longflow.tasks.forecast.metrics import DEFINITIONS

#: the row of a target that is not one of a rung
FORECAST = "forecast"

#: the acquired scan of a target, where structures of segmented scans are compared: the segmenter's own error
ACQUIRED = "acquired"

_INTERVAL_OF_SHARE = (
    "interval of this share, from subjects drawn with replacement, each with all its targets; null where all targets "
    "or none are better"
)
COMPARISON_DEFINITIONS = {
    **summary_definitions("targets"),
    "difference_to_lci": (
        "forecast minus LCI, paired: per target where both are defined, then per subject, then over subjects"
    ),
    "better_than_lci": f"share of targets whose NRMSE is lower than that of LCI; {_INTERVAL_OF_SHARE}",
    "targets_of_rung": "targets for which a rung is defined; periodic needs a period",
    "best_rung": (
        "the forecast without training (lci, context_mean, linear, motion, periodic) with the lowest mean NRMSE over "
        "subjects of those that are defined for all targets, and the forecast compared with it: difference, better "
        "(as better_than_lci) and skill. It is chosen on these targets, which favours it"
    ),
    "skill_against_best_rung": (
        "1 - NRMSE / NRMSE of the best rung, per target, then per subject, then over subjects; skill is against LCI"
    ),
    "verdict": (
        "better or worse: the interval of the difference of the NRMSE to the best rung does not contain 0; tie: it "
        "does; null with fewer than two subjects, which have no interval"
    ),
}


def compare(rows: Sequence[Row], names: Iterable[str] = DEFINITIONS) -> dict[str, Any]:
    """Summarise the targets of a cohort, overall and by horizon; JSON-ready. The best rung is that of all horizons.

    :param rows: of every target the forecast and the rungs: case, subject, horizon, method and numbers.
    :param names: of the numbers.
    """
    best = best_rung(rows)
    return {
        "overall": summarise(rows, names, best),
        "by_horizon": [
            {"from": low, "to": high, **summarise([row for row in rows if low <= row["horizon"] <= high], names, best)}
            for low, high in horizon_bins([row["horizon"] for row in rows if row["method"] == LCI])
        ],
    }


def summarise(rows: Sequence[Row], names: Iterable[str] = DEFINITIONS, best: str | None = None) -> dict[str, Any]:
    """Summarise targets: numbers of forecast and rungs, the forecast's paired differences to LCI and the best rung.

    :param rows: as of :func:`compare`.
    :param names: of the numbers.
    :param best: name of the rung to compare with; None: the best one of these targets.
    """
    best = best or best_rung(rows)
    by_method = {method: [row for row in rows if row["method"] == method] for method in (FORECAST, *RUNGS)}
    subjects = [row["subject"] for row in by_method[FORECAST]]
    return {
        "subjects": len({row["subject"] for row in rows}),
        "targets": len(by_method[FORECAST]),
        **{
            method: {
                name: summary([row["subject"] for row in of_method], [row[name] for row in of_method]) for name in names
            }
            for method, of_method in by_method.items()
            if of_method
        },
        "targets_of_rung": {rung: len(by_method[rung]) for rung in RUNGS},
        "difference_to_lci": {name: summary(subjects, _differences(by_method, name, LCI)) for name in names},
        "better_than_lci": _share_better(by_method, LCI),
        "best_rung": _against(by_method, names, best),
    }


def _against(by_method: dict[str, list[Row]], names: Iterable[str], best: str) -> dict[str, Any]:
    """Compare the forecast with the best rung: its name, differences, share of better targets, skill and verdict."""
    forecasts = by_method[FORECAST]
    subjects = [row["subject"] for row in forecasts]
    difference = {name: summary(subjects, _differences(by_method, name, best)) for name in names}
    of_rung = {row["case"]: row["nrmse"] for row in by_method[best]}
    ratios = [(row["nrmse"], of_rung.get(row["case"])) for row in forecasts]
    skills = [1 - own / rung if own is not None and rung else None for own, rung in ratios]
    return {
        "name": best,
        "difference": difference,
        "better": _share_better(by_method, best),
        "skill_against_best_rung": summary(subjects, skills),
        "verdict": verdict(difference["nrmse"]["interval"]) if "nrmse" in difference else None,
    }


def verdict(interval: Sequence[float] | None) -> str | None:
    """Judge a difference of errors by its interval.

    >>> verdict([-0.2, -0.1]), verdict([-0.1, 0.1]), verdict([0.1, 0.2])
    ('better', 'tie', 'worse')
    """
    if interval is None:
        return None
    low, high = interval
    return "better" if high < 0 else "worse" if low > 0 else "tie"


def _differences(by_method: dict[str, list[Row]], name: str, rung: str) -> list[float | None]:
    """Forecast - rung of each forecast's row; None where either is not defined."""
    of_rung = {row["case"]: row[name] for row in by_method[rung]}
    forecasts = by_method[FORECAST]
    return differences([row[name] for row in forecasts], [of_rung[row["case"]] for row in forecasts])


def _share_better(by_method: dict[str, list[Row]], rung: str) -> dict[str, Any]:
    better = [
        None if difference is None else float(difference < 0) for difference in _differences(by_method, "nrmse", rung)
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
