"""Choose the best of several models on their cross-validation: what the choice of every task has in common."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from longflow.errors import DataError, NotFoundError, first_few
from longflow.evaluation.metric import Better
from longflow.evaluation.significance import compared_with_best
from longflow.evaluation.summary import Row, paired_summary, summary
from longflow.files import write_csv, write_json
from longflow.paths import DatasetPaths, ModelPaths

logger = logging.getLogger(__name__)


def comparable_models(dataset: DatasetPaths, models: Sequence[ModelPaths]) -> tuple[list[ModelPaths], list[int]]:
    """Select the models with the most finished folds; others are excluded with a warning.

    Models can only be compared on the same cases, hence on the same folds.

    :returns: the models, and their folds.
    :raises NotFoundError: there is no model.
    """
    if not models:
        raise NotFoundError(
            f"No model of {dataset.name} is trained to its end: nothing found in {dataset.results.resolve()}. "
            f"First run, for example: longflow_train {dataset.id} 3d_fullres 0"
        )
    folds = max((model.finished_folds() for model in models), key=len)
    for model in models:
        if (finished := model.finished_folds()) != folds:
            logger.warning(
                "%s is excluded: its finished folds are %s, those that are compared are %s.",
                *(model.folder.name, ", ".join(map(str, finished)), ", ".join(map(str, folds))),
            )
    return [model for model in models if model.finished_folds() == folds], folds


def validation_folder(model: ModelPaths, fold: int, name: str) -> Path:
    """Return the folder of the out-of-fold predictions of a fold.

    :raises DataError: it does not exist.
    """
    folder = model.fold(fold).validation(name)
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist. longflow_train writes the predictions of the validation scans when a fold ends: "
            f"run it again for {model.method}, {model.configuration}, fold {fold}."
        )
    return folder


def check_references(without: Sequence[str], folder: Path) -> None:
    """Check that every out-of-fold prediction has its reference.

    :param without: cases that have none.
    :param folder: where references are expected.
    :raises DataError: one has none.
    """
    if without:
        raise DataError(f"{folder} lacks the references of validation scans: {first_few(without)}.")


def check_same_cases(cases: Mapping[str, Mapping[str, object]]) -> None:
    """Check that models were validated on the same cases, predicted from the same scans.

    :param cases: of each model by its name: for each case what it was predicted from.
    :raises DataError: two models differ.
    """
    (first, expected), *others = cases.items()
    for name, found in others:
        if different := sorted(expected.keys() ^ found.keys()) or [
            case for case in expected if expected[case] != found[case]
        ]:
            raise DataError(
                f"{first} and {name} were not validated on the same scans ({first_few(different)}), so they cannot be "
                "compared. Were splits, times, labels or scans changed between the two trainings? Then train the older "
                "one again. Do their plans differ in sequence_length? Then take the folder of one out of the results."
            )


def rank(values: Mapping[str, Mapping[str, float]], name: str, better: Better, baselines: Collection[str]) -> list[Row]:
    """Rank candidates by their mean over subjects, with paired differences to the best.

    All candidates have the same subjects, so a difference is that of the two means: ranking and differences agree.

    :param values: of each candidate: value by subject; the same subjects for all, at least one. Of equal candidates the
        first is better, so simpler ones come first.
    :param name: column of the mean.
    :param better: whether higher or lower values win.
    :param baselines: candidates that are ranked but are never the best.
    :returns: a row for each candidate, best first: candidate, mean and interval, difference to the best, its interval
        and p value (None of the best), corrected for all pairs of candidates.
    :raises ValueError: the subjects differ.
    """
    subjects = sorted(next(iter(values.values())))
    if any(sorted(of_one) != subjects for of_one in values.values()):
        raise ValueError("candidates have different subjects, so they cannot be ranked")
    sign = 1 if better == "lower" else -1
    overall = {one: summary(list(of_one), list(of_one.values())) for one, of_one in values.items()}
    ranked = sorted(values, key=lambda one: sign * overall[one]["mean"])  # stable: the first of equals
    best = next(one for one in ranked if one not in baselines)
    p_values = compared_with_best(values, best)
    rows = []
    for one in ranked:
        paired = paired_summary(
            subjects, *([values[candidate][subject] for subject in subjects] for candidate in (one, best))
        )
        low, high = overall[one]["interval"] or (None, None)
        difference_low, difference_high = paired["interval"] or (None, None)
        rows.append(
            {
                "candidate": one,
                name: overall[one]["mean"],
                "from": low,
                "to": high,
                "difference_to_best": paired["mean"],
                "difference_from": difference_low,
                "difference_to": difference_high,
                "p": p_values.get(one),
            }
        )
    return rows


def member(model: ModelPaths, folds: Sequence[int], options: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return a model and its folds as best.json names them.

    :param options: of a method that has nothing to train, where they differ from its defaults.
    """
    return {
        "method": model.method,
        "plans_name": model.plans_name,
        "configuration": model.configuration,
        "folds": list(folds),
        **({"options": dict(options)} if options else {}),
    }


def record_best(dataset: DatasetPaths, best: dict[str, Any]) -> dict[str, Any]:
    """Write best.json, and its ``table`` as best.csv; return the content of best.json."""
    write_csv(list(best["table"][0]), best["table"], dataset.best_table)
    write_json(best, dataset.best)
    return best
