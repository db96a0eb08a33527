"""Rigid and affine registration of a subject's scans, and the subject's mid-space.

No scan may be the reference of the others: it alone would stay as acquired, while all others are interpolated and
rotated. Such asymmetry looks like change over time (Reuter et al., NeuroImage 61, 2012). Every scan is therefore
aligned to the mid-space, the mean of all scans in the group of transforms: the transforms from it to the scans have a
mean logarithm of zero (the bi-invariant mean of Pennec and Arsigny, 2013). For two scans the mid-space is halfway
between them, and the two transforms are inverse of each other.

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

#: voxels along the longest axis, for each level of the pyramid: from the coarse shape to fine detail
LEVELS = (32, 64, 128)
HISTOGRAM_BINS = 32
ITERATIONS = 100
#: voxels; a rigid search starts with a step of one voxel
FIRST_AFFINE_STEP = 0.2
#: factor by which the step shrinks where the gradient reverses
RELAXATION = 0.7
#: voxels; mutual information is computed in the body and this margin. In the whole field of view, an affine transform
#: gains by shrinking one scan until air is compared with air (measured on MS follow-ups: 5 to 9 % of the volume)
MARGIN = 3
#: most voxels that are compared at a time; more of them give the same result more slowly
MOST_SAMPLES = 200_000
SEED = 20220


def block_of(image: sitk.Image, voxels: int) -> list[int]:
    """Return the size of blocks to average to one voxel; the blocks are near to cubes in mm.

    :param image: the image.
    :param voxels: about the number of blocks along its longest axis.
    :returns: voxels (x, y, z) of a block.
    """
    extent = max(size * spacing for size, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True))
    return [
        int(np.clip(round(extent / voxels / spacing), 1, max(1, size // 4)))
        for size, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]


def pyramid(image: sitk.Image) -> list[sitk.Image]:
    """Return the image as float32 in increasing resolution, each resolution once."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    blocks = dict.fromkeys(tuple(block_of(image, voxels)) for voxels in LEVELS)
    return [sitk.BinShrink(image, block) for block in blocks]


def transform_of(matrix: np.ndarray) -> sitk.AffineTransform:
    """Convert a 4 x 4 matrix to a SimpleITK transform."""
    result = sitk.AffineTransform(3)
    result.SetMatrix(matrix[:3, :3].ravel().tolist())
    result.SetTranslation(matrix[:3, 3].tolist())
    return result


def matrix_of(transform: sitk.Transform) -> np.ndarray:
    """Convert a linear SimpleITK transform to a 4 x 4 matrix."""
    columns = [transform.TransformPoint(point) for point in np.eye(3).tolist()]
    start = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns).T - start[:, None]
    matrix[:3, 3] = start
    return matrix


def scan_of_reference(reference: list[sitk.Image], scan: list[sitk.Image], affine: bool) -> np.ndarray:
    """Estimate the transform from the reference to a scan in both directions and average both.

    Exchanging reference and scan therefore changes only the rounding.

    :param reference: pyramid of the reference.
    :param scan: pyramid of the scan.
    :param affine: whether the transform may scale and shear.
    :returns: 4 x 4, from points of the reference to points of the scan, mm.
    """
    there = _estimated(reference, scan, affine)
    back = _estimated(scan, reference, affine)
    return expm((_log(there) - _log(back)) / 2)


def _estimated(fixed: list[sitk.Image], moving: list[sitk.Image], affine: bool) -> np.ndarray:
    """Estimate by Mattes' mutual information from coarse to fine: rigid, then affine where requested."""
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
    """Return the starts of the search: by the headers, and by the centres of mass where they are far apart."""
    as_headers = np.eye(4)
    by_mass = np.eye(4)
    by_mass[:3, 3] = centre_of_mass(moving) - centre_of_mass(fixed)
    apart = np.linalg.norm(by_mass[:3, 3])
    return [as_headers, by_mass] if apart > max(fixed.GetSpacing()) else [as_headers]


def centre_of_mass(image: sitk.Image) -> np.ndarray:
    """Return the centre of the intensities above the lowest, mm (x, y, z)."""
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
    """Find the best rigid transform near a start.

    :param fixed: the reference.
    :param moving: the scan.
    :param matrix: 4 x 4, the start, mm.
    :returns: 4 x 4, mm; its negative mutual information.
    """
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
    """Find the best transform near a start.

    A first step that is too large for a good start leads away from it and does not come back; then a smaller step is
    tried. The result is never worse than the start.

    :returns: 4 x 4, mm; its negative mutual information (inf: nothing overlaps).
    """
    # an affine search starts near its optimum; large steps would lead to where air is compared with air
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
    """Set up a search by Mattes' mutual information that changes ``transform``. :param step: first step, mm."""
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
    # a rotation by one radian moves the body by its radius. ITK would scale rotations by the corners of the grid: it
    # undervalues them, and the search ends before it finds them
    rotations = len(transform.GetParameters()) - 3
    method.SetOptimizerScales([_radius(fixed) ** 2] * rotations + [1.0] * 3)
    method.SetInitialTransform(transform, inPlace=True)
    method.SetNumberOfThreads(1)
    return method


def _radius(image: sitk.Image) -> float:
    """Return the root mean square distance of the body from its centre, mm."""
    index = np.argwhere(sitk.GetArrayFromImage(bright_image(image)))[:, ::-1]
    return max(float(np.linalg.norm(index.std(axis=0) * image.GetSpacing())), 1.0)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix nearest to a 3 x 3 matrix (polar decomposition; the determinant keeps its sign)."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def _log(matrix: np.ndarray) -> np.ndarray:
    return np.real(logm(matrix))


def mean_transform(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the bi-invariant mean of transforms: relative to it, their mean logarithm is zero.

    Pennec and Arsigny, "Exponential barycenters of the canonical Cartan connection", 2013, algorithm 1.

    :param matrices: 4 x 4 each.
    :returns: 4 x 4.
    """
    mean = np.array(matrices[0])
    for _ in range(50):
        step = np.mean([_log(np.linalg.solve(mean, matrix)) for matrix in matrices], axis=0)
        mean = mean @ expm(step)
        if np.abs(step).max() < 1e-10:
            break
    return mean


def scans_of_mid(of_reference: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Compute the transforms from the mid-space to each scan.

    ``mid -> reference`` is the mean of the transforms from the scans to the reference.

    :param of_reference: 4 x 4 each, from the reference to each scan; the identity for the reference itself.
    :returns: 4 x 4 each, from the mid-space to each scan.
    """
    reference_of_mid = mean_transform([np.linalg.inv(matrix) for matrix in of_reference])
    return [matrix @ reference_of_mid for matrix in of_reference]


def mid_grid(geometries: Sequence[Geometry], of_mid: Sequence[np.ndarray]) -> Geometry:
    """Choose the grid of the mid-space: its orientation depends on all scans, and it contains all of them.

    Its axes are the mean of all scans' axes, in the order of the first scan (axes of the others are permuted and
    mirrored to match). Its spacing is the finest of all along each axis. It covers every field of view, to half a
    voxel.

    :param geometries: grid of each scan.
    :param of_mid: 4 x 4 each, from the mid-space to each scan.
    :returns: the grid.
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
    size = np.rint(highest - lowest) + 1  # rounded to nearest: a further slice for a tenth of a degree would be empty
    first = (lowest + highest - (size - 1)) / 2
    return Geometry(
        size=tuple(int(voxels) for voxels in size),
        spacing=tuple(spacing.tolist()),
        origin=tuple((direction @ (first * spacing)).tolist()),
        direction=tuple(direction.ravel().tolist()),
    )


def _matched(steps: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """Permute and mirror the columns of ``steps`` to match those of ``reference``."""
    if reference is None:
        return steps
    cosines = (reference / np.linalg.norm(reference, axis=0)).T @ (steps / np.linalg.norm(steps, axis=0))
    order = max(permutations(range(3)), key=lambda columns: sum(abs(cosines[range(3), columns])))
    return steps[:, order] * np.sign(cosines[range(3), order])


def _corners(geometry: Geometry) -> np.ndarray:
    """Return the centres of the eight outermost voxels, (8, 3), mm."""
    index = np.array(list(product(*((0, size - 1) for size in geometry.size)))) * geometry.spacing
    return index @ np.reshape(geometry.direction, (3, 3)).T + geometry.origin


def transformed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 4 x 4 matrix to points (n, 3)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]
