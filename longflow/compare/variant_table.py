"""The table of a comparison: errors of every variant, their differences to LCI and the best rung, and costs.

A variant is measured on the same targets in several runs, one for each seed and fold. Subjects are the unit, as in
:mod:`longflow.evaluation.summary`: a subject's targets in all runs are averaged first. The standard deviation over
runs, each with its own mean over subjects, shows how much training itself varies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import stdev
from typing import Any

import numpy as np

from longflow.evaluation.seeds import interval_over_runs
from longflow.evaluation.significance import holm
from longflow.evaluation.summary import Row, differences, horizon_bins, subject_means, summary
from longflow.tasks.forecast.comparison import COMPARISON_DEFINITIONS, FORECAST, summarise, verdict
from longflow.tasks.forecast.ladder import LCI
from longflow.tasks.forecast.metrics import DEFINITIONS

#: costs of the training and the predictions of a run, and their definitions
COSTS = {
    "parameters": "number of learnt weights",
    "seconds": "of training and validating, over all sessions",
    "iterations": "steps of training",
    "peak_memory": (
        "bytes: on a GPU of tensors, on a CPU of the process, Python and torch included (about 0.5 GB); the highest of "
        "training and validating"
    ),
    "looks": "validations of which the best weights were kept; the best of many is luckier than the best of few",
    "seconds_per_prediction": "median time from the end of one forecast to the end of the next",
}

TABLE_DEFINITIONS = {
    "mean": "mean over subjects of each subject's mean over its targets, in all runs",
    "sd": "standard deviation (n - 1) over the runs (folds and seeds) of each run's mean; null for a single run",
    "lci": "the mean of LCI on the same targets, from the same context scans",
    "minus_lci": "variant minus LCI, paired: per target, then per subject over all runs, then over subjects",
    "minus_best_rung": "variant minus the best forecast without training (best_rung), paired in the same way",
    "best_rung": COMPARISON_DEFINITIONS["best_rung"],
    "verdict": (
        "better or worse than the best rung: p_holm of the NRMSE is at most 0.05, and the interval of the difference "
        "does not hold 0; tie: else, which is no proof that both are alike; null with fewer than 6 subjects, over "
        "which the test cannot reach 0.05"
    ),
    "p": COMPARISON_DEFINITIONS["p"],
    "p_holm": "p, corrected for the number of variants (Holm 1979)",
    "interval": (
        "95 % interval over subjects, as in longflow_evaluate. Of differences where several seeds ran: over subjects "
        "and seeds, which are crossed. With one seed it does not hold the choice of that seed"
    ),
    **COSTS,
}


@dataclass(frozen=True)
class Measured:
    """One run of a variant.

    :param run: name of fold and seed.
    :param rows: of its targets.
    :param cost: keys of ``COSTS``; an unknown one is None or missing.
    """

    run: str
    rows: Sequence[Row]
    cost: Mapping[str, float | None] = field(default_factory=dict)


def line_of(name: str, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the line of a variant; JSON-ready.

    :param name: of the variant.
    :param measured: its runs.
    :returns: variant, runs, subjects, targets, for every number of ``DEFINITIONS`` its mean, sd, interval, lci,
        minus_lci and minus_best_rung, better_than_lci, best_rung (name, nrmse, better, verdict), cost and by_horizon.
    """
    # the same target in two runs is two rows, each with the LCI of its own run
    rows = [{**row, "case": (one.run, row["case"])} for one in measured for row in one.rows]
    overall = summarise(rows)
    best = overall["best_rung"]
    # bins are those of the targets, the same for all variants whatever their number of runs
    horizons = {row["case"]: row["horizon"] for one in measured for row in one.rows}
    bins = [
        (low, high, summarise([row for row in rows if low <= row["horizon"] <= high], best=best["name"]))
        for low, high in horizon_bins(list(horizons.values()))
    ]
    return {
        "variant": name,
        "runs": [one.run for one in measured],
        "subjects": overall["subjects"],
        "targets": len({row["case"] for one in measured for row in one.rows}),
        **{
            number: {
                **_short(overall[FORECAST][number]),
                "sd": _deviation([run_mean(one.rows, number) for one in measured]),
                "lci": overall[LCI][number]["mean"],
                "minus_lci": _tested(overall["difference_to_lci"][number], measured, number, LCI),
                "minus_best_rung": _tested(best["difference"][number], measured, number, best["name"]),
                "of_runs": [run_mean(one.rows, number) for one in measured],
            }
            for number in DEFINITIONS
        },
        "better_than_lci": overall["better_than_lci"]["share"],
        "best_rung": {
            "name": best["name"],
            "nrmse": overall[best["name"]]["nrmse"]["mean"],
            "better": best["better"]["share"],
            "verdict": best["verdict"],
        },
        "cost": {cost: _mean([one.cost.get(cost) for one in measured]) for cost in COSTS},
        "by_horizon": [
            {
                **{"from": low, "to": high, "nrmse": _short(part[FORECAST]["nrmse"])},
                **{"lci": part[LCI]["nrmse"]["mean"], "best_rung": part[best["name"]]["nrmse"]["mean"]},
            }
            for low, high, part in bins
        ],
    }


def correct_verdicts(lines: Sequence[dict[str, Any]]) -> None:
    """Correct p values and verdicts for the number of variants; ``p_holm`` is added to every difference.

    A variant that is the baseline itself (all differences are 0) is no test.

    :param lines: of :func:`line_of`.
    """
    for number, against in product(DEFINITIONS, ("minus_lci", "minus_best_rung")):
        found = [line[number][against] for line in lines]
        tests = {index: one["p"] for index, one in enumerate(found) if one["mean"] or one["p"] != 1}
        corrected = holm(tests)
        for index, one in enumerate(found):
            one["p_holm"] = corrected.get(index, one["p"])
    for line in lines:
        difference = line["nrmse"]["minus_best_rung"]
        found = verdict({**difference, "p": difference["p_holm"]})
        low, high = difference["interval"] or (0.0, 0.0)
        line["best_rung"]["verdict"] = "tie" if found and low <= 0 <= high else found


def run_mean(rows: Sequence[Row], number: str, method: str = FORECAST) -> float | None:
    """Return the mean over subjects in one run."""
    own = [row for row in rows if row["method"] == method]
    return summary([row["subject"] for row in own], [row[number] for row in own])["mean"]


def _short(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"mean": found["mean"], "interval": found["interval"]}


def _tested(found: Mapping[str, Any], measured: Sequence[Measured], number: str, rung: str) -> dict[str, Any]:
    """Return a difference with its interval over subjects and runs."""
    interval = interval_over_runs(differences_of_runs(measured, number, rung))
    return {"mean": found["mean"], "interval": interval, "p": found["p"], "subjects": found["subjects"]}


def differences_of_runs(measured: Sequence[Measured], number: str, rung: str) -> list[dict[str, float]]:
    """Return variant - rung in each run: a subject's mean over its targets, by subject; runs without any are left out.

    :param measured: the runs of a variant.
    :param number: one of ``DEFINITIONS``.
    :param rung: name.
    """
    found = []
    for one in measured:
        of_rung = {row["case"]: row[number] for row in one.rows if row["method"] == rung}
        own = [row for row in one.rows if row["method"] == FORECAST]
        values = differences([row[number] for row in own], [of_rung.get(row["case"]) for row in own])
        found.append(subject_means([row["subject"] for row in own], values))
    return [of_run for of_run in found if of_run]


def _deviation(means: Sequence[float | None]) -> float | None:
    known = [value for value in means if value is not None]
    return stdev(known) if len(known) > 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a line for a CSV: an interval becomes two columns, and nested names are joined."""
    cells = {"variant": line["variant"], "runs": len(line["runs"])}
    cells |= {name: line[name] for name in ("subjects", "targets")}
    for number in DEFINITIONS:
        found, difference = line[number], line[number]["minus_lci"]
        low, high = found["interval"] or (None, None)
        difference_low, difference_high = difference["interval"] or (None, None)
        cells |= {
            number: found["mean"],
            f"{number}_sd": found["sd"],
            f"{number}_from": low,
            f"{number}_to": high,
            f"{number}_lci": found["lci"],
            f"{number}_minus_lci": difference["mean"],
            f"{number}_minus_lci_from": difference_low,
            f"{number}_minus_lci_to": difference_high,
            f"{number}_minus_best_rung": found["minus_best_rung"]["mean"],
        }
    best = {"best_rung": line["best_rung"]["name"], "better_than_best_rung": line["best_rung"]["better"]}
    return {**cells, "better_than_lci": line["better_than_lci"], **best, **line["cost"]}
