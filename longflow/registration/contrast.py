"""Deformable registration of two scans that differ by contrast medium.

The compared quantity must not change with the enhancement. A registration that compares intensities shrinks a bright
aorta; mutual information of the whole volume does the same, since it may match an aorta with bone. Measured on the
abdominal phantom: the aorta loses a quarter of its volume by demons, and a fifth by ANTs with its default metric.
Therefore

- a mask of the body removes table and air around it (MFM B.6);
- CT is compressed above the range of unenhanced tissue: contrast medium and bone then differ little from muscle;
- intensities are normalised by mean and standard deviation of their neighbourhood, which removes what the medium adds
  or multiplies there (local correlation; Lorenzi et al., NeuroImage 81, 2013).

Then one scan is deformed to the other: by ANTs' SyN without an affine stage, within the mask (MFM B.6), where antspyx
is installed; else by diffeomorphic demons in SimpleITK. This does not serve scans in which dark and bright are
exchanged, as T1 and T2: use rigid or affine registration for those, which works by mutual information.
"""

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_dilation, gaussian_filter

from longflow.data.body import body_mask
from longflow.errors import DataError
from longflow.registration.deformable import by_demons, by_syn, has_ants, on_grid, zero_field
from longflow.registration.linear import block_of

#: HU; MFM's limits (B.3). Values beyond are metal and padding outside the field of view
CT_LIMITS = (-1000.0, 1000.0)
#: HU; from fat to unenhanced tissue. Values above count a tenth
CT_TISSUE = (-200.0, 60.0)
COMPRESSED = 0.1
#: percentiles of intensities in the body that count as darkest and brightest, for images other than CT
PERCENTILES = (2, 98)
#: voxels around the body that belong to its mask, so that the mask includes the surface
MARGIN = 3

#: of the range of tissue: local differences below it are noise
NOISE = 0.1
#: standard deviation of the neighbourhood's Gaussian window, voxels
NEIGHBOURHOOD = 2.0

#: voxels along the longest axis, of each level; the displacement is smooth, so no finer level is needed
DEMONS_LEVELS = (64, 128)
DEMONS_ITERATIONS = 30
#: smoothing of the displacement, voxels of the level
DEMONS_SMOOTHING = 2.5


def body_alone(image: sitk.Image, is_ct: bool) -> sitk.Image:
    """Replace everything around the body by air.

    :param image: the scan.
    :param is_ct: whether its values are HU.
    :returns: float32, on the same grid; CT is limited to :data:`CT_LIMITS`.
    :raises DataError: there is no body.
    """
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    mask = body_mask(array, is_ct)
    if not mask.any():
        raise DataError("no voxel is above -500 HU; expected CT in HU" if is_ct else "all voxels have one value")
    air = CT_LIMITS[0] if is_ct else float(array.min())
    if is_ct:
        np.clip(array, *CT_LIMITS, out=array)
    array[~binary_dilation(mask, iterations=MARGIN)] = air
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result


def deformation(reference: sitk.Image, scan: sitk.Image, is_ct: bool) -> tuple[sitk.Image, str]:
    """Estimate the displacement from the reference to the scan.

    :param reference: of :func:`body_alone`.
    :param scan: of :func:`body_alone`, on the same grid, linearly registered.
    :param is_ct: whether the values are HU.
    :returns: u, float64 vectors in mm (x, y, z) on that grid: the anatomy at x of the reference is at x + u(x) of the
        scan; and the name of the algorithm.
    """
    compared = [_tissue(image, is_ct) for image in (reference, scan)]
    if has_ants():
        mask = sitk.Cast(_dilated(body_mask(sitk.GetArrayFromImage(reference), is_ct), reference), sitk.sitkFloat32)
        fixed, moving = (locally_normalised(image) for image in compared)
        return by_syn(fixed, moving, mask=mask, total_sigma=1.0), "ANTs SyNOnly"
    field = zero_field(reference)
    for voxels in DEMONS_LEVELS:
        block = block_of(reference, voxels)
        fixed, moving = (locally_normalised(sitk.BinShrink(image, block)) for image in compared)
        field = by_demons(fixed, moving, on_grid(field, fixed), DEMONS_ITERATIONS, DEMONS_SMOOTHING)
    return on_grid(field, reference), "SimpleITK diffeomorphic demons"


def _dilated(mask: np.ndarray, grid: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(binary_dilation(mask, iterations=MARGIN).astype(np.uint8))
    result.CopyInformation(grid)
    return result


def _tissue(image: sitk.Image, is_ct: bool) -> sitk.Image:
    """Scale intensities so that the range of tissue is 1."""
    if is_ct:
        tissue = sitk.Clamp(image, sitk.sitkFloat32, *CT_TISSUE)
        return (tissue + COMPRESSED * (sitk.Clamp(image, sitk.sitkFloat32, CT_TISSUE[0], CT_LIMITS[1]) - tissue)) / (
            CT_TISSUE[1] - CT_TISSUE[0]
        )
    array = sitk.GetArrayViewFromImage(image)
    inside = array[body_mask(array, is_ct)]
    low, high = np.percentile(inside, PERCENTILES).tolist()
    return sitk.Clamp(image, sitk.sitkFloat32, float(array.min()), high) / max(high - low, 1e-6)


def locally_normalised(image: sitk.Image) -> sitk.Image:
    """Compute (I - m) / sqrt(s^2 + noise^2), with mean m and standard deviation s of the neighbourhood.

    :param image: float32, in units of the range of tissue.
    :returns: on the same grid.
    """
    array = sitk.GetArrayFromImage(image)
    mean = gaussian_filter(array, NEIGHBOURHOOD)
    variance = np.maximum(gaussian_filter(array * array, NEIGHBOURHOOD) - mean * mean, 0)
    result = sitk.GetImageFromArray((array - mean) / np.sqrt(variance + NOISE**2))
    result.CopyInformation(image)
    return result
