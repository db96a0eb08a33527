"""The box to which all scans of a subject are cropped."""

from collections.abc import Iterable

import numpy as np

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
    filled = [np.flatnonzero(union.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return [[int(places[0]), int(places[-1]) + 1] for places in filled]


def box_slices(box: Box) -> tuple[slice, slice, slice]:
    """Convert a box to slices for the last three axes: ``array[(..., *box_slices(box))]``."""
    return tuple(slice(start, stop) for start, stop in box)
