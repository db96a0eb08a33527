"""What is said about the forecasts of a cohort: their numbers, and those of the ladder on the same targets."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from longflow.evaluation.intervals import share_interval
from longflow.evaluation.significance import FEWEST_FOR_A_VERDICT, holm, is_difference
from longflow.evaluation.summary import (
    Row,
    differences,
    horizon_bins,
    paired_summary,
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
    "exact 95 % interval of this share (Clopper & Pearson) with the effective number of targets of Korn & Graubard "
    "1998, since a subject's targets are alike; where all targets or none are better, each subject counts once"
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
        "better or worse: the difference of the NRMSE to the best rung has p <= 0.05 in the sign-flip test; tie: it "
        "has not, which is no proof that both are alike; null with fewer than 6 subjects, over which the test cannot "
        "reach 0.05. Verdicts by horizon are corrected for their number (Holm 1979)"
    ),
}


def compare(rows: Sequence[Row], names: Iterable[str] = DEFINITIONS) -> dict[str, Any]:
    """Summarise the targets of a cohort, overall and by horizon; JSON-ready. The best rung is that of all horizons.

    :param rows: of every target the forecast and the rungs: case, subject, horizon, method and numbers.
    :param names: of the numbers.
    """
    best = best_rung(rows)
    by_horizon = [
        {"from": low, "to": high, **summarise([row for row in rows if low <= row["horizon"] <= high], names, best)}
        for low, high in horizon_bins([row["horizon"] for row in rows if row["method"] == LCI])
    ]
    correct_verdicts([part["best_rung"] for part in by_horizon])
    return {"overall": summarise(rows, names, best), "by_horizon": by_horizon}


def correct_verdicts(compared: Sequence[dict[str, Any]]) -> None:
    """Correct the verdicts of several comparisons with the best rung for their number.

    :param compared: ``best_rung`` of :func:`summarise`; their ``verdict`` is replaced.
    """
    found = {index: one["difference"]["nrmse"] for index, one in enumerate(compared) if "nrmse" in one["difference"]}
    for index, p in holm({index: number["p"] for index, number in found.items()}).items():
        compared[index]["verdict"] = verdict({**found[index], "p": p})


def summarise(rows: Sequence[Row], names: Iterable[str] = DEFINITIONS, best: str | None = None) -> dict[str, Any]:
    """Summarise targets: numbers of forecast and rungs, the forecast's paired differences to LCI and the best rung.

    :param rows: as of :func:`compare`.
    :param names: of the numbers.
    :param best: name of the rung to compare with; None: the best one of these targets.
    """
    best = best or best_rung(rows)
    by_method = {method: [row for row in rows if row["method"] == method] for method in (FORECAST, *RUNGS)}
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
        "difference_to_lci": {name: _difference(by_method, name, LCI) for name in names},
        "better_than_lci": _share_better(by_method, LCI),
        "best_rung": _against(by_method, names, best),
    }


def _against(by_method: dict[str, list[Row]], names: Iterable[str], best: str) -> dict[str, Any]:
    """Compare the forecast with the best rung: its name, differences, share of better targets, skill and verdict."""
    forecasts = by_method[FORECAST]
    subjects = [row["subject"] for row in forecasts]
    difference = {name: _difference(by_method, name, best) for name in names}
    of_rung = {row["case"]: row["nrmse"] for row in by_method[best]}
    ratios = [(row["nrmse"], of_rung.get(row["case"])) for row in forecasts]
    skills = [1 - own / rung if own is not None and rung else None for own, rung in ratios]
    return {
        "name": best,
        "difference": difference,
        "better": _share_better(by_method, best),
        "skill_against_best_rung": summary(subjects, skills),
        "verdict": verdict(difference["nrmse"]) if "nrmse" in difference else None,
    }


def verdict(difference: Mapping[str, Any]) -> str | None:
    """Judge a difference of errors by its p value; None where its subjects are too few for any.

    :param difference: of :func:`longflow.evaluation.summary.paired_summary`.

    >>> verdict({"mean": -0.2, "p": 0.03, "subjects": 6}), verdict({"mean": -0.2, "p": 0.25, "subjects": 3})
    ('better', None)
    """
    if difference["subjects"] < FEWEST_FOR_A_VERDICT:
        return None
    if not is_difference(difference["p"]):
        return "tie"
    return "better" if difference["mean"] < 0 else "worse"


def _difference(by_method: Mapping[str, list[Row]], name: str, rung: str) -> dict[str, Any]:
    """Forecast - rung of each forecast's row, summarised."""
    return paired_summary([row["subject"] for row in by_method[FORECAST]], *_both(by_method, name, rung))


def _both(by_method: Mapping[str, list[Row]], name: str, rung: str) -> tuple[list[float | None], list[float | None]]:
    """A number of each forecast, and that of a rung for the same target."""
    of_rung = {row["case"]: row[name] for row in by_method[rung]}
    forecasts = by_method[FORECAST]
    return [row[name] for row in forecasts], [of_rung[row["case"]] for row in forecasts]


def _share_better(by_method: dict[str, list[Row]], rung: str) -> dict[str, Any]:
    better = [
        None if difference is None else float(difference < 0)
        for difference in differences(*_both(by_method, "nrmse", rung))
    ]
    defined = [value for value in better if value is not None]
    subjects = [row["subject"] for row in by_method[FORECAST]]
    pairs = [(subject, value) for subject, value in zip(subjects, better, strict=True) if value is not None]
    targets = Counter(subject for subject, _ in pairs)
    successes = Counter(subject for subject, value in pairs if value)
    return {
        "share": float(np.mean(defined)) if defined else None,
        "better": int(sum(defined)),
        "targets": len(defined),
        "interval": share_interval([successes[subject] for subject in targets], list(targets.values())),
    }
