"""Read and write volumes with their geometry, by SimpleITK."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from longflow.data.nifti import describe_infinite, is_nifti, read_nifti_array
from longflow.errors import DataError
from longflow.files import atomic_write

# ITK writes a warning to the screen for each file with a questionable header; the integrity check reports those once
sitk.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume, in SimpleITK's order (x, y, z).

    :param size: voxels.
    :param spacing: mm.
    :param origin: mm.
    :param direction: 9 cosines, row-major.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> "Geometry":
        """Return the grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def array_spacing(self) -> tuple[float, float, float]:
        """Return the spacing in the order of the array's axes (z, y, x), mm."""
        return tuple(abs(value) for value in reversed(self.spacing))

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
    image = read_image_of_any_size(path)
    if image.GetDimension() != 3:
        raise DataError(
            f"{path} has {image.GetDimension()} dimensions ({by_axis(image.GetSize())}), expected 3: one file per scan "
            "and channel. A 4D series can be split with: longflow_import nifti4d"
        )
    return image


def read_geometry(path: Path) -> Geometry:
    """Read the grid of an image from its header.

    :param path: the file.
    :returns: its grid.
    :raises DataError: the header cannot be read.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return Geometry.of(read_image(path))  # raises the error that explains the file
    return Geometry(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def read_image_of_any_size(path: Path) -> sitk.Image:
    """Read an image of any number of dimensions with one finite value per voxel.

    :param path: the file.
    :returns: the image.
    :raises DataError: as :func:`read_image`.
    """
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist.")
    # ITK would silently fill a truncated NIfTI file with zeros and replace NaN by zeros
    array = read_nifti_array(path) if is_nifti(path) else None
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        if array is not None:
            raise DataError(f"{path} has a header that cannot be used. {reader_words(error)}") from error
        raise DataError(
            f"{path} is truncated, damaged or not an image. Copy it again from its source. {reader_words(error)}"
        ) from error
    if array is None:
        array = sitk.GetArrayViewFromImage(image)
    if infinite := describe_infinite(array):
        raise DataError(
            f"{path} has voxels that are no numbers: {infinite}. Replace them by the value of their surroundings or "
            "of air, or exclude the scan."
        )
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values per voxel (a colour or vector image), "
            "expected 1."
        )
    return image


def reader_words(error: Exception) -> str:
    """Quote the message of SimpleITK without the place in its source code."""
    return f"(The reader said: {str(error).strip().splitlines()[-1].strip()})"


def read_scan(paths: tuple[Path, ...]) -> Volume:
    """Read all channels of a scan.

    :param paths: one file per channel, in order.
    :returns: the scan.
    :raises DataError: as :func:`read_image`, or the channels are not on one grid.
    """
    images = [read_image(path) for path in paths]
    geometry = Geometry.of(images[0])
    for path, image in zip(paths[1:], images[1:], strict=True):
        check_same_grid(
            Geometry.of(image),
            path,
            geometry,
            f"the first channel, {paths[0]},",
            "All channels of a scan must be on one grid.",
        )
    array = np.stack([sitk.GetArrayFromImage(image).astype(np.float32) for image in images])
    return Volume(array, geometry, sitk.GetArrayViewFromImage(images[0]).dtype.name)


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
    found = read_image(path)
    advice = "A label image must be on the grid of its scan."
    check_same_grid(Geometry.of(found), path, geometry, f"its image, {image},", advice)
    array = sitk.GetArrayFromImage(found)
    labels = array.astype(np.int16)
    if not np.array_equal(labels, array):
        raise DataError(
            f"{path} has label values that are not whole numbers from -32768 to 32767. Correct the label image."
        )
    return labels


def write_volume(array: np.ndarray, geometry: Geometry, data_type: str, path: Path) -> None:
    """Write one channel, whole or not at all.

    :param array: (z, y, x), rounded and clipped to the range of an integer type.
    :param geometry: its grid.
    :param data_type: NumPy name of the type in the file.
    :param path: the file.
    :raises DataError: a voxel is NaN or infinite, which whole numbers would hide; or the file cannot be written.
    """
    if infinite := describe_infinite(array):
        raise DataError(f"{path} is not written: its voxels would be no numbers: {infinite}.")
    image = sitk.GetImageFromArray(as_type(array, data_type))
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    with atomic_write(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(0, str(error).strip().splitlines()[-1].strip()) from error


def as_type(array: np.ndarray, data_type: str) -> np.ndarray:
    """Round and clip to an integer type; cast to a floating one."""
    kind = np.dtype(data_type)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        # in float64: float32 cannot hold the limits of 32 bits, and would round them out of the range
        return np.clip(np.rint(array.astype(np.float64)), limits.min, limits.max).astype(kind)
    return array.astype(kind)
