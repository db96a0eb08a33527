"""How well two masks of one structure agree: Dice, IoU, and the distance of their surfaces.

Masks are boolean (z, y, x) on one grid. Where a number is not defined it is None, never a stand-in such as 0 or 1:

- Dice and IoU: the structure is in neither mask. (In one of them alone, both are 0: it was missed or invented.)
- HD95: the structure is missing in one of the masks, or in both: there is no surface to measure the distance to.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from longflow.errors import DataError

#: what each number means, in the order of tables; written beside every result
DEFINITIONS = {
    "dice": "2 |found ∩ true| / (|found| + |true|), 0 to 1; undefined where the structure is in neither",
    "iou": "|found ∩ true| / |found ∪ true|, 0 to 1; undefined where the structure is in neither",
    "hd95": (
        "mm; the larger of the two 95th percentiles, weighted by area, of the distances from each surface to the "
        "other (surface-distance); undefined where the structure is missing in one of them or in both"
    ),
}


def dice(found: np.ndarray, true: np.ndarray) -> float | None:
    """2 |A ∩ B| / (|A| + |B|), 0 to 1 (Dice, Ecology 26, 1945); None where both masks are empty.

    :raises DataError: the masks have different shapes.
    """
    _check_shapes(found, true)
    total = np.count_nonzero(found) + np.count_nonzero(true)
    return 2 * np.count_nonzero(found & true) / total if total else None


def iou(found: np.ndarray, true: np.ndarray) -> float | None:
    """|A ∩ B| / |A ∪ B|, 0 to 1 (the Jaccard index); None where both masks are empty.

    :raises DataError: the masks have different shapes.
    """
    _check_shapes(found, true)
    union = np.count_nonzero(found | true)
    return np.count_nonzero(found & true) / union if union else None


def hd95(found: np.ndarray, true: np.ndarray, spacing: Sequence[float]) -> float | None:
    """The 95th percentile of the Hausdorff distance in mm; None where a mask is empty.

    By DeepMind's surface-distance (Nikolov et al., arXiv:1809.04430): distances between surface elements, weighted by
    their areas; the larger of both directions. Of a single slice, contours are compared: the faces of the slice are no
    borders of the structure.

    :param spacing: mm, in the order of the array's axes (z, y, x).
    :raises DataError: the masks have different shapes.
    """
    from surface_distance import compute_robust_hausdorff, compute_surface_distances

    _check_shapes(found, true)
    if not found.any() or not true.any():
        return None
    if 1 in found.shape:
        flat = found.shape.index(1)
        found, true = found.squeeze(flat), true.squeeze(flat)
        spacing = [length for axis, length in enumerate(spacing) if axis != flat]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the library imports from SciPy by an older name
        distances = compute_surface_distances(true, found, list(spacing))
    return float(compute_robust_hausdorff(distances, 95))


def _check_shapes(found: np.ndarray, true: np.ndarray) -> None:
    if found.shape != true.shape:
        raise DataError(
            f"The masks to be compared have {found.shape} and {true.shape} voxels. Expected: two masks on one grid."
        )
