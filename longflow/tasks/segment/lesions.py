"""Small multiple structures, counted: which lesions were found, and which of the found ones exist.

A lesion is a connected component, voxels that touch by face, edge or corner. The rule is that of the longitudinal MS
lesion segmentation challenge (Carass et al., NeuroImage 148, 2017): a true lesion is *detected* where any found voxel
lies in it, and a found lesion is *correct* where it has any voxel of a true one. So two true lesions that one found
lesion joins are both detected.
"""

from dataclasses import dataclass

import numpy as np
from skimage.measure import label

#: what each number means, in the order of tables; written beside every result
DEFINITIONS = {
    "lesion_precision": "share of the found lesions that overlap a true one; undefined where none was found",
    "lesion_recall": "share of the true lesions that overlap a found one; undefined where there is none",
    "lesion_f1": (
        "harmonic mean of both; 0 where lesions are in only one of truth and prediction, undefined where in neither"
    ),
}


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one structure in one scan.

    :param true: lesions of the truth; :param detected: those of them that were found.
    :param found: lesions of the prediction; :param correct: those of them that exist.
    """

    true: int
    detected: int
    found: int
    correct: int

    @property
    def precision(self) -> float | None:
        return self.correct / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        return self.detected / self.true if self.true else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        if not self.true and not self.found:
            return None
        if not self.detected:  # nor is anything correct
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def count_lesions(found: np.ndarray, true: np.ndarray) -> LesionCounts:
    """Lesions of two boolean masks (z, y, x) on one grid."""
    # of all voxels, only those around the structure need labels; a component is never cut by its own bounding box
    box = _bounding_box(found | true)
    found, true = found[box], true[box]
    in_found, number_found = label(found, return_num=True, connectivity=found.ndim)
    in_true, number_true = label(true, return_num=True, connectivity=true.ndim)
    overlap = found & true
    return LesionCounts(
        true=number_true,
        detected=len(np.unique(in_true[overlap])),
        found=number_found,
        correct=len(np.unique(in_found[overlap])),
    )


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0, 1))
    return tuple(box)
