"""How well two masks of one structure agree: Dice, IoU, and the distance of their surfaces.

Masks are boolean (z, y, x) on one grid. Where a number is not defined it is None, never a stand-in such as 0 or 1:

- Dice and IoU: the structure is in neither mask. (In one of them alone, both are 0: it was missed or invented.)
- HD95: the structure is missing in one of the masks, or in both: there is no surface to measure the distance to.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from longflow.errors import DataError
from longflow.evaluation.metric import Compared, Metric
from longflow.evaluation.summary import Row


def dice(prediction: np.ndarray, reference: np.ndarray) -> float | None:
    """Compute 2 |A ∩ B| / (|A| + |B|), 0 to 1 (Dice, Ecology 26, 1945); None where both masks are empty.

    :raises DataError: the masks have different shapes.
    """
    _check_shapes(prediction, reference)
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(prediction & reference) / total if total else None


def iou(prediction: np.ndarray, reference: np.ndarray) -> float | None:
    """Compute |A ∩ B| / |A ∪ B|, 0 to 1 (the Jaccard index); None where both masks are empty.

    :raises DataError: the masks have different shapes.
    """
    _check_shapes(prediction, reference)
    union = np.count_nonzero(prediction | reference)
    return np.count_nonzero(prediction & reference) / union if union else None


def hd95(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> float | None:
    """Compute the 95th percentile of the Hausdorff distance in mm; None where a mask is empty.

    By DeepMind's surface-distance (Nikolov et al., arXiv:1809.04430): distances between surface elements, weighted by
    their areas; the larger of both directions. Of a single slice, contours are compared: the faces of the slice are no
    borders of the structure.

    :param spacing: mm, (z, y, x).
    :raises DataError: the masks have different shapes.
    """
    from surface_distance import compute_robust_hausdorff, compute_surface_distances

    _check_shapes(prediction, reference)
    if not prediction.any() or not reference.any():
        return None
    if 1 in prediction.shape:
        flat = prediction.shape.index(1)
        prediction, reference = prediction.squeeze(flat), reference.squeeze(flat)
        spacing = [length for axis, length in enumerate(spacing) if axis != flat]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the library imports from SciPy by an older name
        distances = compute_surface_distances(reference, prediction, list(spacing))
    return float(compute_robust_hausdorff(distances, 95))


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


def _check_shapes(prediction: np.ndarray, reference: np.ndarray) -> None:
    if prediction.shape != reference.shape:
        raise DataError(
            f"The masks to be compared have {prediction.shape} and {reference.shape} voxels. Expected: two masks on "
            "one grid."
        )


def _dice_of(masks: Compared) -> float | None:
    return dice(masks.prediction, masks.reference)


def _iou_of(masks: Compared) -> float | None:
    return iou(masks.prediction, masks.reference)


def _hd95_of(masks: Compared) -> float | None:
    return hd95(masks.prediction, masks.reference, masks.spacing)


DICE = Metric(
    *("dice", "segment", _dice_of),
    "2 |prediction ∩ reference| / (|prediction| + |reference|), 0 to 1; undefined where the structure is in neither",
    *("higher", "", "Dice"),
)
IOU = Metric(
    *("iou", "segment", _iou_of),
    "|prediction ∩ reference| / |prediction ∪ reference|, 0 to 1; undefined where the structure is in neither",
    *("higher", "", "IoU"),
)
HD95 = Metric(
    *("hd95", "segment", _hd95_of),
    "mm; the larger of the two 95th percentiles, weighted by area, of the distances from each surface to the other "
    "(surface-distance); undefined where the structure is missing in one of them or in both",
    *("lower", "mm", "HD95", ".2f"),
)
