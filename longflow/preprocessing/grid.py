"""From the file's grid to the plan's and back: transposition and resampling.

Arrays on the file's grid have axes (z, y, x); after ``transpose_forward`` they have the plan's. Where a shape does not
change, nothing is interpolated and voxels stay equal to the bit.
"""

from collections.abc import Sequence

import numpy as np

from longflow.nnunet import IMAGE_RESAMPLING, LABEL_RESAMPLING, resample, shape_at_spacing


def transposed(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Reorder the last three axes of (channels, a, b, c)."""
    return array.transpose(0, *(1 + axis for axis in order))


def inverse_order(order: Sequence[int]) -> list[int]:
    """The order of axes that undoes another."""
    return [int(axis) for axis in np.argsort(order)]


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> list[int]:
    """Voxels along each axis after resampling from one spacing (mm) to another; at least one."""
    return [max(1, int(size)) for size in shape_at_spacing(shape, spacing, target)]


def resample_image(
    image: np.ndarray, shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> np.ndarray:
    """(channels, a, b, c) to another shape, float32.

    :param spacing: the present spacing in mm, :param target: the new one; together they decide whether an axis counts
        as thick slices, as in nnU-Net.
    """
    if list(image.shape[1:]) == list(shape):
        return image.astype(np.float32, copy=False)
    return resample(image, shape, spacing, target, IMAGE_RESAMPLING).astype(np.float32, copy=False)


def resample_labels(
    labels: np.ndarray, shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> np.ndarray:
    """(a, b, c) labels to another shape, int16."""
    if list(labels.shape) == list(shape):
        return labels.astype(np.int16, copy=False)
    resampled = resample(labels[None].astype(np.int16), shape, spacing, target, LABEL_RESAMPLING)
    return resampled[0].astype(np.int16, copy=False)
