"""Checks of a registration. One that fails is reported with its numbers and not written."""

from collections.abc import Callable
from itertools import product

import numpy as np
import SimpleITK as sitk

from longflow.data.body import bright_image
from longflow.errors import DataError
from longflow.registration.linear import centre_of_mass, rigid, transform_of

#: largest allowed fall of the correlation in the body (resampling alone smooths noise)
WORSE = 0.02
#: least allowed correlation in the body
LEAST_CORRELATION = 0.3
#: largest allowed lead of the correlation of the mirrored or rotated scan
BETTER_FLIPPED = 0.03
#: largest allowed transforms relative to the headers: degrees, and factors along any direction
LARGEST_ROTATION = 60.0
SCALES = (0.7, 1.4)
#: least share of the smaller field of view that both scans show
LEAST_OVERLAP = 0.5
#: largest share of the voxels in which a deformation may fold
MOST_FOLDED = 0.001

#: most classes of intensity for the correlation ratio, and fewest voxels in each
MOST_CLASSES, LEAST_IN_CLASS = 32, 20

#: agreement of two volumes, 0 to 1, where both are finite: ``(one, other, mask) -> float``
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]

#: the patient's axes x, y, z in DICOM's and ITK's physical space
ANATOMY = ("left-right", "front-back", "head-foot")


class RegistrationError(DataError):
    """A registration fails a check."""


def resampled(scan: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> np.ndarray:
    """Resample a scan to a grid, linearly.

    :param scan: the scan.
    :param grid: an image on the grid.
    :param transform: from points of the grid to points of the scan, mm.
    :returns: (z, y, x), float32; NaN outside the field of view of the scan.
    """
    return sitk.GetArrayFromImage(sitk.Resample(scan, grid, transform, sitk.sitkLinear, float("nan"), sitk.sitkFloat32))


def correlation(one: np.ndarray, other: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Compute Pearson's correlation of two volumes where both are finite.

    :param one: (z, y, x).
    :param other: (z, y, x).
    :param mask: (z, y, x), voxels that count; None: all.
    :returns: -1 to 1; 0 where one volume is constant or too few voxels count.
    """
    a, b = seen_by_both(one, other, mask)
    if len(a) < 10 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def correlation_ratio(one: np.ndarray, other: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Measure how well the intensity of one volume predicts the intensity of the other.

    It is the root of the share of variance that the other volume's intensity explains, in classes of equally many
    voxels (Roche et al., MICCAI 1998), in the better of both directions. It equals the correlation for a linear
    relation and is as high for others: contrast medium, or another sequence, can change each tissue differently.

    :param one: (z, y, x), NaN where unknown.
    :param other: likewise.
    :param mask: (z, y, x), voxels that count; None: all.
    :returns: 0 to 1.
    """
    a, b = seen_by_both(one, other, mask)
    return max(_known_from(a, b), _known_from(b, a))


def seen_by_both(one: np.ndarray, other: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of both volumes that count.

    :param one: (z, y, x).
    :param other: (z, y, x).
    :param mask: (z, y, x), voxels that count; None: all.
    :returns: (voxels,) each, float64: those where both are finite.
    """
    seen = np.isfinite(one) & np.isfinite(other)
    if mask is not None:
        seen &= mask
    return one[seen].astype(np.float64), other[seen].astype(np.float64)


def _known_from(values: np.ndarray, given: np.ndarray) -> float:
    classes = min(MOST_CLASSES, len(given) // LEAST_IN_CLASS)
    if classes < 2 or values.std() == 0:
        return 0.0
    borders = np.quantile(given, np.linspace(0, 1, classes + 1)[1:-1])
    members = np.searchsorted(borders, given)
    counts = np.maximum(np.bincount(members, minlength=classes), 1)
    means = np.bincount(members, weights=values, minlength=classes) / counts
    return float(np.sqrt(np.var(means[members]) / np.var(values)))


def similarity(reference: sitk.Image, scan: sitk.Image, matrix: np.ndarray, measure: Measure = correlation) -> float:
    """Measure the agreement of a scan and a reference inside both bodies.

    :param reference: the fixed image.
    :param scan: the moving image.
    :param matrix: 4 x 4, from points of the reference to points of the scan, mm.
    :param measure: of the agreement.
    :returns: the agreement.
    """
    return _similarity_and_share(reference, scan, matrix, measure)[0]


def _similarity_and_share(
    reference: sitk.Image, scan: sitk.Image, matrix: np.ndarray, measure: Measure
) -> tuple[float, float]:
    """Return the agreement, and the share of the reference's body that the scan shows."""
    transform = transform_of(matrix)
    bodies = sitk.GetArrayFromImage(bright_image(reference)) > 0
    brought = resampled(scan, reference, transform)
    share = float(np.isfinite(brought)[bodies].mean()) if bodies.any() else 0.0
    bodies |= (
        sitk.GetArrayFromImage(sitk.Resample(bright_image(scan), reference, transform, sitk.sitkNearestNeighbor)) > 0
    )
    return measure(sitk.GetArrayFromImage(reference), brought, bodies), share


def _agreement(reference: sitk.Image, scan: sitk.Image, matrix: np.ndarray, measure: Measure = correlation) -> float:
    """Return the similarity times the share of the body shown: a few slices alone can always be made to agree."""
    found, share = _similarity_and_share(reference, scan, matrix, measure)
    return found * share


def check_matrix(matrix: np.ndarray) -> None:
    """Check that a linear transform neither mirrors nor rotates or scales implausibly.

    :param matrix: 4 x 4, mm.
    :raises RegistrationError: it does.
    """
    linear = matrix[:3, :3]
    determinant = np.linalg.det(linear)
    if determinant <= 0:
        raise RegistrationError(f"the transform mirrors the scan (its determinant is {determinant:.3g}, not above 0)")
    left, scales, right = np.linalg.svd(linear)
    angle = float(np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))))
    if angle > LARGEST_ROTATION:
        raise RegistrationError(
            f"the transform rotates the scan by {angle:.0f} degrees (at most {LARGEST_ROTATION:.0f})"
        )
    if not SCALES[0] <= scales.min() <= scales.max() <= SCALES[1]:
        raise RegistrationError(
            f"the transform scales the scan by factors of {scales.min():.2f} to {scales.max():.2f} "
            f"(expected {SCALES[0]} to {SCALES[1]})"
        )


def check_similarity(before: float, after: float) -> None:
    """Check that the scans agree, and not less than before.

    :param before: agreement by the headers alone.
    :param after: agreement after registration.
    :raises RegistrationError: they agree less than before, or hardly at all.
    """
    if after < LEAST_CORRELATION:
        raise RegistrationError(
            f"the registered scans hardly agree (correlation within the body {after:.2f}, by the headers alone "
            f"{before:.2f}, at least {LEAST_CORRELATION} needed). Check that patient, region and channel are the same"
        )
    if after < before - WORSE:
        raise RegistrationError(
            f"the scans agree less after registration than before (correlation within the body {after:.3f}, "
            f"by the headers alone {before:.3f})"
        )


def check_orientation(
    reference: list[sitk.Image], scan: list[sitk.Image], matrix: np.ndarray, measure: Measure = correlation
) -> float:
    """Check that a scan does not match better when it is mirrored or rotated: its header or its voxels are wrong then.

    A brain matches its mirror image nearly as well as itself, so a rigid registration succeeds; only the comparison
    shows the error. All seven other orientations are tried on the coarsest level; the best is refined on the next.

    :param reference: pyramid of :func:`longflow.registration.linear.pyramid`.
    :param scan: pyramid of the scan.
    :param matrix: 4 x 4, from points of the reference to points of the scan, mm.
    :param measure: of the agreement.
    :returns: the agreement in the best other orientation: the measure times the share of the body that both show.
    :raises RegistrationError: it is higher than in the given orientation.
    """
    fine = min(1, len(reference) - 1), min(1, len(scan) - 1)
    found = []
    for axes in product((False, True), repeat=3):
        if any(axes):
            other_way = _flipped(scan[0], axes)
            start = np.eye(4)
            start[:3, 3] = centre_of_mass(other_way) - centre_of_mass(reference[0])
            brought, _ = rigid(reference[0], other_way, start)
            found.append((_agreement(reference[0], other_way, brought, measure), axes, brought))
    _, axes, brought = max(found, key=lambda one: one[0])
    other_way = _flipped(scan[fine[1]], axes)
    brought, _ = rigid(reference[fine[0]], other_way, brought)
    own = _agreement(reference[fine[0]], scan[fine[1]], matrix, measure)
    other = _agreement(reference[fine[0]], other_way, brought, measure)
    if other > max(own + BETTER_FLIPPED, LEAST_CORRELATION):  # mirrored noise is no better than noise
        raise RegistrationError(
            f"one of the two scans is {_words(scan[0], axes)}. Corrected, the scans would agree better (correlation "
            f"times overlap {other:.3f}) than now ({own:.3f}). Correct its header or its voxels"
        )
    return other


def _flipped(image: sitk.Image, axes: tuple[bool, ...]) -> sitk.Image:
    """Reverse the voxels along some axes (x, y, z) and keep the header."""
    result = sitk.GetImageFromArray(np.flip(sitk.GetArrayViewFromImage(image), [2 - a for a in range(3) if axes[a]]))
    result.CopyInformation(image)
    return result


def _words(image: sitk.Image, axes: tuple[bool, ...]) -> str:
    directions = np.abs(np.reshape(image.GetDirection(), (3, 3)))
    names = [ANATOMY[int(directions[:, axis].argmax())] for axis in range(3)]
    flipped = [name for name, is_flipped in zip(names, axes, strict=True) if is_flipped]
    if len(flipped) == 2:
        still = next(name for name, is_flipped in zip(names, axes, strict=True) if not is_flipped)
        return f"rotated by 180 degrees about its {still} axis"
    return f"mirrored ({', '.join(flipped)})"


def check_overlap(fields: list[np.ndarray], smallest: float | None = None) -> float:
    """Check the share of the smallest field of view that all scans show.

    :param fields: (z, y, x) each, bool: the field of view of each scan on one grid.
    :param smallest: voxels of the smallest field of view, where the grid does not hold all of them.
    :returns: the share.
    :raises RegistrationError: it is too small.
    """
    smallest = smallest or min(int(field.sum()) for field in fields)
    overlap = float(np.logical_and.reduce(fields).sum() / max(1, smallest))
    if overlap < LEAST_OVERLAP:
        raise RegistrationError(
            f"the registered scans show only {overlap:.0%} of the smallest field of view in common (at least "
            f"{LEAST_OVERLAP:.0%})"
        )
    return overlap


def folded_share(displacement: sitk.Image) -> float:
    """Return the share of the voxels in which a deformation folds: its Jacobian determinant is not positive."""
    return float((sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(displacement)) <= 0).mean())


def check_folding(displacement: sitk.Image) -> float:
    """Check that a deformation folds in few voxels at most.

    :param displacement: mm, vectors (x, y, z).
    :returns: the share of the voxels in which it folds.
    :raises RegistrationError: the share is too large.
    """
    share = folded_share(displacement)
    if share > MOST_FOLDED:
        raise RegistrationError(
            f"the deformation folds in {share:.2%} of the voxels (Jacobian determinant not positive; allowed: "
            f"{MOST_FOLDED:.1%})"
        )
    return share
