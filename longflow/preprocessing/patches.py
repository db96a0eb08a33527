"""Reading a patch over all scans."""

from collections.abc import Sequence

import blosc2
import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd


def read_patch(images: np.ndarray | blosc2.NDArray, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The patch of a stack, its border repeated where the patch reaches beyond.

    :param images: (..., z, y, x); of a stored array only the blocks of the patch are read.
    :param start: first voxel along z, y, x; may be negative. :param size: voxels along z, y, x.
    :returns: (..., *size), float32.
    """
    box = [[first, first + extent] for first, extent in zip(start, size, strict=True)]
    return np.asarray(crop_and_pad_nd(images, box, pad_mode="edge"), dtype=np.float32)
