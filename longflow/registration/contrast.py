"""Deformable correspondence of two scans that contrast medium has made different.

What is compared must not change with the enhancement: a registration that compares intensities shrinks a bright aorta
until it is gone, and so does one by the mutual information of the whole volume, for which an aorta may become bone
(measured on the abdominal phantom: by demons it loses a quarter of its volume, by ANTs with its default metric a
fifth). Therefore

- table and air around the body are taken away, by a mask of the body (MFM B.6);
- CT is compressed above what unenhanced tissue has: contrast medium and bone then differ little from muscle;
- intensities are normalised by mean and standard deviation of their neighbourhood, which undoes what the medium adds
  or multiplies there (local correlation; Lorenzi et al., NeuroImage 81, 2013).

Then one scan is deformed to the other by ANTs' SyN without an affine stage, within the mask (MFM B.6), where antspyx is
installed, and else by diffeomorphic demons in SimpleITK. Scans in which dark and bright are exchanged, as in T1 and T2,
are none of this: rigid and affine registration, by mutual information, brings those together.
"""

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_dilation, gaussian_filter

from longflow.data.body import body_mask
from longflow.errors import DataError
from longflow.registration.deformable import by_syn, has_ants, on_grid, zero_field
from longflow.registration.linear import block_of

#: HU; MFM's limits (B.3). Beyond them are metal and what scanners write outside of their field of view
CT_LIMITS = (-1000.0, 1000.0)
#: HU; from fat to unenhanced tissue. What lies above counts a tenth
CT_TISSUE = (-200.0, 60.0)
COMPRESSED = 0.1
#: percentiles of other intensities in the body that count as darkest and brightest
PERCENTILES = (2, 98)
#: voxels around the body that belong to its mask, so that its surface does
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
    """The scan without what lies around the body, float32; CT within :data:`CT_LIMITS`.

    :raises DataError: there is no body.
    """
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    mask = body_mask(array, is_ct)
    if not mask.any():
        raise DataError("nothing in it is above -500 HU: is it CT, in HU?" if is_ct else "all voxels have one value")
    air = CT_LIMITS[0] if is_ct else float(array.min())
    if is_ct:
        np.clip(array, *CT_LIMITS, out=array)
    array[~binary_dilation(mask, iterations=MARGIN)] = air
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result


def deformation(reference: sitk.Image, scan: sitk.Image, is_ct: bool) -> tuple[sitk.Image, str]:
    """The displacement from the reference to the scan, and by what it was found.

    :param reference, scan: as :func:`body_alone` makes them, on one grid, and linearly registered.
    :returns: u, float64 vectors in mm (x, y, z) on that grid: what lies at x of the reference lies at x + u(x) of the
        scan.
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
        field = _demons(fixed, moving, on_grid(field, fixed))
    return on_grid(field, reference), "SimpleITK diffeomorphic demons"


def _dilated(mask: np.ndarray, grid: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(binary_dilation(mask, iterations=MARGIN).astype(np.uint8))
    result.CopyInformation(grid)
    return result


def _tissue(image: sitk.Image, is_ct: bool) -> sitk.Image:
    """Intensities in which the range of tissue is 1."""
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
    """(I - m) / sqrt(s^2 + noise^2), with mean m and standard deviation s of the neighbourhood.

    :param image: float32, in units of the range of tissue.
    """
    array = sitk.GetArrayFromImage(image)
    mean = gaussian_filter(array, NEIGHBOURHOOD)
    variance = np.maximum(gaussian_filter(array * array, NEIGHBOURHOOD) - mean * mean, 0)
    result = sitk.GetImageFromArray((array - mean) / np.sqrt(variance + NOISE**2))
    result.CopyInformation(image)
    return result


def _demons(fixed: sitk.Image, moving: sitk.Image, field: sitk.Image) -> sitk.Image:
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(DEMONS_ITERATIONS)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(DEMONS_SMOOTHING)
    return sitk.Cast(demons.Execute(fixed, moving, field), sitk.sitkVectorFloat64)
