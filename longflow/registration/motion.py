"""The motion between two scans of a subject, and the last scan carried on by it.

Motion is estimated by the iterative Lucas-Kanade method from coarse to fine (Le Besnerais & Champagnat, ICIP 2005, in
scikit-image): voxels within a window share their motion, and what does not move stays where it is. On cine series and
on a ball of known motion, the demons of SimpleITK follow the noise, and TV-L1 flow falls short by a third.

The displacement u of the last scan, with before(x + u(x)) = last(x), is read as a stationary velocity field w, whose
exponential it is: exp(w)(x) = x + u(x). A forecast is last(exp(f w)(x)), where f is the share of the interval by which
the motion goes on (f = 1: the same motion again). exp is computed by scaling and squaring (Arsigny et al., MICCAI
2006), so that it does not fold for large f, up to discretisation; folds are counted by the Jacobian determinant.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from skimage.registration import optical_flow_ilk

from longflow.registration.deformable import normalised, on_grid, transform_of_field
from longflow.registration.linear import block_of

#: voxels along the longest axis that motion is estimated at: the first that leaves at most MOST_VOXELS
RESOLUTIONS = (256, 192, 128, 96, 64)
MOST_VOXELS = 1_000_000
#: voxels around each that share its motion, and times that the earlier scan is warped at each level
RADIUS, WARPS = 5, 5
#: from this ratio of spacings on, slices are too thick to see motion through them (nnU-Net's threshold of anisotropy)
THICK = 3.0
#: share of the last motion that goes on, where the cross-validation has not chosen one
STEP = 0.5
#: voxels that a step of the exponential moves at most
_SMALL = 0.5


class Carried(NamedTuple):
    """A scan, carried on by a motion.

    :param scan: (channels, z, y, x), float32.
    :param folded: share of voxels at which the motion folds: what is there is not anatomy.
    """

    scan: np.ndarray
    folded: float


def motion_between(before: np.ndarray, last: np.ndarray, spacing: Sequence[float]) -> sitk.Image:
    """Estimate the motion that leads from one scan to the next, as a stationary velocity that points back in time.

    :param before: (z, y, x), the earlier scan; any units, since intensities are compared by percentiles of the body.
    :param last: (z, y, x), the later scan.
    :param spacing: mm, (z, y, x).
    :returns: mm for the interval between both scans, float64 vectors (x, y, z) on the grid of ``last``; zero where the
        two are identical.
    """
    images = [normalised(as_image(scan, spacing)) for scan in (last, before)]
    fixed, moving = (sitk.BinShrink(image, _block_of(image)) for image in images)
    coarse = fixed.GetSpacing()[::-1]
    flow = _flow(sitk.GetArrayFromImage(fixed), sitk.GetArrayFromImage(moving), coarse)
    in_mm = flow * np.reshape(coarse, (3, 1, 1, 1))
    displacement = _field(np.moveaxis(in_mm[::-1], 0, -1), fixed)
    return on_grid(_logarithm(displacement), images[0])


def as_image(volume: np.ndarray, spacing: Sequence[float]) -> sitk.Image:
    """Return a volume as an image whose axes are those of the array.

    :param volume: (z, y, x).
    :param spacing: mm, (z, y, x).
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume, dtype=np.float32))
    image.SetSpacing([float(size) for size in spacing[::-1]])
    return image


def _field(vectors: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """Return vectors (z, y, x, 3), mm, as an image on a grid."""
    field = sitk.GetImageFromArray(np.ascontiguousarray(vectors, dtype=np.float64), isVector=True)
    field.CopyInformation(grid)
    return field


def _block_of(image: sitk.Image) -> list[int]:
    """Return the block of voxels to average, near to a cube in mm, so that flow takes seconds."""
    blocks = [block_of(image, voxels) for voxels in RESOLUTIONS]
    counts = [math.prod(size // edge for size, edge in zip(image.GetSize(), block, strict=True)) for block in blocks]
    return next((block for block, count in zip(blocks, counts, strict=True) if count <= MOST_VOXELS), blocks[-1])


def _flow(fixed: np.ndarray, moving: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Estimate the flow in voxels, (3, z, y, x); slice by slice where slices are thick or fewer than a window."""
    estimate = partial(optical_flow_ilk, radius=RADIUS, num_warp=WARPS)
    thick, window = max(spacing) >= THICK * min(spacing), 2 * RADIUS + 1
    across = int(np.argmax(spacing) if thick else np.argmin(fixed.shape))
    if not thick and fixed.shape[across] >= window:
        return estimate(fixed, moving)
    flow = np.zeros((3, *fixed.shape), np.float32)
    inside = [axis for axis in range(3) if axis != across]
    for place in range(fixed.shape[across]):
        index = tuple(place if axis == across else slice(None) for axis in range(3))
        flow[(inside, *index)] = estimate(fixed[index], moving[index])
    return flow


def _logarithm(displacement: sitk.Image) -> sitk.Image:
    """Return the velocity whose exponential is a displacement, to the second order: w(x) = u(x - u(x) / 2).

    A path of unit time with constant velocity from x to x + u(x) has that velocity at its middle.
    """
    return _at(displacement, _field(-0.5 * sitk.GetArrayViewFromImage(displacement), displacement))


def exponential(velocity: sitk.Image, factor: float) -> sitk.Image:
    """Compute the displacement of exp(factor * velocity) by scaling and squaring.

    :param velocity: mm, vectors (x, y, z).
    :param factor: any number; 0 is no displacement.
    :returns: mm, on the same grid.
    """
    whole = factor * sitk.GetArrayViewFromImage(velocity)
    largest = float(np.abs(whole / np.array(velocity.GetSpacing())).max())
    squarings = max(0, math.ceil(math.log2(largest / _SMALL))) if largest > 0 else 0
    field = _field(whole / 2**squarings, velocity)
    for _ in range(squarings):
        twice = sitk.GetArrayViewFromImage(field) + sitk.GetArrayFromImage(_at(field, field))
        field = _field(twice, velocity)
    return field


def _at(field: sitk.Image, displacement: sitk.Image) -> sitk.Image:
    """Return field(x + displacement(x)); outside the grid it takes the value at the border."""
    transform = transform_of_field(displacement)
    kind = field.GetPixelID()
    return sitk.Resample(field, field, transform, sitk.sitkLinear, 0.0, kind, useNearestNeighborExtrapolator=True)


def folded_voxels(displacement: sitk.Image) -> int:
    """Count the voxels at which a displacement folds: the Jacobian determinant is not above 0."""
    if min(displacement.GetSize()) < 2:  # one slice has no derivative across it
        return 0
    return int((sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(displacement)) <= 0).sum())


def carried_on(last: np.ndarray, velocity: sitk.Image, factor: float) -> Carried:
    """Carry a scan on by a motion.

    :param last: (channels, z, y, x), on the grid of ``velocity``.
    :param velocity: of :func:`motion_between`.
    :param factor: share of the motion by which it goes on.
    :returns: the scan, whose voxels that do not move are bit-identical.
    """
    displacement = exponential(velocity, factor)
    moves = (sitk.GetArrayViewFromImage(displacement) != 0).any(axis=-1)
    spacing = velocity.GetSpacing()[::-1]
    warped = [sitk.GetArrayFromImage(_at(as_image(channel, spacing), displacement)) for channel in last]
    scan = np.where(moves, np.stack(warped), last).astype(np.float32, copy=False)
    return Carried(scan, folded_voxels(displacement) / math.prod(displacement.GetSize()))
