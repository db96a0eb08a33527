"""Read and write volumes with their geometry: the one reading of a file, which all rooms use.

The voxels of NIfTI files are read by nibabel, those of other formats by SimpleITK. Where the two transforms of a NIfTI
header differ, SimpleITK decides which one is used. Whatever it makes of the header must be one of the two, as nibabel
computes them; else the grid is taken from nibabel's transform.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from longflow.data import nifti
from longflow.data.formats import check_format
from longflow.data.memory import check_memory
from longflow.data.nifti import describe_infinite, is_nifti
from longflow.errors import DataError, file_error
from longflow.files import atomic_write

# ITK writes a warning to the screen for each file with a questionable header; the integrity check reports those once
sitk.ProcessObject.SetGlobalWarningDisplay(False)

#: mm; transforms that place the corners of a volume nearer to each other than this are one transform
SAME_PLACE = 0.1
#: sform_code of the scanner's own coordinates, with which SimpleITK prefers the sform to the qform
SCANNER = 1
#: mm from the origin; no scanner is so large
FARTHEST = 1e5
#: SimpleITK's axes are left, posterior, superior; those of NIfTI are right, anterior, superior
FLIP = np.array([-1.0, -1.0, 1.0])
REPLACE_INFINITE = "Replace them by the value of their surroundings or of air, or exclude the scan."
SPLIT = "One file for each scan and channel. Split a 4D series with: longflow_import nifti4d"
ONE_VOLUME = (
    "Save each scan and channel as one file with three axes (one slice: a third axis of size 1, as in nibabel's "
    "Nifti1Image(array[..., None], affine))."
)

COPY_TRANSFORMS = (
    'python -c "import sys, nibabel; i, l = map(nibabel.load, sys.argv[1:3]); l.set_sform(*i.get_sform(coded=True)); '
    'l.set_qform(*i.get_qform(coded=True)); nibabel.save(l, sys.argv[3])" SCAN LABEL NEW_LABEL'
)


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume, in SimpleITK's order (x, y, z).

    :param size: voxels.
    :param spacing: mm.
    :param origin: mm.
    :param direction: 9 cosines, row-major.
    :param nifti: header of the NIfTI file that the grid was read from, with both of its transforms; else empty.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nifti: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def of(cls, image: sitk.Image) -> "Geometry":
        """Return the grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def array_spacing(self) -> tuple[float, float, float]:
        """Return the spacing in the order of the array's axes (z, y, x), mm."""
        return tuple(abs(value) for value in reversed(self.spacing))

    @property
    def corners(self) -> np.ndarray:
        """Return the centres of the eight outermost voxels, (8, 3), mm; of one slice, those of a second one too."""
        return _outermost(self.size) * self.spacing @ np.reshape(self.direction, (3, 3)).T + self.origin

    @property
    def by_transform(self) -> dict[str, "Geometry"]:
        """Return the grid by each transform of the NIfTI header that is set: "qform", "sform"."""
        if not self.nifti:
            return {}
        header = nibabel.Nifti1Header(self.nifti, check=False)
        return {
            name: _grid_of_affine(affine, self.size, self.nifti) for name, affine in nifti.placements(header).items()
        }

    @property
    def repaired(self) -> "Geometry":
        """Return the grid with the voxel size of the header, where its transform lacks a scale; else the same grid."""
        header = nibabel.Nifti1Header(self.nifti or None, check=False)
        if not nifti.has_no_scale(header):
            return self
        return replace(self, spacing=tuple(header["pixdim"][1:4].astype(float).tolist()), nifti=b"")

    def differences(self, other: "Geometry", tolerance: float = 1e-3) -> list[tuple[str, str, str]]:
        """Compare two grids.

        :param other: the other grid.
        :param tolerance: mm for the origin, relative for the spacing; a tenth of it for the cosines.
        :returns: (name, this, other) for each of size, spacing, origin and direction that differs.
        """
        found = []
        if self.size != other.size:
            found.append(("size", by_axis(self.size), by_axis(other.size)))
        if not np.allclose(self.spacing, other.spacing, rtol=tolerance, atol=0):
            found.append(("spacing", by_axis(self.spacing), by_axis(other.spacing)))
        if not np.allclose(self.origin, other.origin, rtol=0, atol=tolerance):
            found.append(("origin", by_axis(self.origin), by_axis(other.origin)))
        if not np.allclose(self.direction, other.direction, rtol=0, atol=tolerance / 10):
            found.append(("direction", by_axis(self.direction), by_axis(other.direction)))
        return found


def by_axis(values: Iterable[float], digits: int = 6) -> str:
    """Format numbers along the axes, human-readable.

    >>> by_axis((256, 256, 10))
    '256 x 256 x 10'
    """
    return " x ".join(f"{value:.{digits}g}" for value in values)


def check_same_grid(found: Geometry, file: object, expected: Geometry, reference: object, advice: str) -> None:
    """Check that an image is on the grid of another.

    :param found: grid of the image.
    :param file: the image in messages.
    :param expected: grid of the other image.
    :param reference: the other image in messages.
    :param advice: the remedy, a sentence.
    :raises DataError: with the first difference: size, spacing, origin or direction.
    """
    for name, reference_value, here in expected.differences(found):
        raise DataError(f"{file}: {name} is {here}, but {reference} has {reference_value}. {advice}")


@dataclass
class Volume:
    """A scan in memory.

    :param array: (channels, z, y, x), float32, in the file's units.
    :param geometry: its grid.
    :param data_type: NumPy name of the type in the file ("int16"); exports are rounded and clipped to it.
    :param warnings: sentences about its files that whoever uses it should know.
    """

    array: np.ndarray
    geometry: Geometry
    data_type: str
    warnings: tuple[str, ...] = ()


def read_image(path: Path) -> sitk.Image:
    """Read one 3D image.

    :param path: the file.
    :returns: the image.
    :raises DataError: the file is missing, truncated, not an image, not 3D, or holds NaN or infinite voxels.
    """
    return _as_image(*read_array(path))


def read_image_of_any_size(path: Path) -> sitk.Image:
    """Read a 3D or 4D image with one finite value per voxel.

    :param path: the file.
    :returns: the image.
    :raises DataError: as :func:`read_image`.
    """
    return _as_image(*read_array(path, dimensions=(3, 4)))


def read_geometry(path: Path) -> Geometry:
    """Read the grid of an image from its header.

    :param path: the file.
    :returns: its grid; of a 4D file, that of one frame.
    :raises DataError: the header cannot be used.
    """
    return read_header(path)[1]


def read_array(path: Path, dimensions: tuple[int, ...] = (3,)) -> tuple[np.ndarray, Geometry]:
    """Read the voxels of an image and its grid.

    :param path: the file.
    :param dimensions: numbers of axes that are allowed.
    :returns: (z, y, x) or (t, z, y, x), finite; the grid in space.
    :raises FileError: as :func:`read_voxels`, or voxels are NaN or infinite.
    """
    array, geometry = read_voxels(path, dimensions)
    if infinite := describe_infinite(array):
        says = f"has voxels that are no numbers: {infinite}"
        raise file_error(path, "voxels", infinite, "finite numbers", REPLACE_INFINITE, says)
    return array, geometry


def read_voxels(path: Path, dimensions: tuple[int, ...] = (3,)) -> tuple[np.ndarray, Geometry]:
    """Read an image as :func:`read_array`, but leave NaN and infinite voxels to the caller.

    :raises FileError: the file is missing, truncated, not an image or of other dimensions.
    """
    shape, geometry, source = read_header(path)
    if len(shape) not in dimensions:
        found = f"{len(shape)} ({by_axis(shape)})"
        says = f"has {len(shape)} dimensions ({by_axis(shape)})"
        advice = SPLIT if len(shape) == 4 else ONE_VOLUME
        raise file_error(path, "dimensions", found, " or ".join(map(str, dimensions)), advice, says)
    if isinstance(source, nibabel.Nifti1Header):
        return nifti.read_nifti_array(path, source), geometry
    try:
        return sitk.GetArrayFromImage(source.Execute()), geometry
    except RuntimeError as error:
        raise nifti.damaged(path, _reader_said(error)) from error


def read_header(path: Path) -> tuple[tuple[int, ...], Geometry, nibabel.Nifti1Header | sitk.ImageFileReader]:
    """Read the header of an image and check it.

    :param path: the file.
    :returns: voxels along x, y, z (, t); the grid in space; the NIfTI header, or the reader of another format.
    :raises FileError: the file is missing or of a format that is not read, or its header cannot be used.
    """
    if not Path(path).is_file():
        raise file_error(path, "file", "no file", "an image", "Check the name.", "does not exist")
    check_format(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    if is_nifti(path):
        header = nifti.read_header(path)
        shape = nifti.voxel_shape(header)
        return shape, _plausible(path, _grid_of_nifti(path, shape, header, reader)), header
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise nifti.damaged(path, _reader_said(error)) from error
    shape, values = reader.GetSize(), reader.GetNumberOfComponents()
    if values != 1:
        says = f"has {values} values per voxel (a colour or vector image)"
        advice = "Save each channel as a file of its own."
        raise file_error(path, "values per voxel", f"{values} (colour or vector)", "1", advice, says)
    check_memory(12 * math.prod(shape), path, f"{by_axis(shape)} voxels")
    return shape, _plausible(path, _spatial(reader)), reader


def _plausible(path: Path, geometry: Geometry) -> Geometry:
    """Check that a grid has a spacing and is where a patient can be.

    :raises FileError: it is not.
    """
    spacing, farthest = by_axis(geometry.spacing), float(np.abs(geometry.corners).max())
    if min(geometry.spacing) > 0 and np.isfinite(geometry.corners).all() and farthest <= FARTHEST:
        return geometry
    advice = "Write the file again from its source."
    if not min(geometry.spacing) > 0:
        raise file_error(path, "spacing", spacing, "finite numbers above 0, mm", advice)
    found = f"a corner {farthest:.3g} mm from the origin, with a spacing of {spacing} mm"
    raise file_error(path, "header", found, f"at most {FARTHEST:g} mm", advice, f"has {found}")


def _grid_of_nifti(
    path: Path, shape: tuple[int, ...], header: nibabel.Nifti1Header, reader: sitk.ImageFileReader
) -> Geometry:
    """Choose the grid: SimpleITK's, if it is that of a transform of the header; else nibabel's transform.

    :raises FileError: the axes of the transform are not perpendicular.
    """
    kept, size = header.binaryblock, (*shape, 1, 1)[:3]
    placements = nifti.placements(header)
    try:
        reader.ReadImageInformation()
        found = replace(_spatial(reader), nifti=kept)
    except RuntimeError:
        found = None  # it refuses some headers that have a usable transform
    if not placements:
        spacing = tuple(header["pixdim"][1:4].astype(float).tolist())
        if found is None or found.size != size or not np.allclose(found.spacing, spacing, rtol=1e-5):
            found = Geometry(size, spacing, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()), kept)
        return found
    expected = {name: _corners(affine, size) for name, affine in placements.items()}
    for corners in expected.values():
        if found is not None and found.size == size and _apart(found.corners, corners) <= SAME_PLACE:
            return found
    # where SimpleITK does not see this image, it reads what is written for it, and must then choose the same transform
    is_seen = found is not None and found.size == size and reader.GetDimension() > 2
    by_itk = "sform" if is_seen or int(header["sform_code"]) == SCANNER else "qform"
    name = by_itk if by_itk in placements else next(iter(placements))
    found = _grid_of_affine(placements[name], size, kept)
    if not _apart(found.corners, expected[name]) <= SAME_PLACE:
        axes = f"axes of the {name} that are not perpendicular (not orthonormal)"
        advice = "Resample the image to a grid with perpendicular axes."
        says = f"has a header that cannot be used: {axes}"
        raise file_error(path, "header", axes, "perpendicular axes", advice, says)
    return found


def _spatial(reader: sitk.ImageFileReader) -> Geometry:
    """Return the first three axes of a grid, of a file with two axes or more."""
    axes = reader.GetDimension()
    matrix = np.eye(max(axes, 3))
    matrix[:axes, :axes] = np.reshape(reader.GetDirection(), (axes, axes))
    return Geometry(
        (*reader.GetSize(), 1, 1)[:3],
        (*reader.GetSpacing(), 1.0, 1.0)[:3],
        (*reader.GetOrigin(), 0.0, 0.0)[:3],
        tuple(matrix[:3, :3].ravel().tolist()),
    )


def _grid_of_affine(affine: np.ndarray, size: tuple[int, ...], header: bytes) -> Geometry:
    """Convert a NIfTI transform to a grid with the perpendicular axes nearest to its own."""
    steps = FLIP[:, None] * affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    left, _, right = np.linalg.svd(steps / spacing)
    origin = FLIP * affine[:3, 3]
    return Geometry(
        size, tuple(spacing.tolist()), tuple(origin.tolist()), tuple((left @ right).ravel().tolist()), header
    )


def _corners(affine: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return ``Geometry.corners`` by a NIfTI transform."""
    return (_outermost(size) @ affine[:3, :3].T + affine[:3, 3]) * FLIP


def _outermost(size: tuple[int, ...]) -> np.ndarray:
    return np.array(list(product(*((0, max(number - 1, 1)) for number in size))), dtype=np.float64)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance between corresponding points, mm."""
    return float(np.linalg.norm(one - other, axis=1).max())


def _as_image(array: np.ndarray, geometry: Geometry) -> sitk.Image:
    """Make an image; along a fourth axis its grid has no unit."""
    image = sitk.GetImageFromArray(array, isVector=False)
    axes, direction = array.ndim, np.eye(array.ndim)
    direction[:3, :3] = np.reshape(geometry.direction, (3, 3))
    image.SetSpacing((*geometry.spacing, 1.0)[:axes])
    image.SetOrigin((*geometry.origin, 0.0)[:axes])
    image.SetDirection(direction.ravel().tolist())
    return image


def two_transforms(geometry: Geometry) -> tuple[str, str, str] | None:
    """Compare both transforms of the NIfTI header that a grid was read from.

    :param geometry: of a file.
    :returns: finding, expectation and advice of a warning; None where they agree, or only one is set.
    """
    grids = geometry.by_transform
    if len(grids) < 2 or (apart := _apart(grids["qform"].corners, grids["sform"].corners)) <= SAME_PLACE:
        return None
    used, other = sorted(grids, key=lambda name: _apart(grids[name].corners, geometry.corners))
    return (
        f"qform and sform place its corners up to {apart:.3g} mm apart",
        "transforms that agree",
        f"The {used} is used, and what is written keeps both. Programs that use the {other} show the volume elsewhere. "
        f"If the {used} is wrong, set qform_code or sform_code so that only the right one counts.",
    )


def _reader_said(error: Exception) -> Exception:
    return RuntimeError(str(error).strip().splitlines()[-1].strip())


def read_scan(paths: tuple[Path, ...]) -> Volume:
    """Read all channels of a scan.

    :param paths: one file per channel, in order.
    :returns: the scan.
    :raises DataError: as :func:`read_image`, or the channels are not on one grid.
    """
    first, geometry = read_array(paths[0])
    array, geometries, kind = np.empty((len(paths), *first.shape), dtype=np.float32), [], first.dtype.name
    for channel, path in enumerate(paths):
        voxels, grid = read_array(path) if channel else (first, geometry)
        advice = "All channels of a scan must be on one grid."
        check_same_grid(grid, path, geometry, f"the first channel, {paths[0]},", advice)
        geometries.append(grid)
        with np.errstate(over="ignore"):
            array[channel] = voxels
    if infinite := describe_infinite(array):
        raise DataError(f"{paths[0]} has voxels beyond the range of 32-bit numbers: {infinite}. Scale the image.")
    doubts = {path: two_transforms(one) for path, one in zip(paths, geometries, strict=True)}
    warnings = tuple(f"{Path(path).name}: {doubt[0]}. {doubt[2]}" for path, doubt in doubts.items() if doubt)
    return Volume(array, geometry, kind, warnings)


def read_label(path: Path | None, image: Path, geometry: Geometry) -> np.ndarray | None:
    """Read the label image of a scan.

    :param path: the file; None: the scan has none.
    :param image: first file of the scan, for messages.
    :param geometry: grid of the scan.
    :returns: (z, y, x), int16; None where there is no file.
    :raises DataError: the label is on another grid, or has values that are not whole numbers of 16 bits.
    """
    if path is None or not path.is_file():
        return None
    array, found = read_array(path)
    check_same_grid(found, path, geometry, f"its image, {image},", label_advice(found, geometry))
    with np.errstate(invalid="ignore"):  # numbers that are too large are found below
        labels = array.astype(np.int16)
    if not np.array_equal(labels, array):
        raise DataError(
            f"{path} has label values that are not whole numbers from -32768 to 32767. Correct the label image."
        )
    return labels


def label_advice(label: Geometry, image: Geometry) -> str:
    """Return the remedy for a label image that is not on the grid of its scan.

    Where the header of one of the two holds the grid of the other in its second transform, the voxels do correspond:
    resampling would displace the labels.
    """
    of_image, of_label = ([grid, *grid.by_transform.values()] for grid in (image, label))
    if any(not one.differences(other) for one in of_image for other in of_label):
        return (
            "The grids differ only by which of the two transforms of a header (qform, sform) is used. Do not resample "
            f"the label image, which would displace it: give it the transforms of its scan: {COPY_TRANSFORMS}"
        )
    return "A label image must be on the grid of its scan. Resample it to that grid with nearest neighbour."


def write_volume(array: np.ndarray, geometry: Geometry, data_type: str, path: Path) -> None:
    """Write one channel, whole or not at all.

    :param array: (z, y, x), rounded and clipped to the range of an integer type.
    :param geometry: its grid.
    :param data_type: NumPy name of the type in the file.
    :param path: the file. NIfTI files get both transforms of the file that the grid was read from.
    :raises DataError: a voxel is NaN or infinite, or the file cannot be written.
    """
    try:
        converted = as_type(array, data_type)
    except DataError as error:
        raise DataError(f"{path} is not written. {error}") from error
    with atomic_write(path) as temporary:
        if geometry.nifti and is_nifti(path):
            nifti.write_nifti(converted, geometry.nifti, temporary)
            return
        try:
            sitk.WriteImage(_as_image(converted, geometry), str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(0, str(error).strip().splitlines()[-1].strip()) from error


def as_type(array: np.ndarray, data_type: str) -> np.ndarray:
    """Round and clip to an integer type; cast to a floating one.

    :raises DataError: a voxel is NaN or infinite.
    """
    if infinite := describe_infinite(array):
        raise DataError(
            f"The volume has voxels that are no numbers: {infinite}. Expected finite numbers. If a network made it, "
            "its weights or its input are damaged."
        )
    kind = np.dtype(data_type)
    if kind.kind not in "iu" or array.dtype == kind:
        return array.astype(kind)
    limits, converted = np.iinfo(kind), np.empty(array.shape, kind)
    for place, values in enumerate(array):
        # in float64: float32 cannot hold the limits of 32 bits, and would round them out of the range
        converted[place] = np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max)
    return converted
