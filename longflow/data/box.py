"""The box to which all scans of a subject are cropped."""

from collections.abc import Iterable

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import get_bbox_from_mask

#: [start, stop] for each spatial axis, voxels
Box = list[list[int]]


def nonzero_box(scans: Iterable[np.ndarray]) -> Box:
    """Find the smallest box with every voxel that is not 0 in any channel of any scan.

    :param scans: (channels, z, y, x) each, on one grid.
    :returns: [start, stop] for z, y, x; the whole grid where all voxels are 0.
    """
    union = None
    for scan in scans:
        nonzero = (scan != 0).any(axis=0)
        union = nonzero if union is None else union | nonzero
    if not union.any():
        return [[0, size] for size in union.shape]
    return [[int(start), int(stop)] for start, stop in get_bbox_from_mask(union)]


def box_slices(box: Box) -> tuple[slice, slice, slice]:
    """Convert a box to slices for the last three axes: ``array[(..., *box_slices(box))]``."""
    return tuple(slice(start, stop) for start, stop in box)
