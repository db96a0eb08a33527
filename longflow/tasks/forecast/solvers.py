"""Choose the solver of the flow that longflow_find_best chose, on a few of its validation targets.

Each fold forecasts targets that it was not trained on, with every solver, as ``longflow_predict`` would but by patches
that do not overlap. A few targets suffice to tell solvers apart, since all solvers forecast the same ones.

The cheapest is taken whose NRMSE exceeds the lowest by at most ``ALIKE`` of the skill, LCI's NRMSE minus the lowest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.evaluation.best import record_best
from longflow.evaluation.solvers import (
    ALIKE,
    Setting,
    cheapest_alike,
    predictions_of_solvers,
    rows_of_folds,
    settings_to_try,
    write_solvers,
)
from longflow.evaluation.summary import Row, subject_means
from longflow.inference.models import Models, load_models
from longflow.inference.selection import Selection, recorded_best
from longflow.methods.registry import method_class
from longflow.parallel import Progress
from longflow.paths import DatasetPaths
from longflow.spread import evenly_spaced
from longflow.tasks.forecast.best import Source, forecasts_of_source
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.pairs import ForecastPrediction, find_pairs
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.shrinkage import given_of_pair, prepared_scans
from longflow.tasks.forecast.units import read_reference, with_units
from longflow.training.validation import WITHOUT_OVERLAP

#: targets that are forecast at most, evenly over the folds
MOST_TARGETS = 4


def choose_solver(dataset: DatasetPaths, best: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Compare the solvers of the chosen model; add the choice to best.json, and write best_solvers.csv.

    :param best: content of best.json.
    :returns: the content with solver and steps (None where no flow was chosen) and ``solvers``: validated (solver and
        steps of the out-of-fold forecasts), targets, subjects, device, lci_nrmse, table: a row for each solver: solver,
        steps, evaluations (of the network), seconds (of a forecast), nrmse, means over subjects.
    """
    selection = recorded_best(dataset)
    is_flow = any(method_class(member.model.method).integrates for member in selection.members)
    solvers = compare_solvers(selection, progress) if is_flow and selection.shrinkage else None
    solver, steps = best_setting(solvers) if solvers else (None, None)
    write_solvers(solvers, dataset.best_solvers)
    return record_best(dataset, {**best, "solver": solver, "steps": steps, "solvers": solvers})


def compare_solvers(selection: Selection, progress: Progress | None = None) -> dict[str, Any] | None:
    """Compare the solvers of a flow on validation targets.

    :param selection: the chosen model with all of its folds.
    :returns: as in :func:`choose_solver`; None where every chosen target is constant, or the source of a flow is noisy.
    """
    pairs = pairs_of_selection(selection)
    chosen = [pairs[position] for position in evenly_spaced(len(pairs), MOST_TARGETS)]
    models = load_of_fold(chosen[0].fold, selection)
    if any(method.stochastic for member in models.members for method in member.methods):
        return None  # few evaluations forecast the mean as well as many, but samples would differ too little
    solvers, validated = settings_to_try(models)
    work = partial(rows_of_target, solvers=solvers)
    rows, device = rows_of_folds(chosen, partial(load_of_fold, selection=selection), work, len(solvers), progress)
    if not rows:
        return None
    return {
        "validated": list(validated),
        "targets": len({row["case"] for row in rows}),
        "subjects": len({row["subject"] for row in rows}),
        "device": device,
        "lci_nrmse": _mean(rows, "lci_nrmse"),
        "table": [_row_of_solver(rows, *one) for one in solvers],
    }


def pairs_of_selection(selection: Selection) -> list[ForecastPrediction]:
    """List the validation targets of the chosen model, with their references and context scans, fold by fold.

    :param selection: the chosen model with all of its folds.
    """
    description = read_description(selection.dataset.raw / "dataset.json")
    (first, *_) = selection.members
    forecasts = forecasts_of_source(Source(first.model, selection.reduction), first.folds, description)
    pairs, _ = find_pairs(list(forecasts.values()), [selection.dataset.raw / "imagesTr"], description)
    pairs = with_units(pairs, [member.model for member in selection.members], selection.dataset)
    return sorted(pairs, key=lambda pair: (pair.fold, pair.subject, pair.target_time))


def load_of_fold(fold: int, selection: Selection) -> Models:
    """Load the models of one fold, to forecast by patches that do not overlap.

    :param fold: of every member; one that has nothing to train has no folds.
    :param selection: the chosen model with all of its folds.
    :returns: the models.
    """
    members = tuple(replace(member, folds=(fold,) if member.folds else ()) for member in selection.members)
    models = load_models(replace(selection, members=members), "forecast")
    for member in models.members:
        member.plans.inference.tile_step_size = WITHOUT_OVERLAP
    return models


def rows_of_target(pair: ForecastPrediction, models: Models, warm_up: bool, solvers: Sequence[Setting]) -> list[Row]:
    """Measure every solver on one target.

    :param pair: with its reference and context scans.
    :param models: of a fold that was not trained on it.
    :param warm_up: forecast once before time is taken.
    :param solvers: to try.
    :returns: a row for each; none for a constant target.
    """
    reference, last = read_reference(pair), read_scan(pair.context_images[-1])
    lci = nrmse(last.array, reference.array)
    if lci is None:
        return []
    forecaster = Forecaster(models)
    prepared = prepared_scans(given_of_pair(pair), forecaster)
    place = {"case": pair.case, "subject": pair.subject, "lci_nrmse": lci}

    def forecast() -> np.ndarray:
        return forecaster.forecast_from(prepared)

    return [
        {**place, **how, "seconds": seconds, "nrmse": nrmse(array, reference.array)}
        for how, array, seconds in predictions_of_solvers(models, solvers, forecast, warm_up)
    ]


def best_setting(solvers: Mapping[str, Any]) -> Setting:
    """Choose the solver of a comparison.

    :param solvers: of :func:`compare_solvers`.
    :returns: solver and steps.
    """
    errors = {(row["solver"], row["steps"]): row["nrmse"] for row in solvers["table"]}
    return cheapest_alike(errors, ALIKE * abs(solvers["lci_nrmse"] - min(errors.values())))


def _row_of_solver(rows: Sequence[Row], solver: str, steps: int) -> Row:
    """Average the rows of one solver over subjects."""
    own = [row for row in rows if (row["solver"], row["steps"]) == (solver, steps)]
    how = {name: own[0][name] for name in ("solver", "steps", "evaluations")}
    return {**how, "seconds": _mean(own, "seconds"), "nrmse": _mean(own, "nrmse")}


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean(list(subject_means([row["subject"] for row in rows], [row[name] for row in rows]).values())))
