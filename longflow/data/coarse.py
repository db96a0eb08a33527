"""Means over coarse blocks: a view of a volume that is small to keep and shows whether two scans are aligned."""

from collections.abc import Sequence

import numpy as np
from skimage.registration import phase_cross_correlation

#: edge of a coarse block along the finest axis, in voxels
COARSE_EDGE = 8
#: voxels whose sums are taken at once, in float64
PART = 2**22

#: blocks; a larger shift means that two scans are not aligned
SHIFT = 1.5
#: an axis with fewer blocks is too short to detect a shift along it
FEWEST_BLOCKS = 4


def coarse_block(spacing: Sequence[float]) -> tuple[int, int, int]:
    """Choose the size of a coarse block: about a cube in mm, ``COARSE_EDGE`` voxels along the finest axis.

    :param spacing: (z, y, x), mm.
    :returns: (z, y, x), voxels.

    >>> coarse_block((10.0, 1.5, 1.5))
    (1, 8, 8)
    """
    edge = COARSE_EDGE * min(spacing)
    return tuple(min(COARSE_EDGE, max(1, round(edge / size))) for size in spacing)


def block_means(image: np.ndarray, block: Sequence[int]) -> np.ndarray:
    """Compute means over blocks of the last three axes; the last block of an axis may be smaller.

    :param image: (..., z, y, x).
    :param block: (z, y, x), voxels.
    :returns: (..., z', y', x'), float32.

    >>> block_means(np.arange(5, dtype=np.float32).reshape(1, 1, 5), (1, 1, 2))
    array([[[0.5, 2.5, 4. ]]], dtype=float32)
    """
    step = block[0] * max(1, PART * image.shape[-3] // (block[0] * image.size))
    parts = [image[..., start : start + step, :, :] for start in range(0, image.shape[-3], step)]
    return np.concatenate([_block_means(part, block) for part in parts], axis=-3)


def _block_means(image: np.ndarray, block: Sequence[int]) -> np.ndarray:
    means = image
    # x first: it is mostly long, and later sums are then small
    for axis, size in zip((-1, -2, -3), reversed(block), strict=True):
        starts = np.arange(0, means.shape[axis], size)
        counts = np.diff(np.append(starts, means.shape[axis]))
        sums = np.add.reduceat(means, starts, axis=axis, dtype=np.float64)
        means = sums / counts.reshape(-1, *(1,) * (-1 - axis))
    return means.astype(np.float32)


def shift_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Find the shift with the best match of two scans.

    :param one: (channels, z, y, x), block means.
    :param other: likewise.
    :returns: (z, y, x), blocks; 0 along an axis of few blocks.
    """
    centred = [scan - scan.mean((1, 2, 3), keepdims=True) for scan in (one, other)]
    shifts = [
        # not normalised: block means are too few for a spectrum without its amplitudes
        phase_cross_correlation(left, right, upsample_factor=4, normalization=None)[0]
        for left, right in zip(*centred, strict=True)
        if left.any() and right.any()
    ]
    wide_enough = np.array(one.shape[1:]) >= FEWEST_BLOCKS
    return np.mean(shifts, axis=0) * wide_enough if shifts else np.zeros(3)
