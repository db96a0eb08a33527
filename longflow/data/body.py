"""Where the body is in a scan: the masks of all rooms.

The definitions differ on purpose, since plans and trained models depend on each of them:

- :func:`body_mask`: the whole body, for errors in the body, for statistics and for registration;
- :func:`body_blocks`: coarse blocks that hold body, to draw patches from;
- :func:`brighter_than_mean`: foreground for the fingerprint's intensities;
- :func:`nonzero_mask`: nnU-Net's region that is not empty, for scans with a background of 0;
- :func:`bright_image`: foreground of a SimpleITK image, for the similarity of two scans.
"""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, label
from skimage.filters import threshold_otsu

#: HU; lies between air and all tissue of the body except the lungs
AIR_BELOW = -500.0


def body_mask(volume: np.ndarray, is_ct: bool) -> np.ndarray:
    """Find the body, including what it encloses: lungs and bowel gas in CT, dark tissue and fluid in MR.

    CT: the largest connected part of the voxels above -500 HU, which excludes the table. Other images: voxels above
    Otsu's threshold. Holes are filled in each slice (y, x) by itself, since the end of a scan cuts the lungs open.

    :param volume: (z, y, x), z across the slices; HU for CT.
    :param is_ct: whether the volume is CT.
    :returns: (z, y, x), bool; all False where there is no body: air alone, or a constant volume.
    """
    if is_ct:
        parts, _ = label(volume > AIR_BELOW)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0  # air
        mask = (parts == sizes.argmax()) & (parts > 0)
    else:
        mask = volume > threshold_otsu(volume.ravel())
    return np.stack([binary_fill_holes(one) for one in mask])


def body_of_scan(scan: np.ndarray, is_ct: Sequence[bool]) -> np.ndarray:
    """Find the body in the first CT channel of a scan, or in its first channel where none is CT.

    :param scan: (channels, z, y, x), file units.
    :param is_ct: for each channel, whether it is CT.
    :returns: (z, y, x), bool, as :func:`body_mask`.
    """
    channel = list(is_ct).index(True) if any(is_ct) else 0
    return body_mask(scan[channel], is_ct[channel])


def body_blocks(coarse: np.ndarray) -> np.ndarray:
    """Find the coarse blocks that hold body: their mean over all scans reaches Otsu's threshold in any channel.

    :param coarse: (scans, channels, z, y, x), block means.
    :returns: (z, y, x), bool; all True where every channel is constant.
    """
    return np.any([channel >= threshold_otsu(channel.ravel()) for channel in coarse.mean(0)], axis=0)


def brighter_than_mean(volume: np.ndarray) -> np.ndarray:
    """Find the voxels brighter than the mean: the body without air, in MR and CT alike (TorchIO's default mask).

    :param volume: (z, y, x).
    :returns: (z, y, x), bool; all True where the volume is constant.
    """
    mask = volume > volume.mean(dtype=np.float64)
    return mask if mask.any() else np.ones(volume.shape, dtype=bool)


def nonzero_mask(scan: np.ndarray) -> np.ndarray:
    """Find the voxels that are not 0 in any channel, and the holes that they enclose, as nnU-Net does.

    :param scan: (channels, z, y, x).
    :returns: (z, y, x), bool.
    """
    return binary_fill_holes((scan != 0).any(axis=0))


def bright_image(image: sitk.Image) -> sitk.Image:
    """Find the voxels above Otsu's threshold of a SimpleITK image.

    :param image: one finite value per voxel.
    :returns: on the same grid, 1 above the threshold, else 0.
    """
    return sitk.OtsuThreshold(image, 0, 1)
