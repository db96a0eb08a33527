"""Where the body is in a scan, without air and table."""

import numpy as np
from scipy.ndimage import binary_fill_holes, label
from skimage.filters import threshold_otsu

#: HU; lies between air and all that a body consists of but the lungs
AIR_BELOW = -500.0


def body_mask(volume: np.ndarray, is_ct: bool) -> np.ndarray:
    """The body, what it encloses included: lungs and bowel gas in CT, dark tissue and fluid in MR.

    CT: voxels above -500 HU, of these the largest connected part, so that the table is left out. All else: voxels above
    Otsu's threshold. Holes are filled in each slice (y, x) by itself, since a scan cuts the lungs open at its end.

    :param volume: (z, y, x), z across the slices; HU where it is CT.
    :returns: bool, (z, y, x); all False where there is no body: air alone, or a constant volume.
    """
    if is_ct:
        parts, _ = label(volume > AIR_BELOW)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0  # air
        mask = (parts == sizes.argmax()) & (parts > 0)
    else:
        mask = volume > threshold_otsu(volume.ravel())
    return np.stack([binary_fill_holes(one) for one in mask])
