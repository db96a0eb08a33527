"""Choose by which rule the model that longflow_find_best chose takes its context scans.

Each fold forecasts validation targets that it was not trained on, with every rule. Only targets that have more scans
before them than the model takes tell rules apart, and they can be few. So of the rules whose NRMSE exceeds the lowest
by at most ``ALIKE`` of the skill, LCI's NRMSE minus the lowest, one that averages fewer forecasts is taken, then the
default.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from longflow.data.images import read_scan
from longflow.evaluation.best import record_best
from longflow.evaluation.solvers import rows_of_folds
from longflow.evaluation.summary import Row, subject_means
from longflow.inference.models import Models
from longflow.inference.selection import Selection, recorded_best
from longflow.methods.registry import method_class
from longflow.parallel import Progress
from longflow.paths import DatasetPaths
from longflow.plans import read_plans
from longflow.spread import evenly_spaced
from longflow.tasks.forecast.context import DEFAULT_RULE, RULES, SHIFTS, Rule
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.pairs import ForecastPrediction
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.shrinkage import given_of_pair, prepared_scans
from longflow.tasks.forecast.solvers import load_of_fold, pairs_of_selection
from longflow.tasks.forecast.units import read_reference

#: targets that are forecast at most, evenly over the folds
MOST_TARGETS = 8

#: rules that differ by less than this share of the skill are alike: three forecasts must be worth their work
ALIKE = 0.05

#: forecasts that a rule averages
FORECASTS: Mapping[Rule, int] = {"latest": 1, "spread": 1, "subsets": len(SHIFTS)}


def choose_rule(dataset: DatasetPaths, best: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Compare the context rules with the chosen model; add the choice to best.json.

    :param best: content of best.json.
    :returns: the content with ``context_rule`` and ``context_rules``, None where no rule makes a difference: targets,
        subjects, lci_nrmse, table: a row for each rule: rule, nrmse, means over subjects.
    """
    rules = compare_rules(recorded_best(dataset), progress)
    chosen = best_rule(rules) if rules else DEFAULT_RULE
    return record_best(dataset, {**best, "context_rule": chosen, "context_rules": rules})


def compare_rules(selection: Selection, progress: Progress | None = None) -> dict[str, Any] | None:
    """Compare the context rules on validation targets.

    :param selection: the chosen model with all of its folds.
    :returns: as in :func:`choose_rule`; None where no target has more scans than the model takes.
    """
    taken = [
        read_plans(member.model.plans).temporal.sequence_length
        for member in selection.members
        if method_class(member.model.method).trains
    ]
    if not taken or not selection.shrinkage:
        return None
    pairs = [pair for pair in pairs_of_selection(selection) if len(pair.context) > min(taken)]
    if not pairs:
        return None
    chosen = [pairs[position] for position in evenly_spaced(len(pairs), MOST_TARGETS)]
    rows, _ = rows_of_folds(chosen, partial(load_of_fold, selection=selection), rows_of_target, len(RULES), progress)
    if not rows:
        return None
    return {
        "targets": len({row["case"] for row in rows}),
        "subjects": len({row["subject"] for row in rows}),
        "lci_nrmse": _mean(rows, "lci_nrmse"),
        "table": [
            {"rule": rule, "nrmse": _mean([row for row in rows if row["rule"] == rule], "nrmse")} for rule in RULES
        ],
    }


def rows_of_target(pair: ForecastPrediction, models: Models, _: bool = False) -> list[Row]:
    """Measure every rule on one target.

    :param pair: with its reference and context scans.
    :param models: of a fold that was not trained on it.
    :returns: a row for each; none for a constant target.
    """
    reference, forecaster = read_reference(pair), Forecaster(models)
    lci = nrmse(read_scan(pair.context_images[-1]).array, reference.array)
    if lci is None:
        return []
    rows = []
    for rule in RULES:
        forecaster.rule = rule
        forecast = forecaster.forecast_from(prepared_scans(given_of_pair(pair), forecaster))
        error = nrmse(forecast, reference.array)
        rows.append({"case": pair.case, "subject": pair.subject, "lci_nrmse": lci, "rule": rule, "nrmse": error})
    return rows


def best_rule(rules: Mapping[str, Any]) -> Rule:
    """Choose the rule of a comparison.

    :param rules: of :func:`compare_rules`.
    """
    errors = {row["rule"]: row["nrmse"] for row in rules["table"]}
    lowest = min(errors.values())
    tolerance = ALIKE * abs(rules["lci_nrmse"] - lowest)
    alike = [rule for rule in RULES if errors[rule] <= lowest + tolerance]
    return min(alike, key=lambda rule: (FORECASTS[rule], rule != DEFAULT_RULE, errors[rule]))


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean(list(subject_means([row["subject"] for row in rows], [row[name] for row in rows]).values())))
