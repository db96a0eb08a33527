"""Rigid and affine correspondence of a subject's scans, and the subject's mid-space.

A scan must not be the reference of the others: it alone would stay as it was acquired, and all others would be
interpolated and turned (Reuter et al., NeuroImage 61, 2012: such asymmetry looks like change over time). Every scan is
therefore brought to the mid-space, the mean of all scans in the group of transforms: the transforms from it to the
scans have a mean logarithm of zero (the bi-invariant mean of Pennec and Arsigny, 2013). With two scans this is halfway,
and the two transforms are inverse of each other.

Transforms are 4 x 4 matrices on physical points (mm, x y z). ``scan_of_reference`` maps a point of the reference scan
to the same anatomy in another scan, ``scan_of_mid`` a point of the mid-space.
"""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import SimpleITK as sitk
from scipy.linalg import expm, logm

from longflow.data.body import bright_image
from longflow.data.images import Geometry
from longflow.errors import DataError

#: voxels along the longest axis, of each level of the pyramid: from what is seen at a glance to fine detail
LEVELS = (32, 64, 128)
HISTOGRAM_BINS = 32
ITERATIONS = 100
#: voxels; a rigid search begins with a step of one
FIRST_AFFINE_STEP = 0.2
#: by which the step shrinks where the gradient turns round
RELAXATION = 0.7
#: mutual information is taken in the body and so many voxels around it. In the whole field of view, an affine map gains
#: by shrinking one scan until air is compared with air (measured on MS follow-ups: 5 to 9 % of the volume)
MARGIN = 3
#: at most so many voxels are compared at a time; more of them only make the same answer slower
MOST_SAMPLES = 200_000
SEED = 20220


def block_of(image: sitk.Image, voxels: int) -> list[int]:
    """Voxels (x, y, z) to be averaged to one, for about so many along the longest axis; near to cubes in mm."""
    extent = max(size * spacing for size, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True))
    return [
        int(np.clip(round(extent / voxels / spacing), 1, max(1, size // 4)))
        for size, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]


def pyramid(image: sitk.Image) -> list[sitk.Image]:
    """The image as float32, ever finer, each level once."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    blocks = dict.fromkeys(tuple(block_of(image, voxels)) for voxels in LEVELS)
    return [sitk.BinShrink(image, block) for block in blocks]


def transform_of(matrix: np.ndarray) -> sitk.AffineTransform:
    """A 4 x 4 matrix as a SimpleITK transform."""
    result = sitk.AffineTransform(3)
    result.SetMatrix(matrix[:3, :3].ravel().tolist())
    result.SetTranslation(matrix[:3, 3].tolist())
    return result


def matrix_of(transform: sitk.Transform) -> np.ndarray:
    """A linear SimpleITK transform as a 4 x 4 matrix."""
    columns = [transform.TransformPoint(point) for point in np.eye(3).tolist()]
    start = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns).T - start[:, None]
    matrix[:3, 3] = start
    return matrix


def scan_of_reference(reference: list[sitk.Image], scan: list[sitk.Image], affine: bool) -> np.ndarray:
    """The transform from the reference to a scan, estimated in both directions and averaged.

    Which of the two is called the reference thus changes nothing but rounding.

    :param reference, scan: their pyramids.
    """
    there = _estimated(reference, scan, affine)
    back = _estimated(scan, reference, affine)
    return expm((_log(there) - _log(back)) / 2)


def _estimated(fixed: list[sitk.Image], moving: list[sitk.Image], affine: bool) -> np.ndarray:
    """By Mattes' mutual information, from coarse to fine: rigid, then affine where it is asked for."""
    matrix = min((rigid(fixed[0], moving[0], start) for start in _starts(fixed[0], moving[0])), key=_value)[0]
    for level in range(1, len(fixed)):
        matrix, _ = rigid(fixed[level], moving[min(level, len(moving) - 1)], matrix)
    if affine:
        for level in range(max(0, len(fixed) - 2), len(fixed)):
            matrix, _ = _improved(
                fixed[level], moving[min(level, len(moving) - 1)], _affine_about(fixed[level], matrix)
            )
    return matrix


def _value(answer: tuple[np.ndarray, float]) -> float:
    return answer[1]


def _starts(fixed: sitk.Image, moving: sitk.Image) -> list[np.ndarray]:
    """What the headers say, and what brings the centres of mass together where they are far apart."""
    as_headers = np.eye(4)
    by_mass = np.eye(4)
    by_mass[:3, 3] = centre_of_mass(moving) - centre_of_mass(fixed)
    apart = np.linalg.norm(by_mass[:3, 3])
    return [as_headers, by_mass] if apart > max(fixed.GetSpacing()) else [as_headers]


def centre_of_mass(image: sitk.Image) -> np.ndarray:
    """Centre of the intensities above the lowest, mm (x, y, z)."""
    array = sitk.GetArrayViewFromImage(image)
    weights = (array - array.min()).astype(np.float64)
    total = weights.sum()
    if total == 0:
        raise DataError("all voxels have the same value")
    index = [
        float((weights.sum(axis=tuple({0, 1, 2} - {axis})) * np.arange(array.shape[axis])).sum() / total)
        for axis in (2, 1, 0)
    ]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))


def rigid(fixed: sitk.Image, moving: sitk.Image, matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """The rigid transform that agrees best, near a start; and its negative mutual information."""
    centre = centre_of_mass(fixed)
    start = sitk.Euler3DTransform()
    start.SetCenter(centre.tolist())
    start.SetMatrix(nearest_rotation(matrix[:3, :3]).ravel().tolist(), 1e-6)
    start.SetTranslation((matrix[:3, :3] @ centre + matrix[:3, 3] - centre).tolist())
    return _improved(fixed, moving, start)


def _affine_about(fixed: sitk.Image, matrix: np.ndarray) -> sitk.AffineTransform:
    centre = centre_of_mass(fixed)
    start = sitk.AffineTransform(3)
    start.SetCenter(centre.tolist())
    start.SetMatrix(matrix[:3, :3].ravel().tolist())
    start.SetTranslation((matrix[:3, :3] @ centre + matrix[:3, 3] - centre).tolist())
    return start


def _improved(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> tuple[np.ndarray, float]:
    """The transform that agrees best, near a start; and its negative mutual information (inf: nothing overlaps).

    A first step that is too large for a good start leads away from it for good; then a smaller one is tried. What is
    returned is never worse than the start.
    """
    # an affine map begins next to its place, and large steps would take it to where air is compared with air
    largest = min(fixed.GetSpacing()) * (1 if isinstance(start, sitk.Euler3DTransform) else FIRST_AFFINE_STEP)
    try:
        best = matrix_of(start), _method(fixed, start, largest).MetricEvaluate(fixed, moving)
    except RuntimeError:  # all samples lie outside the other scan
        best = matrix_of(start), np.inf
    for step in (largest, largest / 4, largest / 16):
        found = type(start)(start)
        method = _method(fixed, found, step)
        try:
            method.Execute(fixed, moving)
        except RuntimeError:
            continue
        if method.GetMetricValue() < best[1]:
            return matrix_of(found), method.GetMetricValue()
    return best


def _method(fixed: sitk.Image, transform: sitk.Transform, step: float) -> sitk.ImageRegistrationMethod:
    """A search by Mattes' mutual information that moves ``transform``. :param step: the first one, mm."""
    voxels = fixed.GetNumberOfPixels()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricFixedMask(sitk.BinaryDilate(bright_image(fixed), [MARGIN] * 3))
    if voxels > MOST_SAMPLES:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(MOST_SAMPLES / voxels, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    smallest = min(fixed.GetSpacing()) / 200
    method.SetOptimizerAsRegularStepGradientDescent(step, smallest, ITERATIONS, RELAXATION, 1e-6)
    # a turn by one radian moves the body by its radius. By the corners of the grid, as ITK would scale it, turns are
    # undervalued, and the search ends before they are found
    turning = len(transform.GetParameters()) - 3
    method.SetOptimizerScales([_radius(fixed) ** 2] * turning + [1.0] * 3)
    method.SetInitialTransform(transform, inPlace=True)
    method.SetNumberOfThreads(1)
    return method


def _radius(image: sitk.Image) -> float:
    """Root mean square distance of the body from its middle, mm."""
    index = np.argwhere(sitk.GetArrayFromImage(bright_image(image)))[:, ::-1]
    return max(float(np.linalg.norm(index.std(axis=0) * image.GetSpacing())), 1.0)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal matrix next to a 3 x 3 matrix, by its polar decomposition; the sign of its determinant is kept."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def _log(matrix: np.ndarray) -> np.ndarray:
    return np.real(logm(matrix))


def mean_transform(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The bi-invariant mean of transforms: the mean logarithm of all, seen from it, is zero.

    Pennec and Arsigny, "Exponential barycenters of the canonical Cartan connection", 2013, algorithm 1.
    """
    mean = np.array(matrices[0])
    for _ in range(50):
        step = np.mean([_log(np.linalg.solve(mean, matrix)) for matrix in matrices], axis=0)
        mean = mean @ expm(step)
        if np.abs(step).max() < 1e-10:
            break
    return mean


def scans_of_mid(of_reference: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The transforms from the mid-space to each scan, from those of a reference (the identity for itself).

    The mid-space lies where its images in all scans average to nothing: the mean is taken over the transforms from the
    scans to the reference, so that ``mid -> reference`` is that mean.
    """
    reference_of_mid = mean_transform([np.linalg.inv(matrix) for matrix in of_reference])
    return [matrix @ reference_of_mid for matrix in of_reference]


def mid_grid(geometries: Sequence[Geometry], of_mid: Sequence[np.ndarray]) -> Geometry:
    """The grid of the mid-space: no scan decides alone how it lies, and nothing that any scan shows is cut off.

    Its axes run as those of the first scan (axes of the others are permuted and mirrored to match) and are the mean of
    all; its spacing is the finest of all along each axis; it covers every scan's field of view, to half a voxel.
    """
    axes = []
    for geometry, matrix in zip(geometries, of_mid, strict=True):
        steps = np.reshape(geometry.direction, (3, 3)) * geometry.spacing  # a column for each axis, mm per voxel
        axes.append(_matched(np.linalg.solve(matrix[:3, :3], steps), axes[0] if axes else None))
    spacing = np.min([np.linalg.norm(steps, axis=0) for steps in axes], axis=0)
    direction = nearest_rotation(np.sum([steps / np.linalg.norm(steps, axis=0) for steps in axes], axis=0))
    corners = np.concatenate(
        [
            transformed(np.linalg.inv(matrix), _corners(geometry)) @ direction / spacing
            for geometry, matrix in zip(geometries, of_mid, strict=True)
        ]
    )
    lowest, highest = corners.min(axis=0), corners.max(axis=0)
    size = np.rint(highest - lowest) + 1  # rounded, not up: a slice more for a tenth of a degree would be an empty one
    first = (lowest + highest - (size - 1)) / 2
    return Geometry(
        size=tuple(int(voxels) for voxels in size),
        spacing=tuple(spacing.tolist()),
        origin=tuple((direction @ (first * spacing)).tolist()),
        direction=tuple(direction.ravel().tolist()),
    )


def _matched(steps: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
    """The columns of ``steps`` in the order and with the signs that make them run as those of ``wanted``."""
    if wanted is None:
        return steps
    cosines = (wanted / np.linalg.norm(wanted, axis=0)).T @ (steps / np.linalg.norm(steps, axis=0))
    order = max(permutations(range(3)), key=lambda columns: sum(abs(cosines[range(3), columns])))
    return steps[:, order] * np.sign(cosines[range(3), order])


def _corners(geometry: Geometry) -> np.ndarray:
    """Centres of the eight outermost voxels, (8, 3), mm."""
    index = np.array(list(product(*((0, size - 1) for size in geometry.size)))) * geometry.spacing
    return index @ np.reshape(geometry.direction, (3, 3)).T + geometry.origin


def transformed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (n, 3) under a 4 x 4 matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]
