"""The numbers of the challenge SynthRAD 2025, for CT that is made from another modality.

MAE, PSNR and MS-SSIM are defined as in its public evaluation code: both images are limited to [-1024, 3000] HU, only
voxels inside a mask count, and the range of PSNR and MS-SSIM is 4024 HU. The challenge comes with a mask of each
patient; here it is the body in the reference.

Its MS-SSIM (Wang et al. 2003) differs from the usual one: the luminance counts at every scale, not at the coarsest
alone; each scale's map is raised to the scale's weight before it is averaged over the mask; windows are cubes of 7
voxels with equal weights; and images of fewer than 97 voxels along an axis are padded with their border values.
"""

import math

import numpy as np
from scipy.ndimage import uniform_filter

#: HU
LOWEST, HIGHEST = -1024.0, 3000.0
RANGE = HIGHEST - LOWEST

#: of each scale, the finest first (Wang et al. 2003)
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 7
#: voxels along each axis that five scales need
SMALLEST = 97
K1, K2 = 0.01, 0.03


def masked_mae(translation: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float | None:
    """Compute the mean absolute error inside a mask.

    :param translation: (z, y, x), HU.
    :param reference: likewise.
    :param mask: (z, y, x), bool.
    :returns: HU; None where the mask is empty.
    """
    if not mask.any():
        return None
    return float(np.abs(_limited(translation) - _limited(reference))[mask].mean())


def masked_psnr(translation: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float | None:
    """Compute the peak signal-to-noise ratio inside a mask, with 4024 HU as the range.

    :param translation: (z, y, x), HU.
    :param reference: likewise.
    :param mask: (z, y, x), bool.
    :returns: dB; None where the mask is empty or the images are identical in it.
    """
    if not mask.any():
        return None
    mean_square = float(np.square(_limited(translation) - _limited(reference))[mask].mean())
    return 10 * math.log10(RANGE**2 / mean_square) if mean_square > 0 else None


def masked_ms_ssim(translation: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float | None:
    """Compute the structural similarity at five scales inside a mask.

    :param translation: (z, y, x), HU.
    :param reference: likewise.
    :param mask: (z, y, x), bool.
    :returns: 0 to 1; None where no voxel of the mask is left at a scale.
    """
    missing = [max(0, SMALLEST - size) for size in mask.shape]
    width = [(count // 2, count - count // 2) for count in missing]
    x, y = (np.pad(np.where(mask, _limited(one) - LOWEST, 0), width, mode="edge") for one in (reference, translation))
    mask = np.pad(mask, width, mode="edge")
    product, border = 1.0, (slice(WINDOW // 2, -(WINDOW // 2)),) * 3
    for weight in WEIGHTS:
        inside = mask[border]
        if not inside.any():
            return None
        product *= float(np.clip((_similarity(x, y)[border][inside] ** weight).mean(), 0, 1))
        x, y = (uniform_filter(one, 2, mode="constant")[::2, ::2, ::2] for one in (x, y))
        mask = mask[::2, ::2, ::2]
    return product


def _similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return luminance x contrast x structure of each voxel, none of them below 0."""
    unbiased = WINDOW**3 / (WINDOW**3 - 1)
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    mean_x, mean_y = uniform_filter(x, WINDOW), uniform_filter(y, WINDOW)
    variance_x = unbiased * np.maximum(uniform_filter(x * x, WINDOW) - mean_x**2, 0)
    variance_y = unbiased * np.maximum(uniform_filter(y * y, WINDOW) - mean_y**2, 0)
    covariance = unbiased * (uniform_filter(x * y, WINDOW) - mean_x * mean_y)
    deviations = np.sqrt(variance_x * variance_y)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * deviations + c2) / (variance_x + variance_y + c2)
    structure = (covariance + c2 / 2) / (deviations + c2 / 2)
    return np.maximum(luminance, 0) * np.maximum(contrast, 0) * np.maximum(structure, 0)


def _limited(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(np.float64), LOWEST, HIGHEST)
