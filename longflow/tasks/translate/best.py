"""Choose what to translate with: the model, or the ensemble of two, with the lowest MAE in the body, and its solver.

A model is used with all its finished folds, whose translations prediction averages; an ensemble averages those of two
models, as a flow and a regression. Of the best flow, the solver is then chosen on validation pairs too
(:mod:`longflow.tasks.translate.solvers`). An ensemble keeps the solvers with which its models were validated. All
candidates are compared with the untranslated scan: it is none itself, but a model that is no better than it should not
be used.

Restriction: candidate and solver are chosen on the validation data that they are judged on, and each fold kept the
weights that were best there. So the numbers are a little better than those of new subjects, which imagesTs is for. The
``nested`` figures are free of the choice among candidates: it is repeated without the subjects of each fold, and judged
on them. Models are compared as they were validated, with the solver of their plans. Prediction uses the chosen solver,
so its expected error is recorded, too: the validated one plus the difference of both solvers on the same slices.
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
from longflow.evaluation.ensembles import means_of_two, nested_estimate
from longflow.evaluation.references import Files, peak_bytes, read_like
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


def find_best(
    dataset: DatasetPaths, processes: int | None = None, progress: Progress | None = None, ensembles: bool = True
) -> dict[str, Any]:
    """Choose what has the lowest MAE in the body (mean over a subject's scans, both directions, then subjects).

    Writes best.json, best.csv (the candidates) and best_solvers.csv (the solvers of the best flow).

    :param ensembles: whether means of two models are candidates, too.
    :returns: content of best.json: ct (of each channel), ct_of_phases (the same by requested phase), candidate, members
        (method, plans_name, configuration, folds), reduction (None), shrinkage (1), solver and steps (None where the
        chosen candidate is no flow alone), body_mae (as validated), body_mae_of_solver (expected with the solver that
        prediction uses; None where there is none), interval, nested, input_body_mae, advantage
        (:func:`longflow.evaluation.advantage.advantage`), folds, subjects, translations, table (a row for each
        candidate and for the untranslated scans, best first), solvers (of the best flow, as
        :func:`longflow.tasks.translate.solvers.compare_solvers` returns them; None without a flow).
    :raises NotFoundError: nothing is trained yet.
    :raises DataError: out-of-fold translations are missing or differ between models, or no reference shows a body.
    """
    models, folds = comparable_models(dataset, dataset.models())
    description = read_description(dataset.raw / "dataset.json")
    names = [model.folder.name for model in models]
    pairs = {
        name: out_of_fold_translations(model, folds, dataset.raw, description)
        for name, model in zip(names, models, strict=True)
    }
    _check_same_directions(pairs)
    check_same_cases({name: {pair.label: None for pair in own} for name, own in pairs.items()})
    phases = sorted({pair.target_phase for own in pairs.values() for pair in own})
    candidates = {name: (number,) for number, name in enumerate(names)} | (means_of_two(names) if ensembles else {})
    measured = errors_of(list(pairs.values()), candidates, description, processes, progress)
    errors = _with_input(measured)
    means = _means_of_subjects(errors)
    table = [{**row, **_by_phase(errors[row["candidate"]])} for row in rank(means, "body_mae", "lower", (INPUT,))]
    of_candidate = {row["candidate"]: row for row in table}
    chosen = next(name for name in of_candidate if name in candidates)
    ranked = sorted(models, key=lambda model: list(of_candidate).index(model.folder.name))
    flow = next((model for model in ranked if method_class(model.method).integrates), None)
    solvers = compare_solvers(dataset, flow, pairs[flow.folder.name], description, progress) if flow else None
    used = solvers if solvers and flow.folder.name == chosen else None
    own = of_candidate[chosen]
    difference = used["difference"] if used else None
    best = {
        "dataset": dataset.name,
        "task": "translate",
        "ct": description.is_ct,
        "ct_of_phases": {phase: description.is_ct_of(phase) for phase in phases},
        "candidate": chosen,
        "members": [member(models[number], folds) for number in candidates[chosen]],
        "reduction": None,
        "shrinkage": 1.0,
        "solver": used["solver"] if used else None,
        "steps": used["steps"] if used else None,
        "body_mae": own["body_mae"],
        "body_mae_of_solver": None if difference is None else own["body_mae"] + difference,
        "interval": None if own["from"] is None else [own["from"], own["to"]],
        "nested": nested_estimate(_by_fold(measured), "body_mae", "lower") if len(candidates) > 1 else None,
        "input_body_mae": of_candidate[INPUT]["body_mae"],
        "advantage": _advantage_over_input(means),
        "folds": folds,
        "subjects": len({pair.subject for pair in pairs[names[0]]}),
        "translations": len(pairs[names[0]]),
        "table": table,
        "solvers": solvers,
    }
    write_solvers(solvers, dataset.best_solvers)
    return record_best(dataset, best)


def _check_same_directions(pairs: Mapping[str, Sequence[TranslationPrediction]]) -> None:
    """Check that models translate to the same phases.

    :raises DataError: they were trained with other values of the option ``direction``.
    """
    (first, expected), *others = ((name, sorted({one.target_phase for one in own})) for name, own in pairs.items())
    for name, found in others:
        if found != expected:
            raise DataError(
                f"{first} translates to {' and '.join(expected)}, {name} to {' and '.join(found)}: they were trained "
                "with other values of the option direction (longflow_train --set direction=...), so they cannot be "
                "compared. Train both with the same value, or take the folder of one out of the results."
            )


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
    pairs: Sequence[Sequence[TranslationPrediction]],
    candidates: Mapping[str, Sequence[int]],
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, list[Row]]:
    """Measure the MAE in the body of each candidate.

    :param pairs: out-of-fold translations of each model; the same cases for all.
    :param candidates: positions of the models whose translations are averaged, by name.
    :returns: of each candidate a row for each translation: subject, fold, target_phase, body_mae, input_body_mae.
    """
    of_models = [{pair.label: pair.images for pair in own} for own in pairs]
    targets = {pair.label: (pair, [files[pair.label] for files in of_models]) for pair in pairs[0]}
    volumes = _VOLUMES_AT_PEAK + len(pairs)
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, volumes) for pair in pairs[0]])
    work = partial(errors_of_target, candidates=candidates, description=description)
    answers = dict(for_each_subject(work, targets, fitting, progress))
    return {name: [answers[label][name] for label in targets] for name in candidates}


def errors_of_target(
    target: tuple[TranslationPrediction, Sequence[Files]],
    candidates: Mapping[str, Sequence[int]],
    description: DatasetDescription,
) -> dict[str, Row]:
    """Measure the translations of a scan and the scan itself; an error is None where there is no body.

    :param target: the translation by the first model, and the files of all models' translations.
    :returns: a row of each candidate.
    :raises DataError: the phases are on different grids, or a file cannot be read.
    """
    pair, files_of_models = target
    reference = read_scan(pair.reference)
    ct = description.is_ct_of(pair.target_phase)
    body = body_of_scan(reference.array, ct)
    source, *translations = (
        read_like(files, reference, pair.reference[0], ONE_GRID).array
        for files in (pair.source_images, *files_of_models)
    )
    source = untranslated(source, reference.array, body, description)
    place = {"subject": pair.subject, "fold": pair.fold, "target_phase": pair.target_phase}
    place["input_body_mae"] = body_mae(source, reference.array, body, ct)
    rows = {}
    for name, members in candidates.items():
        mean = np.mean([translations[number] for number in members], axis=0, dtype=np.float32)
        rows[name] = {**place, "body_mae": body_mae(mean, reference.array, body, ct)}
    return rows


def _by_fold(errors: Mapping[str, Sequence[Row]]) -> dict[str, dict[tuple[int, str], float]]:
    """Return the MAE of each candidate by fold and subject: mean over scans in both directions."""
    return {
        name: subject_means([(row["fold"], row["subject"]) for row in own], [row["body_mae"] for row in own])
        for name, own in errors.items()
    }


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
