"""Keep the largest connected component, of all structures together and of each: where that is right, as in nnU-Net.

A network that finds an organ sometimes finds a second one elsewhere. Where a structure is one piece, everything but its
largest component can be removed. Where it has several pieces (lesions), that would be wrong. So it is decided on the
out-of-fold label maps, by nnU-Net's rule (Isensee et al., Nature Methods 18, 2021, and ``determine_postprocessing`` of
its code):

1. All structures together keep their largest component if the mean Dice rises and that of no structure falls.
2. Then each structure keeps its own if its Dice rises.

With fewer than ``FEWEST_SUBJECTS`` validated subjects nothing is removed, unlike in nnU-Net: Dice rises by chance
there, and what is removed can be a lesion.

Voxels belong together that touch by face, edge or corner; of components of one size, all are kept. Dice is the mean
over subjects, as everywhere here, not over scans.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longflow.errors import DataError
from longflow.evaluation.significance import FEWEST_FOR_A_VERDICT
from longflow.evaluation.summary import Row
from longflow.reading import read_json
from longflow.tasks.segment.evaluation import mean_over_structures
from longflow.tasks.segment.overlap import with_agreed_absence

#: below it, nothing is removed
FEWEST_SUBJECTS = FEWEST_FOR_A_VERDICT

#: the names of the structures that together keep their largest component
Step = tuple[str, ...]

#: measures the Dice of out-of-fold label maps: after the steps that were accepted, rows for each step that is tried
#: after them, and under None without a further one
Measure = Callable[[Sequence[Step], Sequence[Step]], Mapping[Step | None, Sequence[Row]]]


def keep_largest(labels: np.ndarray, steps: Sequence[Step], structures: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Remove all but the largest component of structures.

    :param labels: (z, y, x).
    :param steps: one after the other.
    :param structures: label values of each structure.
    :returns: (z, y, x), of the same type; what is removed is background.
    """
    if not steps:
        return labels
    from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component  # imports scikit-image

    for step in steps:
        mask = np.isin(labels, [value for name in step for value in structures[name]])
        labels = np.where(mask & ~remove_all_but_largest_component(mask), labels.dtype.type(0), labels)
    return labels


def choose_steps(
    structures: Mapping[str, Sequence[int]], measure: Measure, subjects: int
) -> tuple[list[Step], Sequence[Row]]:
    """Decide which structures keep their largest component alone.

    :param structures: label values of each structure.
    :param measure: of the label maps.
    :param subjects: how many were validated.
    :returns: the steps, and the rows of the label maps after them.
    """
    accepted: list[Step] = []
    for stage in _stages(structures) if subjects >= FEWEST_SUBJECTS else ():
        rows = measure(accepted, stage)
        accepted += [step for step in stage if _is_better(rows[step], rows[None])]
    return accepted, measure(accepted, [])[None]


def _stages(structures: Mapping[str, Sequence[int]]) -> list[list[Step]]:
    """Group steps that do not change each other's result: structures that share no label value."""
    everything, singles = tuple(structures), [(name,) for name in structures]
    if len(singles) == 1:
        return [[everything]]
    values = [value for own in structures.values() for value in own]
    share_values = len(set(values)) < len(values)
    return [[everything], *([[single] for single in singles] if share_values else [singles])]


def _is_better(rows: Sequence[Row], before: Sequence[Row]) -> bool:
    """Check that the mean Dice rises, and that of no structure falls.

    :param rows: after a step, of the structures that it is judged by.
    :param before: of all structures.
    """
    names = dict.fromkeys(row["structure"] for row in rows)
    both = with_agreed_absence({"after": rows, "before": [row for row in before if row["structure"] in names]})

    def means(*of: str) -> list[float | None]:
        return [
            mean_over_structures([row for row in own if row["structure"] in of], "dice")["mean"]
            for own in both.values()
        ]

    after, was = means(*names)
    if after is None or not after > was:
        return False
    return all(now is None or now >= then for now, then in (means(name) for name in names))


def recorded_steps(
    best: Path, candidate: str, weights: Sequence[str], structures: Mapping[str, Sequence[int]]
) -> tuple[Step, ...]:
    """Read which structures keep their largest component, as ``longflow_find_best`` decided it for a model.

    :param best: file of its record.
    :param candidate: name of the model's folder; of an ensemble, the names.
    :param weights: digests of the weights that predict: it was decided for them alone.
    :param structures: that the model segments.
    :returns: the steps; empty where there is no record, or one of another model or of other weights.
    :raises DataError: the record was changed.
    """
    record: dict[str, Any] = read_json(best, dict) if best.is_file() else {}
    found = record.get("keep_largest")
    if not found or record.get("candidate") != candidate or found.get("weights") != list(weights):
        return ()
    steps = found.get("steps")
    if not isinstance(steps, list) or not all(
        isinstance(step, list) and step and all(name in structures for name in step) for step in steps
    ):
        raise DataError(f"keep_largest in {best} is not what longflow_find_best writes. Run it again.")
    return tuple(map(tuple, steps))
