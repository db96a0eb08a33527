"""Draw the position of patches: around a voxel of a coarse block, which is drawn in proportion to a weight."""

import numpy as np

from longflow.data.body import body_blocks
from longflow.preprocessing.series import PreparedSeries

#: share of the patches that are drawn where the scans of a sample differ most
CHANGE_SHARE = 1 / 3


def draw_patch_start(
    series: PreparedSeries, change: np.ndarray, tile: tuple[int, ...], generator: np.random.Generator
) -> list[int]:
    """Draw a patch whose centre lies in the body; in ``CHANGE_SHARE`` of the draws, where the scans differ.

    :param series: of the sample.
    :param change: (z', y', x'), difference between the scans of the sample in each coarse block.
    :param tile: voxels of the patch along z, y, x.
    :param generator: source of randomness.
    :returns: first voxel along z, y, x.
    """
    at_change = generator.random() < CHANGE_SHARE
    return draw_start_around(series, change if at_change else body_blocks(series.coarse), tile, generator)


def draw_start_around(
    series: PreparedSeries, weight: np.ndarray, tile: tuple[int, ...], generator: np.random.Generator
) -> list[int]:
    """Draw a patch whose centre lies in a coarse block.

    The patch is moved into the image; along an axis where the image is smaller than the patch it is centred.

    :param series: of the sample.
    :param weight: (z', y', x'), in proportion to which a block is drawn; uniform where all are 0.
    :param tile: voxels of the patch along z, y, x.
    :param generator: source of randomness.
    :returns: first voxel along z, y, x.
    """
    flat = weight.ravel().astype(np.float64)
    total = flat.sum()
    block = generator.choice(flat.size, p=flat / total) if total > 0 else generator.integers(flat.size)
    block = np.unravel_index(block, weight.shape)
    start = []
    for axis, size in enumerate(series.images.shape[2:]):
        first = block[axis] * series.coarse_block[axis]
        # the image's end may cut the last block of an axis
        centre = first + generator.integers(min(series.coarse_block[axis], size - first))
        if size <= tile[axis]:
            start.append(-((tile[axis] - size) // 2))
        else:
            start.append(int(np.clip(centre - tile[axis] // 2, 0, size - tile[axis])))
    return start
