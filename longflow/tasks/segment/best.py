"""Choose the model to segment with: the one with the highest Dice on the cross-validation.

One model is chosen, with all its finished folds, whose logits prediction averages. There are no ensembles of different
models: of their out-of-fold predictions only label maps are kept, and labels cannot be averaged.

Training keeps the last weights, so a fold's predictions were not chosen on its validation subjects. The optimism that
remains is the choice among the models: the best of several is a little lucky. The intervals of the differences show
whether it rests on more than chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription, read_description
from longflow.errors import DataError, NotFoundError, first_few
from longflow.evaluation.best import (
    check_references,
    check_same_cases,
    comparable_models,
    member,
    rank,
    record_best,
    validation_folder,
)
from longflow.evaluation.references import peak_bytes
from longflow.evaluation.summary import Row, summary
from longflow.files import file_digest
from longflow.methods.registry import method_class
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import DatasetPaths, ModelPaths
from longflow.tasks.segment.calibration import calibrate_volumes
from longflow.tasks.segment.evaluation import mean_over_structures, subject_values
from longflow.tasks.segment.label_maps import LabelPrediction, Structures, find_label_pairs, read_label_maps
from longflow.tasks.segment.overlap import dice

#: the folder of out-of-fold label maps below ``validation``
LABELS = "labels"

#: volumes of 4 bytes per voxel: two label maps and masks
_VOLUMES_AT_PEAK = 5


def find_best(dataset: DatasetPaths, processes: int | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Choose the model with the highest mean Dice (over structures, then subjects); write best.json and best.csv.

    :returns: content of best.json: candidate, members (method, plans_name, configuration, folds), reduction (None),
        shrinkage (1), dice, interval, folds, subjects, scans, table (a row for each model, best first), and
        volume_calibration: digests of the weights, and how the volumes of each structure are corrected.
    :raises NotFoundError: no model that segments is trained yet; models for pretraining alone do not count.
    :raises DataError: out-of-fold label maps are missing or differ between models in scans, or none has a structure.
    """
    models, folds = comparable_models(dataset, _segmenting_models(dataset))
    description = read_description(dataset.raw / "dataset.json")
    structures = Structures.of(description)
    pairs = {model.folder.name: out_of_fold_label_maps(model, folds, dataset.raw, description) for model in models}
    check_same_cases({name: {pair.label: None for pair in own} for name, own in pairs.items()})
    rows = with_agreed_absence(
        {name: dice_of_pairs(own, structures, processes, progress) for name, own in pairs.items()}
    )
    means = {name: subject_values(own, "dice") for name, own in rows.items()}
    if not all(means.values()):
        raise DataError(
            f"No structure is in any of the {len(next(iter(pairs.values())))} validation scans of folds "
            f"{first_few(folds)}, neither in the label maps nor in the references."
        )
    table = [{**row, **_by_structure(rows[row["candidate"]])} for row in rank(means, "dice", "higher", ())]
    chosen = next(model for model in models if model.folder.name == table[0]["candidate"])
    own = means[chosen.folder.name]
    best = {
        "dataset": dataset.name,
        "task": "segment",
        "candidate": chosen.folder.name,
        "members": [member(chosen, folds)],
        "reduction": None,
        "shrinkage": 1.0,
        "dice": table[0]["dice"],
        "interval": summary(list(own), list(own.values()))["interval"],
        "folds": folds,
        "subjects": len(own),
        "scans": len(pairs[chosen.folder.name]),
        "table": table,
        "volume_calibration": {
            "weights": [file_digest(chosen.fold(fold).final) for fold in folds],
            "structures": _calibrations(rows[chosen.folder.name]),
        },
    }
    return record_best(dataset, best)


def _segmenting_models(dataset: DatasetPaths) -> list[ModelPaths]:
    """The trained models that predict."""
    trained = dataset.models()
    segmenting = [model for model in trained if method_class(model.method).predicts]
    if trained and not segmenting:
        raise NotFoundError(
            f"All trained models of {dataset.name} are for pretraining: "
            f"{first_few(model.folder.name for model in trained)}. "
            f"Train one that segments, for example: longflow_train {dataset.id} 3d_fullres 0 -m unet_consistent "
            f"--pretrained {trained[0].method}"
        )
    return segmenting


def out_of_fold_label_maps(
    model: ModelPaths, folds: Sequence[int], raw: Path, description: DatasetDescription
) -> list[LabelPrediction]:
    """List the out-of-fold label maps of a model with their references, fold by fold.

    :raises DataError: a fold has none, or a reference is missing.
    """
    pairs: list[LabelPrediction] = []
    for fold in folds:
        folder = validation_folder(model, fold, LABELS)
        of_fold, without = find_label_pairs(folder, [raw / "labelsTr"], raw, description)
        check_references(without, raw / "labelsTr")
        pairs += [replace(pair, fold=fold) for pair in sorted(of_fold, key=lambda pair: pair.case)]
    return pairs


def dice_of_pairs(
    pairs: Sequence[LabelPrediction], structures: Structures, processes: int | None, progress: Progress | None
) -> list[Row]:
    """Measure Dice and volumes.

    :returns: a row for each label map and structure, as of :func:`dice_of_pair`.
    """
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, _VOLUMES_AT_PEAK) for pair in pairs])
    work = partial(dice_of_pair, structures=structures)
    answers = dict(for_each_subject(work, {pair.label: pair for pair in pairs}, fitting, progress))
    return [row for pair in pairs for row in answers[pair.label]]


def dice_of_pair(pair: LabelPrediction, structures: Structures) -> list[Row]:
    """Measure one label map.

    :returns: a row for each structure: subject, structure, dice (None where it is in neither prediction nor reference),
        predicted_ml, reference_ml (None where the reference is not known everywhere).
    """
    maps = read_label_maps(pair, structures)
    voxel_ml, whole = np.prod(maps.geometry.array_spacing) / 1000, maps.known.all()
    rows = []
    for name, values in structures.values.items():
        masks = maps.masks(values)
        overlap = dice(masks.prediction, masks.reference)
        compared = {"predicted_ml": masks.prediction, "reference_ml": masks.reference}
        volumes = {column: float(mask.sum() * voxel_ml) if whole else None for column, mask in compared.items()}
        rows.append({"subject": pair.subject, "structure": name, "dice": overlap, **volumes})
    return rows


def with_agreed_absence(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Give all models numbers of the same scans and structures: a structure that is rightly absent has a Dice of 1.

    The Dice is not defined where a structure is in neither prediction nor reference. Where another model invents the
    structure there, its Dice is 0. If the undefined ones were excluded, a model that invents would be compared with one
    that does not on different scans. Where no model invents it, there is nothing to tell models apart: it stays
    undefined for all.

    :param rows: of each model, in the same order of scans and structures.
    """
    told_apart = [any(row["dice"] is not None for row in of_place) for of_place in zip(*rows.values(), strict=True)]
    return {
        name: [
            {**row, "dice": 1.0} if told and row["dice"] is None else row
            for row, told in zip(own, told_apart, strict=True)
        ]
        for name, own in rows.items()
    }


def _calibrations(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """How the volumes of each structure are corrected."""
    known = [row for row in rows if row["reference_ml"] is not None]
    columns = ("subject", "predicted_ml", "reference_ml")
    return {
        name: calibrate_volumes(*([row[column] for row in known if row["structure"] == name] for column in columns))
        for name in dict.fromkeys(row["structure"] for row in rows)
    }


def _by_structure(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean Dice of each structure, as columns."""
    of_structure: dict[str, list[Row]] = {}
    for row in rows:
        of_structure.setdefault(row["structure"], []).append(row)
    return {f"dice {name}": mean_over_structures(own, "dice")["mean"] for name, own in of_structure.items()}
