"""Go from the file's grid to the plan's and back: transposition and resampling.

Arrays on the file's grid have axes (z, y, x); after ``transpose_forward`` they have the plan's. Where a shape does not
change, nothing is interpolated and voxels stay bit-identical.
"""

import math
from collections.abc import Sequence

import numpy as np

from longflow.data.images import Geometry, by_axis
from longflow.data.memory import check_memory
from longflow.nnunet import LABEL_RESAMPLING, resample, shape_at_spacing
from longflow.preprocessing.resampling import cubic_slabs


def transposed(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Reorder the last three axes.

    :param array: (channels, a, b, c).
    :param order: the present axis that becomes each new axis.
    :returns: a view.
    """
    return array.transpose(0, *(1 + axis for axis in order))


def inverse_order(order: Sequence[int]) -> list[int]:
    """Return the order of axes that undoes another."""
    return [int(axis) for axis in np.argsort(order)]


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> list[int]:
    """Return the voxels along each axis after resampling; at least one.

    :param shape: present voxels along each axis.
    :param spacing: present spacing, mm.
    :param target: new spacing, mm.
    :returns: new voxels along each axis.
    """
    return [max(1, int(size)) for size in shape_at_spacing(shape, spacing, target)]


def check_grid(shape: Sequence[int], volumes: int, file: object, geometry: Geometry) -> None:
    """Refuse a grid that memory cannot hold, as where a header claims a spacing of 100 m.

    :param shape: voxels along each axis after resampling.
    :param volumes: number of volumes on the grid, float32.
    :param file: the first of their files, for the message.
    :param geometry: its grid.
    :raises DataError: the grid has too many voxels.
    """
    found = f"{by_axis(geometry.size)} voxels of {by_axis(geometry.spacing)} mm, resampled to {by_axis(shape, 12)}"
    check_memory(4 * volumes * math.prod(shape), file, found)


def resample_image(
    image: np.ndarray, shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> np.ndarray:
    """Resample an image to another shape. Both spacings decide whether slices count as thick, as in nnU-Net.

    :param image: (channels, a, b, c).
    :param shape: new voxels along the last three axes.
    :param spacing: present spacing, mm.
    :param target: new spacing, mm.
    :returns: (channels, *shape), float32.
    """
    if list(image.shape[1:]) == list(shape):
        return image.astype(np.float32, copy=False)
    resampled = np.empty((len(image), *shape), dtype=np.float32)
    for part, values in cubic_slabs(image, shape, spacing, target):
        resampled[:, part] = values
    return resampled


def resample_labels(
    labels: np.ndarray, shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> np.ndarray:
    """Resample labels to another shape.

    :param labels: (a, b, c), integers.
    :param shape: new voxels along each axis.
    :param spacing: present spacing, mm.
    :param target: new spacing, mm.
    :returns: (*shape), int16.
    """
    if list(labels.shape) == list(shape):
        return labels.astype(np.int16, copy=False)
    resampled = resample(labels[None].astype(np.int16), shape, spacing, target, LABEL_RESAMPLING)
    return resampled[0].astype(np.int16, copy=False)
