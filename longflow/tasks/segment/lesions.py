"""Small multiple structures, counted: which lesions were detected, and which of the predicted ones exist.

A lesion is a connected component, voxels that touch by face, edge or corner. The rule is that of the longitudinal MS
lesion segmentation challenge (Carass et al., NeuroImage 148, 2017): a reference lesion is *detected* where any
predicted voxel lies in it, and a predicted lesion is *correct* where it has any voxel of a reference lesion. So two
reference lesions that one predicted lesion joins are both detected.
"""

from dataclasses import dataclass

import numpy as np
from skimage.measure import label

#: what each number means, in the order of tables; written next to every result
LESION_DEFINITIONS = {
    "lesion_precision": "share of the predicted lesions that overlap a reference lesion; undefined where none was "
    "predicted",
    "lesion_recall": "share of the reference lesions that overlap a predicted one; undefined where there is none",
    "lesion_f1": (
        "harmonic mean of both; 0 where lesions are in only one of reference and prediction, undefined where in neither"
    ),
}


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one structure in one scan.

    :param reference: lesions of the reference.
    :param detected: those of them that the prediction overlaps.
    :param predicted: lesions of the prediction.
    :param correct: those of them that the reference overlaps.
    """

    reference: int
    detected: int
    predicted: int
    correct: int

    @property
    def precision(self) -> float | None:
        return self.correct / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        return self.detected / self.reference if self.reference else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        if not self.reference and not self.predicted:
            return None
        if not self.detected:  # nor is anything correct
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def count_lesions(prediction: np.ndarray, reference: np.ndarray) -> LesionCounts:
    """Count the lesions of two boolean masks (z, y, x) on one grid."""
    # of all voxels, only those around the structure need labels; a component is never cut by its own bounding box
    box = _bounding_box(prediction | reference)
    prediction, reference = prediction[box], reference[box]
    in_prediction, predicted = label(prediction, return_num=True, connectivity=prediction.ndim)
    in_reference, number = label(reference, return_num=True, connectivity=reference.ndim)
    overlap = prediction & reference
    return LesionCounts(
        reference=number,
        detected=len(np.unique(in_reference[overlap])),
        predicted=predicted,
        correct=len(np.unique(in_prediction[overlap])),
    )


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0, 1))
    return tuple(box)
