"""Which model to segment with: the one with the highest Dice on the cross-validation.

One model is chosen, with all its finished folds, whose logits prediction averages. There are no ensembles of different
models: of their out-of-fold predictions only label maps are kept, and labels cannot be averaged.

Training keeps the last weights, so a fold's predictions were not chosen on its validation subjects. What is left of
optimism is the choice among the models: the best of several is a little lucky. The intervals of the differences show
whether it rests on more than chance.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longflow.data.dataset import DatasetDescription, read_description
from longflow.errors import DataError, NotFoundError, first_few
from longflow.evaluation.summary import differences, summary
from longflow.files import write_csv, write_json
from longflow.methods.registry import method_class
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import DatasetPaths, ModelPaths
from longflow.tasks.forecast.best import comparable_models
from longflow.tasks.forecast.pairs import peak_bytes
from longflow.tasks.segment.evaluation import Row, mean_over_structures, subject_values
from longflow.tasks.segment.label_maps import LabelledScan, Structures, find_labelled_scans, read_label_maps
from longflow.tasks.segment.overlap import dice

#: the folder of out-of-fold label maps below ``validation``
LABELS = "labels"

#: volumes of 4 bytes per voxel: two label maps and masks
_VOLUMES_AT_PEAK = 5


def find_best_segmentation(
    paths: DatasetPaths, processes: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Choose the model with the highest mean Dice (over structures, then subjects); write best.json and best.csv.

    :returns: the content of best.json: candidate, members (method, plans_name, configuration, folds), reduction (None),
        shrinkage (1), dice, interval, folds, subjects, scans, table (a row for each model, best first).
    :raises NotFoundError: no model that segments is trained yet; models for pretraining alone are none.
    :raises DataError: out-of-fold label maps are missing or differ between models in scans, or none has a structure.
    """
    trained = paths.models()
    segmenting = [model for model in trained if method_class(model.method).predicts]
    if trained and not segmenting:
        raise NotFoundError(
            f"All trained models of {paths.name} are for pretraining: "
            f"{first_few(model.folder.name for model in trained)}. "
            f"Train one that segments, for example: longflow_train {paths.id} 3d_fullres 0 -m unet_consistent "
            f"--pretrained {trained[0].method}"
        )
    models, folds = comparable_models(paths, segmenting)
    description = read_description(paths.raw / "dataset.json")
    structures = Structures.of(description)
    scans = {model: scans_of_model(model, folds, paths.raw, description) for model in models}
    _check_same_scans(scans)
    rows = {model: dice_of_scans(scans[model], structures, processes, progress) for model in models}
    means = {model: subject_values(rows[model], "dice") for model in models}
    if not all(means.values()):
        raise DataError(
            f"No structure is in any of the {len(scans[models[0]])} validation scans of folds {first_few(folds)}, "
            "neither in the label maps nor in the truth."
        )
    table = _table(means, rows)
    chosen = next(model for model in models if model.folder.name == table[0]["candidate"])
    best = {
        "dataset": paths.name,
        "task": "segment",
        "candidate": chosen.folder.name,
        "members": [
            {
                "method": chosen.method,
                "plans_name": chosen.plans_name,
                "configuration": chosen.configuration,
                "folds": folds,
            }
        ],
        "reduction": None,
        "shrinkage": 1.0,
        "dice": table[0]["dice"],
        "interval": summary(list(means[chosen]), list(means[chosen].values()))["interval"],
        "folds": folds,
        "subjects": len(means[chosen]),
        "scans": len(scans[chosen]),
        "table": table,
    }
    write_csv(list(table[0]), table, paths.best_table)
    write_json(best, paths.best)
    return best


def scans_of_model(
    model: ModelPaths, folds: Sequence[int], raw: Path, description: DatasetDescription
) -> list[LabelledScan]:
    """The out-of-fold label maps of a model beside the truth, fold by fold.

    :raises DataError: a fold has none, or the truth of one is gone.
    """
    scans: list[LabelledScan] = []
    for fold in folds:
        folder = model.fold(fold).validation(LABELS)
        if not folder.is_dir():
            raise DataError(
                f"{folder} does not exist. longflow_train writes the label maps of the validation scans when a fold "
                f"ends: run it again for {model.method}, {model.configuration}, fold {fold}."
            )
        found, without_truth = find_labelled_scans(folder, [raw / "labelsTr"], raw, description)
        if without_truth:
            raise DataError(f"{raw / 'labelsTr'} lacks the truth of validation scans: {first_few(without_truth)}.")
        scans += sorted(found, key=lambda scan: scan.case)
    return scans


def _check_same_scans(scans: dict[ModelPaths, list[LabelledScan]]) -> None:
    (first, expected), *others = scans.items()
    for model, found in others:
        if different := sorted({scan.case for scan in expected} ^ {scan.case for scan in found}):
            raise DataError(
                f"{first.folder.name} and {model.folder.name} were not validated on the same scans "
                f"({first_few(different)}), so they cannot be compared. Were splits or labels changed between the two "
                "trainings? Then train the older one again, or take its folder out of the results."
            )


def dice_of_scans(
    scans: Sequence[LabelledScan], structures: Structures, processes: int | None, progress: Progress | None
) -> list[Row]:
    """A row for each scan and structure: subject, structure, dice."""
    # named for the progress bar; a user's own splits may validate a scan in several folds
    tasks = {f"{scan.case}, {scan.found.parents[2].name}": (scan, structures) for scan in scans}
    fitting = processes_that_fit(processes, [peak_bytes((scan.true,), _VOLUMES_AT_PEAK) for scan in scans])
    answers = dict(for_each_subject(dice_of_scan, tasks, fitting, progress))
    return [row for name in tasks for row in answers[name]]


def dice_of_scan(task: tuple[LabelledScan, Structures]) -> list[Row]:
    """The rows of one scan; Dice is None where a structure is in neither prediction nor truth."""
    scan, structures = task
    maps = read_label_maps(scan, structures)
    return [
        {"subject": scan.subject, "structure": name, "dice": dice(*maps.masks(values))}
        for name, values in structures.values.items()
    ]


def _table(means: dict[ModelPaths, dict[str, float]], rows: dict[ModelPaths, list[Row]]) -> list[Row]:
    """A row for each model, best first; its difference to the best one, paired by subject."""
    overall = {model: summary(list(one), list(one.values())) for model, one in means.items()}
    ranked = sorted(means, key=lambda model: (-overall[model]["mean"], model.folder.name))
    best = means[ranked[0]]
    table = []
    for model in ranked:
        common = [subject for subject in means[model] if subject in best]
        paired = summary(common, differences([means[model][s] for s in common], [best[s] for s in common]))
        of_structure: dict[str, list[Row]] = {}
        for row in rows[model]:
            of_structure.setdefault(row["structure"], []).append(row)
        low, high = overall[model]["interval"] or (None, None)
        low_to_best, high_to_best = paired["interval"] or (None, None)
        table.append(
            {
                "candidate": model.folder.name,
                "dice": overall[model]["mean"],
                "from": low,
                "to": high,
                "difference_to_best": paired["mean"],
                "difference_from": low_to_best,
                "difference_to": high_to_best,
                **{f"dice {name}": mean_over_structures(own, "dice")["mean"] for name, own in of_structure.items()},
            }
        )
    return table
