"""Which model to translate with, and which solver: the lowest MAE in the body on the cross-validation.

One model is chosen, with all its finished folds, whose translations prediction averages. Of a flow, the solver is then
chosen on validation pairs too (:mod:`longflow.tasks.translate.solvers`). The untranslated scan stands beside all of
them: it is no candidate, but a model that is no better than it should not be used.

Restriction: model and solver are chosen on the validation data that they are judged on, and each fold kept the weights
that were best there. So the numbers are a little better than those of new subjects, which imagesTs is for. Models are
compared as they were validated, with the solver of their plans.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longflow.data.body import body_of_scan
from longflow.data.dataset import DatasetDescription, read_description
from longflow.data.images import read_scan
from longflow.errors import DataError, first_few
from longflow.evaluation.summary import Row, differences, subject_means, summary
from longflow.files import write_csv, write_json
from longflow.methods.registry import method_class
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import DatasetPaths, ModelPaths
from longflow.tasks.forecast.best import comparable_models
from longflow.tasks.forecast.pairs import peak_bytes
from longflow.tasks.translate.evaluation import INPUT, PairTask, read_on_grid
from longflow.tasks.translate.metrics import body_mae
from longflow.tasks.translate.pairs import find_translation_pairs, translations_of_folder
from longflow.tasks.translate.solvers import OutOfFold, compare_solvers

#: the folder of out-of-fold translations below ``validation``
TRANSLATIONS = "translation"

#: volumes of float32: truth, one scan beside it, their difference in float64, the body
_VOLUMES_AT_PEAK = 10


def find_best_translation(
    paths: DatasetPaths, processes: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Choose the model with the lowest MAE in the body (mean over a subject's scans, both directions, then subjects).

    Writes best.json, best.csv (the models) and best_solvers.csv (the solvers of the best flow).

    :returns: the content of best.json: ct (whether each channel is), candidate, members (method, plans_name,
        configuration, folds), reduction (None), shrinkage (1), solver and steps (None where the chosen model is no
        flow), body_mae, interval, input_body_mae, folds, subjects, translations, table (a row for each model and for
        the untranslated scans, best first), solvers (of the best flow, as
        :func:`longflow.tasks.translate.solvers.compare_solvers` returns it; None without one).
    :raises NotFoundError: nothing is trained yet.
    :raises DataError: out-of-fold translations are missing or differ between models, or no truth shows a body.
    """
    models, folds = comparable_models(paths, paths.models())
    description = read_description(paths.raw / "dataset.json")
    translations = {model: translations_of_model(model, folds, paths.raw, description) for model in models}
    _check_same_translations(translations)
    rows = {model: errors_of(translations[model], description, processes, progress) for model in models}
    table = _table(rows)
    ranked = sorted(models, key=lambda model: [row["candidate"] for row in table].index(model.folder.name))
    chosen, flow = ranked[0], next((model for model in ranked if method_class(model.method).integrates), None)
    solvers = compare_solvers(paths, flow, translations[flow], description, progress) if flow else None
    of_candidate = {row["candidate"]: row for row in table}
    own = of_candidate[chosen.folder.name]
    member = {
        "method": chosen.method,
        "plans_name": chosen.plans_name,
        "configuration": chosen.configuration,
        "folds": folds,
    }
    best = {
        "dataset": paths.name,
        "task": "translate",
        "ct": description.is_ct,
        "candidate": chosen.folder.name,
        "members": [member],
        "reduction": None,
        "shrinkage": 1.0,
        "solver": solvers["solver"] if solvers and chosen == flow else None,
        "steps": solvers["steps"] if solvers and chosen == flow else None,
        "body_mae": own["body_mae"],
        "interval": None if own["from"] is None else [own["from"], own["to"]],
        "input_body_mae": of_candidate[INPUT]["body_mae"],
        "folds": folds,
        "subjects": len({row["subject"] for row in rows[chosen]}),
        "translations": len(rows[chosen]),
        "table": table,
        "solvers": solvers,
    }
    write_csv(list(table[0]), table, paths.best_table)
    if solvers:
        write_csv(list(solvers["table"][0]), solvers["table"], paths.best_solvers)
    else:
        paths.best_solvers.unlink(missing_ok=True)  # of an earlier choice
    write_json(best, paths.best)
    return best


def translations_of_model(
    model: ModelPaths, folds: Sequence[int], raw: Path, description: DatasetDescription
) -> list[OutOfFold]:
    """The out-of-fold translations of a model beside the truth, fold by fold.

    :raises DataError: a fold has none, or the truth of one is gone.
    """
    found: list[OutOfFold] = []
    for fold in folds:
        folder = model.fold(fold).validation(TRANSLATIONS)
        if not folder.is_dir():
            raise DataError(
                f"{folder} does not exist. longflow_train writes the translations of the validation scans when a fold "
                f"ends: run it again for {model.method}, {model.configuration}, fold {fold}."
            )
        pairs, without = find_translation_pairs(
            translations_of_folder(folder, description), [raw / "imagesTr"], description
        )
        if without:
            raise DataError(f"{raw / 'imagesTr'} lacks the truth of validation translations: {first_few(without)}.")
        found += [OutOfFold(fold, pair) for pair in pairs]
    return found


def _check_same_translations(translations: dict[ModelPaths, list[OutOfFold]]) -> None:
    (first, expected), *others = translations.items()
    cases = {(one.fold, one.pair.translation.case) for one in expected}
    for model, found in others:
        if different := sorted(case for _, case in cases ^ {(one.fold, one.pair.translation.case) for one in found}):
            raise DataError(
                f"{first.folder.name} and {model.folder.name} were not validated on the same scans "
                f"({first_few(different)}), so they cannot be compared. Were splits or scans changed between the two "
                "trainings? Then train the older one again, or take its folder out of the results."
            )


def errors_of(
    translations: Sequence[OutOfFold],
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """A row for each translation: subject, target_phase, body_mae, input_body_mae."""
    # named for the progress bar; a user's own splits may validate a scan in several folds
    tasks = {f"{one.pair.translation.case}, fold {one.fold}": PairTask(one.pair, description) for one in translations}
    fitting = processes_that_fit(processes, [peak_bytes(one.pair.truth, _VOLUMES_AT_PEAK) for one in translations])
    answers = dict(for_each_subject(error_of_pair, tasks, fitting, progress))
    return [answers[name] for name in tasks]


def error_of_pair(task: PairTask) -> Row:
    """MAE in the body of one translation and of the scan that it was made from; None where there is no body.

    :raises DataError: the phases lie on different grids, or a file cannot be read.
    """
    pair, one, ct = task.pair, task.pair.translation, task.description.is_ct
    truth = read_scan(pair.truth)
    body = body_of_scan(truth.array, ct)
    found, untranslated = (
        body_mae(read_on_grid(files, truth, pair.truth[0]), truth.array, body, ct)
        for files in (one.images, pair.source)
    )
    place = {"subject": one.subject, "target_phase": one.target_phase}
    return {**place, "body_mae": found, "input_body_mae": untranslated}


def _table(rows: dict[ModelPaths, list[Row]]) -> list[Row]:
    """A row for each model and one for the untranslated scans, best first; differences to the best model by subject."""
    (first, *_) = rows.values()
    of_candidate = {
        model.folder.name: [{**row, "error": row["body_mae"]} for row in own] for model, own in rows.items()
    }
    of_candidate[INPUT] = [{**row, "error": row["input_body_mae"]} for row in first]
    means = {candidate: _subject_means(own) for candidate, own in of_candidate.items()}
    if not all(means.values()):
        raise DataError(
            f"No body is found in any of the {len(first)} validation scans that translations are compared with. Are "
            "they empty, or is dataset.json wrong in calling the channel CT?"
        )
    overall = {candidate: summary(list(one), list(one.values())) for candidate, one in means.items()}
    ranked = sorted(means, key=lambda candidate: (overall[candidate]["mean"], candidate))
    best = means[next(candidate for candidate in ranked if candidate != INPUT)]
    table = []
    for candidate in ranked:
        common = [subject for subject in means[candidate] if subject in best]
        paired = summary(common, differences([means[candidate][s] for s in common], [best[s] for s in common]))
        low, high = overall[candidate]["interval"] or (None, None)
        low_to_best, high_to_best = paired["interval"] or (None, None)
        own = of_candidate[candidate]
        table.append(
            {
                "candidate": candidate,
                "body_mae": overall[candidate]["mean"],
                "from": low,
                "to": high,
                "difference_to_best": paired["mean"],
                "difference_from": low_to_best,
                "difference_to": high_to_best,
                **{
                    f"body_mae to {phase}": _mean([row for row in own if row["target_phase"] == phase])
                    for phase in sorted({row["target_phase"] for row in own})
                },
            }
        )
    return table


def _subject_means(rows: Sequence[Row]) -> dict[str, float]:
    return subject_means([row["subject"] for row in rows], [row["error"] for row in rows])


def _mean(rows: Sequence[Row]) -> float | None:
    return summary([row["subject"] for row in rows], [row["error"] for row in rows])["mean"]
