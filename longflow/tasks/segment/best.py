"""Choose what to segment with: the model, or the ensemble of two, with the highest Dice on the cross-validation.

A model is used with all its finished folds, whose logits prediction averages. Of an ensemble, the probabilities of both
models are averaged on the grid of the scan; those of out-of-fold scans are kept (:mod:`.probabilities`). Then it is
decided, as in nnU-Net, whether structures keep their largest component alone (:mod:`.keep_largest`), and how volumes
are corrected (:mod:`.calibration`).

Training keeps the last weights, so a fold's predictions were not chosen on its validation subjects. The optimism that
remains is the choice among the candidates: the best of several is a little lucky. So the choice is repeated without the
subjects of each fold and judged on them: the ``nested`` figures. The intervals of the differences show whether it rests
on more than chance. Components are decided on the same subjects, too; the figures that say what they gain are a little
optimistic.
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
from longflow.evaluation.ensembles import means_of_two, nested_estimate
from longflow.evaluation.references import peak_bytes
from longflow.evaluation.summary import Row, summary
from longflow.files import file_digest
from longflow.methods.registry import method_class
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import read_plans
from longflow.tasks.segment.calibration import calibrate_volumes
from longflow.tasks.segment.evaluation import mean_over_structures, subject_values
from longflow.tasks.segment.keep_largest import Step, choose_steps, keep_largest
from longflow.tasks.segment.label_maps import (
    LabelMaps,
    LabelPrediction,
    Structures,
    find_label_pairs,
    read_label_maps,
)
from longflow.tasks.segment.overlap import dice, with_agreed_absence
from longflow.tasks.segment.probabilities import probability_file, write_missing

#: the folder of out-of-fold label maps below ``validation``
LABELS = "labels"

#: volumes of 4 bytes per voxel: two label maps and masks
_VOLUMES_AT_PEAK = 5


def find_best(
    dataset: DatasetPaths, processes: int | None = None, progress: Progress | None = None, ensembles: bool = True
) -> dict[str, Any]:
    """Choose what has the highest mean Dice (over structures, then subjects); write best.json and best.csv.

    :param ensembles: whether means of two models are candidates, too.
    :returns: content of best.json: candidate, members (method, plans_name, configuration, folds), reduction (None),
        shrinkage (1), dice, interval, nested, folds, subjects, scans, table (a row for each candidate, best first);
        keep_largest: digests of the weights, the steps, and the Dice after them; volume_calibration: digests of the
        weights, and how the volumes of each structure are corrected.
    :raises NotFoundError: no model that segments is trained yet; models for pretraining alone do not count.
    :raises DataError: out-of-fold label maps are missing or differ between models in scans, or none has a structure.
    """
    models, folds = comparable_models(dataset, _segmenting_models(dataset))
    description = read_description(dataset.raw / "dataset.json")
    structures = Structures.of(description)
    pairs = {model.folder.name: out_of_fold_label_maps(model, folds, dataset.raw, description) for model in models}
    check_same_cases({name: {pair.label: None for pair in own} for name, own in pairs.items()})
    members = {model.folder.name: (model,) for model in models}
    if ensembles and len(models) > 1:
        for name, both in _ensembles(models).items():
            members[name] = both
            pairs[name] = _averaged(dataset, both, pairs[both[0].folder.name], progress)
    measured = {name: _measure(own, structures, (), (), processes, progress)[None] for name, own in pairs.items()}
    rows = with_agreed_absence(measured)
    means = {name: subject_values(own, "dice") for name, own in rows.items()}
    if not all(means.values()):
        raise DataError(
            f"No structure is in any of the {len(next(iter(pairs.values())))} validation scans of folds "
            f"{first_few(folds)}, neither in the label maps nor in the references."
        )
    table = [{**row, **_by_structure(rows[row["candidate"]])} for row in rank(means, "dice", "higher", ())]
    chosen = table[0]["candidate"]
    steps, kept = choose_steps(
        structures.values,
        lambda accepted, tried: _measure(pairs[chosen], structures, accepted, tried, processes, progress),
        len(means[chosen]),
    )
    weights = [file_digest(model.fold(fold).final) for model in members[chosen] for fold in folds]
    best = {
        "dataset": dataset.name,
        "task": "segment",
        "candidate": chosen,
        "members": [member(model, folds) for model in members[chosen]],
        "reduction": None,
        "shrinkage": 1.0,
        "dice": table[0]["dice"],
        "interval": summary(list(means[chosen]), list(means[chosen].values()))["interval"],
        "nested": nested_estimate(_by_fold(rows), "dice", "higher") if len(rows) > 1 else None,
        "folds": folds,
        "subjects": len(means[chosen]),
        "scans": len(pairs[chosen]),
        "table": table,
        "keep_largest": {
            "weights": weights,
            "steps": [list(step) for step in steps],
            "dice": _dice_after(kept, measured[chosen]),
        },
        "volume_calibration": {"weights": weights, "structures": _calibrations(kept)},
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


def _ensembles(models: Sequence[ModelPaths]) -> dict[str, tuple[ModelPaths, ModelPaths]]:
    """List the ensembles of two models with the same labels."""
    labels = [(plans.labels, plans.regions_class_order) for plans in (read_plans(model.plans) for model in models)]
    names = [model.folder.name for model in models]
    means = means_of_two(names, lambda one, other: labels[one] == labels[other])
    return {name: (models[one], models[other]) for name, (one, other) in means.items()}


def _averaged(
    dataset: DatasetPaths,
    models: Sequence[ModelPaths],
    pairs: Sequence[LabelPrediction],
    progress: Progress | None = None,
) -> list[LabelPrediction]:
    """Return the out-of-fold scans of an ensemble: their files are the probabilities of its models.

    :param pairs: those of one of the models.
    """
    for model in models:
        write_missing(dataset, model, pairs, progress)
    return [
        replace(pair, images=tuple(probability_file(model, pair.fold, pair.case) for model in models)) for pair in pairs
    ]


def _measure(
    pairs: Sequence[LabelPrediction],
    structures: Structures,
    accepted: Sequence[Step],
    tried: Sequence[Step],
    processes: int | None,
    progress: Progress | None,
) -> dict[Step | None, list[Row]]:
    """Measure Dice and volumes of label maps, in parallel.

    :param accepted: structures of which the largest component is kept.
    :param tried: further ones, each tried after these.
    :returns: rows (:func:`dice_of_pair`) under each of the tried ones, and under None without them.
    """
    # an ensemble also has a byte of each output in a model, two of the sum
    volumes = _VOLUMES_AT_PEAK + (0 if len(pairs[0].images) == 1 else 1 + len(structures.values))
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, volumes) for pair in pairs])
    work = partial(dice_of_pair, structures=structures, accepted=accepted, tried=tried)
    answers = dict(for_each_subject(work, {pair.label: pair for pair in pairs}, fitting, progress))
    return {step: [row for pair in pairs for row in answers[pair.label][step]] for step in (None, *tried)}


def dice_of_pair(
    pair: LabelPrediction, structures: Structures, accepted: Sequence[Step] = (), tried: Sequence[Step] = ()
) -> dict[Step | None, list[Row]]:
    """Measure one label map.

    :param accepted: structures of which the largest component is kept.
    :param tried: further ones, each tried after these.
    :returns: under None, and under each of the tried steps, a row for each structure (of a step, for its structures):
        subject, fold, structure, dice (None where it is in neither prediction nor reference), predicted_ml,
        reference_ml (None where the reference is not known everywhere).
    """
    maps = read_label_maps(pair, structures)
    maps.prediction = keep_largest(maps.prediction, accepted, structures.values)
    rows: dict[Step | None, list[Row]] = {None: _rows_of_maps(pair, maps, structures.values)}
    for step in tried:
        after = replace(maps, prediction=keep_largest(maps.prediction, [step], structures.values))
        rows[step] = _rows_of_maps(pair, after, {name: structures.values[name] for name in step})
    return rows


def _rows_of_maps(pair: LabelPrediction, maps: LabelMaps, values: Mapping[str, Sequence[int]]) -> list[Row]:
    voxel_ml, whole = np.prod(maps.geometry.array_spacing) / 1000, maps.known.all()
    rows = []
    for name, own in values.items():
        masks = maps.masks(own)
        overlap = dice(masks.prediction, masks.reference)
        compared = {"predicted_ml": masks.prediction, "reference_ml": masks.reference}
        volumes = {column: float(mask.sum() * voxel_ml) if whole else None for column, mask in compared.items()}
        rows.append({"subject": pair.subject, "fold": pair.fold, "structure": name, "dice": overlap, **volumes})
    return rows


def _by_fold(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[tuple[int, str], float]]:
    """Return the Dice of each candidate by fold and subject: mean over scans, then structures."""
    folds = dict.fromkeys(row["fold"] for row in next(iter(rows.values())))
    return {
        name: {
            (fold, subject): value
            for fold in folds
            for subject, value in subject_values([row for row in own if row["fold"] == fold], "dice").items()
        }
        for name, own in rows.items()
    }


def _dice_after(rows: Sequence[Row], before: Sequence[Row]) -> float | None:
    """Return the mean Dice of label maps from which components were removed."""
    agreed = with_agreed_absence({"after": rows, "before": before})
    return mean_over_structures(agreed["after"], "dice")["mean"]


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
