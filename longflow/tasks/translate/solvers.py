"""Compare the solvers of a trained translation flow: table 5 of Medical Flow Matching on one's own data.

Each fold translates validation pairs that it was not trained on, with every solver, both ways. A few pairs and the
middle slices of each suffice to tell solvers apart, and are all that is affordable: together the solvers evaluate the
network 37 times. The numbers are those of these slices, which are translated as if they were the whole scan; so they
differ a little from those of whole scans, alike for all solvers.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from longflow.data.body import body_of_scan
from longflow.data.dataset import DatasetDescription
from longflow.data.images import Volume, read_scan
from longflow.evaluation.metric import compute_metrics
from longflow.evaluation.references import read_like
from longflow.evaluation.solvers import (
    ALIKE,
    Setting,
    cheapest_alike,
    predictions_of_solvers,
    rows_of_folds,
    settings_to_try,
)
from longflow.evaluation.summary import Row, subject_means
from longflow.inference.models import Models, load_models
from longflow.inference.selection import Member, Selection
from longflow.parallel import Progress
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import Solver
from longflow.spread import evenly_spaced
from longflow.tasks.translate.metrics import TRANSLATION_METRICS, TranslationVolumes, untranslated
from longflow.tasks.translate.pairs import ONE_GRID, TranslationPrediction
from longflow.tasks.translate.predictor import translate_scan

#: pairs that are translated at most, evenly over the folds; slices of each, or one 3D patch where that is deeper
MOST_PAIRS, SLICES = 8, 8


def compare_solvers(
    dataset: DatasetPaths,
    model: ModelPaths,
    pairs: Sequence[TranslationPrediction],
    description: DatasetDescription,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare the solvers of a model, and choose the best (:func:`best_solver`).

    :param pairs: out-of-fold translations of all its folds.
    :returns: candidate (the model's folder), solver and steps (None where no body is in the slices), validated (solver
        and steps of the out-of-fold translations), difference (MAE in the body of the chosen solver minus that of the
        validated one, on the same slices; None where one of them is not defined), pairs, slices (the
        number of each scan, from fewest to most), device, table: a row for each requested phase and solver, the
        untranslated scan first (solver None): target_phase, solver, steps, evaluations (of the network),
        seconds_per_slice and the metrics of the task, means over subjects.
    """
    chosen = chosen_scans(pairs)

    def load(fold: int) -> Models:
        return load_models(Selection(dataset, (Member(model, (fold,)),)), "translate")

    tried, validated = settings_to_try(load(chosen[0].fold))

    def rows_of(one: TranslationPrediction, models: Models, first: bool) -> list[Row]:
        return rows_of_scan(one, models, description, tried, warm_up=first)

    rows, device = rows_of_folds(chosen, load, rows_of, len(tried), progress)
    table = _table(rows)
    solver, steps = best_solver(table)
    slices = [row["slices"] for row in rows]
    return {
        "candidate": model.folder.name,
        "solver": solver,
        "steps": steps,
        "validated": list(validated),
        "difference": _difference(table, (solver, steps), validated),
        "pairs": len({_pair_of(one) for one in chosen}),
        "slices": [min(slices), max(slices)],
        "device": device,
        "table": table,
    }


def _pair_of(one: TranslationPrediction) -> tuple[int, str, float]:
    """What both directions of a pair share."""
    return one.fold, one.subject, one.time


def chosen_scans(pairs: Sequence[TranslationPrediction], most: int = MOST_PAIRS) -> list[TranslationPrediction]:
    """Pick both directions of at most ``most`` pairs, spread evenly over folds and subjects; results are not seen."""
    known = sorted({_pair_of(one) for one in pairs})
    kept = {known[index] for index in evenly_spaced(len(known), most)}
    return [one for one in pairs if _pair_of(one) in kept]


def rows_of_scan(
    one: TranslationPrediction,
    models: Models,
    description: DatasetDescription,
    tried: Sequence[Setting],
    warm_up: bool = False,
) -> list[Row]:
    """Measure the untranslated scan and every solver.

    :param models: a fold on its device.
    :param tried: solvers.
    :param warm_up: translate once before time is taken.
    :returns: a row for each.
    :raises DataError: the phases are on different grids, or a file cannot be read.
    """
    (member,) = models.members
    reference = read_scan(one.reference)
    source = read_like(one.source_images, reference, one.reference[0], ONE_GRID)
    inside = middle(source, models)
    part = _part(source, inside)
    ct = description.is_ct_of(one.target_phase)
    expected, body = reference.array[(..., *inside)], body_of_scan(reference.array, ct)[inside]
    slices = part.array.shape[1 + models.plans.transpose_forward[0]]
    phase = models.plans.phases.index(one.source_phase)

    def translated() -> np.ndarray:
        return translate_scan(member, part, phase, models.windows(member), one.source)

    def row(translation: np.ndarray, **how: Any) -> Row:
        place = {"case": one.case, "subject": one.subject, "target_phase": one.target_phase, "slices": slices}
        spacing = reference.geometry.array_spacing
        volumes = TranslationVolumes(translation, expected, spacing, body, ct)
        return {**place, **how, **compute_metrics(TRANSLATION_METRICS, volumes)}

    rows = [
        row(
            untranslated(part.array, expected, body, description),
            solver=None,
            steps=None,
            evaluations=0,
            seconds_per_slice=None,
        )
    ]
    for how, translation, seconds in predictions_of_solvers(models, tried, translated, warm_up):
        rows.append(row(translation, **how, seconds_per_slice=seconds / slices))
    return rows


def middle(scan: Volume, models: Models) -> tuple[slice, slice, slice]:
    """Return the middle slices of a scan, as an index of (z, y, x): ``SLICES``, or as many as a 3D patch is deep."""
    (member,) = models.members
    plan, axis = member.plans.configuration(member.configuration), member.plans.transpose_forward[0]
    depth = plan.tile[0] * plan.spacing[0] / scan.geometry.array_spacing[axis]  # of the patch, in the file's slices
    flat = len(plan.patch_size) == 2
    count = scan.array.shape[1 + axis]
    taken = min(count, SLICES if flat else max(SLICES, math.ceil(depth)))
    start = (count - taken) // 2
    index = [slice(None)] * 3
    index[axis] = slice(start, start + taken)
    return tuple(index)


def _part(scan: Volume, inside: tuple[slice, slice, slice]) -> Volume:
    array = scan.array[(..., *inside)]
    return Volume(array, replace(scan.geometry, size=array.shape[:0:-1]), scan.data_type)


def _table(rows: Sequence[Row]) -> list[Row]:
    """Means over subjects, by requested phase; solvers in the order in which they were tried."""
    table = []
    for phase in sorted({row["target_phase"] for row in rows}):
        of_phase = [row for row in rows if row["target_phase"] == phase]
        for solver, steps in dict.fromkeys((row["solver"], row["steps"]) for row in of_phase):
            own = [row for row in of_phase if (row["solver"], row["steps"]) == (solver, steps)]
            names = ("seconds_per_slice", *(metric.name for metric in TRANSLATION_METRICS))
            how = {"solver": solver, "steps": steps, "evaluations": own[0]["evaluations"]}
            table.append({"target_phase": phase, **how, **{name: _mean(own, name) for name in names}})
    return table


def _mean(rows: Sequence[Row], name: str) -> float | None:
    means = subject_means([row["subject"] for row in rows], [row[name] for row in rows])
    return float(np.mean(list(means.values()))) if means else None


def best_solver(table: Sequence[Row]) -> tuple[Solver | None, int | None]:
    """Choose the cheapest of the solvers whose MAE in the body, mean over directions, is the lowest or nearly.

    Errors that differ by a share of less than ``ALIKE`` count as equal.

    :returns: solver and steps; (None, None) where it is not defined in any direction.
    """
    errors = _errors(table)
    return cheapest_alike(errors, ALIKE * min(errors.values())) if errors else (None, None)


def _errors(table: Sequence[Row]) -> dict[Setting, float]:
    """The MAE in the body of each solver, mean over the directions in which it is defined."""
    measured: dict[Setting, list[float]] = {}
    for row in table:
        if row["solver"] is not None and row["body_mae"] is not None:
            measured.setdefault((row["solver"], row["steps"]), []).append(row["body_mae"])
    return {one: float(np.mean(of_directions)) for one, of_directions in measured.items()}


def _difference(table: Sequence[Row], chosen: tuple[Solver | None, int | None], validated: Setting) -> float | None:
    """The MAE in the body of the chosen solver minus that of the validated one."""
    errors = _errors(table)
    return errors[chosen] - errors[validated] if chosen in errors and validated in errors else None
