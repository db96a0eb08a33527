"""Choose the model to translate with, and its solver: the lowest MAE in the body on the cross-validation.

One model is chosen, with all its finished folds, whose translations prediction averages. Of a flow, the solver is then
chosen on validation pairs too (:mod:`longflow.tasks.translate.solvers`). All models are compared with the untranslated
scan: it is no candidate, but a model that is no better than it should not be used.

Restriction: model and solver are chosen on the validation data that they are judged on, and each fold kept the weights
that were best there. So the numbers are a little better than those of new subjects, which imagesTs is for. Models are
compared as they were validated, with the solver of their plans. Prediction uses the chosen solver, so its expected
error is recorded, too: the validated one plus the difference of both solvers on the same slices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.body import body_of_scan
from longflow.data.dataset import DatasetDescription, read_description
from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.evaluation.advantage import advantage
from longflow.evaluation.best import (
    check_references,
    check_same_cases,
    comparable_models,
    member,
    rank,
    record_best,
    validation_folder,
)
from longflow.evaluation.references import peak_bytes, read_like
from longflow.evaluation.solvers import write_solvers
from longflow.evaluation.summary import Row, subject_means, summary
from longflow.methods.registry import method_class
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import DatasetPaths, ModelPaths
from longflow.tasks.translate.evaluation import INPUT
from longflow.tasks.translate.metrics import body_mae, untranslated
from longflow.tasks.translate.pairs import (
    ONE_GRID,
    TranslationPrediction,
    find_translation_pairs,
    translations_of_folder,
)
from longflow.tasks.translate.solvers import compare_solvers

#: the folder of out-of-fold translations below ``validation``
TRANSLATIONS = "translation"

#: volumes of float32: reference, one scan next to it, their difference in float64, the body
_VOLUMES_AT_PEAK = 10


def find_best(dataset: DatasetPaths, processes: int | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Choose the model with the lowest MAE in the body (mean over a subject's scans, both directions, then subjects).

    Writes best.json, best.csv (the models) and best_solvers.csv (the solvers of the best flow).

    :returns: content of best.json: ct (of each channel), ct_of_phases (the same by requested phase), candidate, members
        (method, plans_name, configuration, folds), reduction (None), shrinkage (1), solver and steps (None where the
        chosen model is no flow), body_mae (as validated), body_mae_of_solver (expected with the solver that prediction
        uses; None where there is none), interval, input_body_mae, advantage
        (:func:`longflow.evaluation.advantage.advantage`), folds, subjects, translations, table (a row for each model
        and for the untranslated scans, best first), solvers (of the best flow, as
        :func:`longflow.tasks.translate.solvers.compare_solvers` returns them; None without a flow).
    :raises NotFoundError: nothing is trained yet.
    :raises DataError: out-of-fold translations are missing or differ between models, or no reference shows a body.
    """
    models, folds = comparable_models(dataset, dataset.models())
    description = read_description(dataset.raw / "dataset.json")
    pairs = {model.folder.name: out_of_fold_translations(model, folds, dataset.raw, description) for model in models}
    check_same_cases({name: {pair.label: None for pair in own} for name, own in pairs.items()})
    phases = sorted({pair.target_phase for own in pairs.values() for pair in own})
    errors = _with_input({name: errors_of(own, description, processes, progress) for name, own in pairs.items()})
    means = _means_of_subjects(errors)
    table = [{**row, **_by_phase(errors[row["candidate"]])} for row in rank(means, "body_mae", "lower", (INPUT,))]
    of_candidate = {row["candidate"]: row for row in table}
    ranked = sorted(models, key=lambda model: list(of_candidate).index(model.folder.name))
    chosen, flow = ranked[0], next((model for model in ranked if method_class(model.method).integrates), None)
    solvers = compare_solvers(dataset, flow, pairs[flow.folder.name], description, progress) if flow else None
    own = of_candidate[chosen.folder.name]
    difference = solvers["difference"] if solvers and chosen == flow else None
    best = {
        "dataset": dataset.name,
        "task": "translate",
        "ct": description.is_ct,
        "ct_of_phases": {phase: description.is_ct_of(phase) for phase in phases},
        "candidate": chosen.folder.name,
        "members": [member(chosen, folds)],
        "reduction": None,
        "shrinkage": 1.0,
        "solver": solvers["solver"] if solvers and chosen == flow else None,
        "steps": solvers["steps"] if solvers and chosen == flow else None,
        "body_mae": own["body_mae"],
        "body_mae_of_solver": None if difference is None else own["body_mae"] + difference,
        "interval": None if own["from"] is None else [own["from"], own["to"]],
        "input_body_mae": of_candidate[INPUT]["body_mae"],
        "advantage": _advantage_over_input(means),
        "folds": folds,
        "subjects": len({pair.subject for pair in pairs[chosen.folder.name]}),
        "translations": len(pairs[chosen.folder.name]),
        "table": table,
        "solvers": solvers,
    }
    write_solvers(solvers, dataset.best_solvers)
    return record_best(dataset, best)


def out_of_fold_translations(
    model: ModelPaths, folds: Sequence[int], raw: Path, description: DatasetDescription
) -> list[TranslationPrediction]:
    """List the out-of-fold translations of a model with their references, fold by fold.

    :raises DataError: a fold has none, or a reference is missing.
    """
    pairs: list[TranslationPrediction] = []
    for fold in folds:
        translations = translations_of_folder(validation_folder(model, fold, TRANSLATIONS), description)
        of_fold, without = find_translation_pairs(translations, [raw / "imagesTr"], description)
        check_references(without, raw / "imagesTr")
        pairs += [replace(pair, fold=fold) for pair in of_fold]
    return pairs


def errors_of(
    pairs: Sequence[TranslationPrediction],
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure the MAE in the body.

    :returns: a row for each translation: subject, target_phase, body_mae, input_body_mae.
    """
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, _VOLUMES_AT_PEAK) for pair in pairs])
    work = partial(error_of_pair, description=description)
    answers = dict(for_each_subject(work, {pair.label: pair for pair in pairs}, fitting, progress))
    return [answers[pair.label] for pair in pairs]


def error_of_pair(pair: TranslationPrediction, description: DatasetDescription) -> Row:
    """Measure one translation and the scan that it was made from; None where there is no body.

    :raises DataError: the phases are on different grids, or a file cannot be read.
    """
    reference = read_scan(pair.reference)
    ct = description.is_ct_of(pair.target_phase)
    body = body_of_scan(reference.array, ct)
    translation, source = (
        read_like(files, reference, pair.reference[0], ONE_GRID).array for files in (pair.images, pair.source_images)
    )
    source = untranslated(source, reference.array, body, description)
    place = {"subject": pair.subject, "target_phase": pair.target_phase}
    errors = [body_mae(volume, reference.array, body, ct) for volume in (translation, source)]
    return {**place, "body_mae": errors[0], "input_body_mae": errors[1]}


def _with_input(rows: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the errors of each model and of the untranslated scans, as ``error``."""
    (first, *_) = rows.values()
    errors = {name: [{**row, "error": row["body_mae"]} for row in own] for name, own in rows.items()}
    return {**errors, INPUT: [{**row, "error": row["input_body_mae"]} for row in first]}


def _means_of_subjects(errors: Mapping[str, list[Row]]) -> dict[str, dict[str, float]]:
    """Return the mean error of each subject, by candidate; the same subjects for all.

    :raises DataError: no scan shows a body.
    """
    means = {
        candidate: subject_means([row["subject"] for row in own], [row["error"] for row in own])
        for candidate, own in errors.items()
    }
    if not all(means.values()):
        raise DataError(
            f"No body is found in any of the {len(errors[INPUT])} validation scans that translations are compared "
            "with. Are they empty, or is dataset.json wrong in calling the channel CT?"
        )
    return means


def _advantage_over_input(means: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Estimate with which probability the choice is better than the untranslated scans."""
    candidates, subjects = list(means), sorted(means[INPUT])
    errors = np.array([[means[candidate][subject] for subject in subjects] for candidate in candidates])
    return advantage(errors, [candidates.index(INPUT)], INPUT)


def _by_phase(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean error into each phase, as columns."""
    means = {}
    for phase in sorted({row["target_phase"] for row in rows}):
        own = [row for row in rows if row["target_phase"] == phase]
        means[f"body_mae to {phase}"] = summary([row["subject"] for row in own], [row["error"] for row in own])["mean"]
    return means
