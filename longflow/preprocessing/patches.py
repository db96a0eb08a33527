"""Patches of scans: their shape, and reading them."""

from collections.abc import Sequence

import blosc2
import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from longflow.nnunet import anisotropy_threshold
from longflow.plans import ConfigurationPlan


def is_thin(plan: ConfigurationPlan) -> bool:
    """Tell whether a 3D patch has few slices for its width, so that rotation out of the plane would leave it.

    :param plan: with the patch size.
    :returns: True for a thin patch; False in 2D.
    """
    patch = plan.patch_size
    return len(patch) == 3 and max(patch) / patch[0] > anisotropy_threshold()


def read_patch(
    images: np.ndarray | blosc2.NDArray, scans: Sequence[int], start: Sequence[int], size: Sequence[int]
) -> np.ndarray:
    """Read a patch of some scans; beyond the image, its border is repeated.

    :param images: (scans, channels, z, y, x); of a stored array only the blocks of the patch are read.
    :param scans: positions of the scans, in the order of the result.
    :param start: first voxel along z, y, x; may be negative.
    :param size: voxels along z, y, x.
    :returns: (len(scans), channels, *size), float32.
    """
    box = [[first, first + extent] for first, extent in zip(start, size, strict=True)]
    channels = [0, images.shape[1]]
    patches = [crop_and_pad_nd(images, [[scan, scan + 1], channels, *box], pad_mode="edge") for scan in scans]
    return np.concatenate(patches).astype(np.float32, copy=False)
