"""Read the volume of a stack: pixels in their units on a grid with perpendicular axes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from longflow.data.images import Geometry
from longflow.dicom.headers import Frame
from longflow.dicom.libraries import require_dicom
from longflow.dicom.stacks import geometry_of, problem_of, tilt_of
from longflow.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class DicomVolume:
    """A volume of one time, which is read when it is needed.

    :param frames: its slices, sorted along their normal.
    """

    frames: tuple[Frame, ...]

    @property
    def files(self) -> list[Path]:
        """Return its files, each once."""
        return list(dict.fromkeys(frame.instance.path for frame in self.frames))

    @property
    def name(self) -> str:
        """Return its first file, for messages."""
        return str(self.frames[0].instance.path)

    def read(self) -> tuple[np.ndarray, Geometry]:
        """Read the voxels, as :func:`read_volume`."""
        return read_volume(self.frames)


def read_volume(frames: Sequence[Frame]) -> tuple[np.ndarray, Geometry]:
    """Read a stack of slices as a volume.

    Stored values become output values by the rescale of each slice, and measured ones by Philips' scale slope (as
    Chenevert et al., Translational Oncology 7, 2014). Slices of a tilted gantry are resampled linearly to a straight
    grid that holds all of them; outside of them it has the lowest value of the volume.

    :param frames: sorted along their normal.
    :returns: (z, y, x): int16, uint16 or int32 where all values are whole, else float32; the grid.
    :raises DataError: slices are missing, doubled, unequally spaced or shifted, or pixels cannot be decoded.
    """
    require_dicom()
    if problem := problem_of(frames):
        raise DataError(f"{frames[0].instance.path} and the other files of its series are no volume: {problem}.")
    geometry = geometry_of(frames)
    volume = np.empty(geometry.size[::-1], np.float64)
    for place, pixels in _stored(frames):
        frame = frames[place]
        values = pixels * np.float64(frame.slope) + frame.intercept
        volume[place] = values / (frame.slope * frame.scale_slope) if frame.scale_slope and frame.slope else values
    shift = tilt_of(frames)
    if shift.any():
        volume, geometry = _straightened(volume, geometry, shift)
    return _compact(volume), geometry


def read_slice(frame: Frame) -> np.ndarray:
    """Read the output values of one slice, (rows, columns), float64.

    :raises DataError: its pixels cannot be decoded.
    """
    require_dicom()
    ((_, pixels),) = _stored([frame])
    return pixels * np.float64(frame.slope) + frame.intercept


def _stored(frames: Sequence[Frame]) -> Iterator[tuple[int, np.ndarray]]:
    """Return (place, stored values) of each slice; each file is opened once."""
    places: dict[Path, list[int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(frame.instance.path, []).append(place)
    for path, of_file in places.items():
        pixels = _pixels(path)
        for place in of_file:
            frame = frames[place]
            if pixels.ndim == 3 and frame.index >= len(pixels):
                raise DataError(f"{path} has {len(pixels)} frames, but its header describes more. Export it again.")
            image = pixels[frame.index] if pixels.ndim == 3 else pixels
            if frame.tile >= 0:
                rows, columns = frame.size
                down, across = divmod(frame.tile, frame.per_row)
                image = image[down * rows : (down + 1) * rows, across * columns : (across + 1) * columns]
            if image.shape != frame.size:
                raise DataError(f"{path} has a slice of {image.shape} pixels, its header describes {frame.size}.")
            yield place, image


def _pixels(path: Path) -> np.ndarray:
    """Decode the stored values of a file: (rows, columns) or (frames, rows, columns)."""
    import pydicom

    try:
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # a file without preamble
            little, implicit = dataset.original_encoding[1], dataset.original_encoding[0]
            syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = syntax if little else pydicom.uid.ExplicitVRBigEndian
        return _without_unused_bits(dataset.pixel_array, dataset)
    except Exception as error:  # decoders raise many kinds for damaged pixels
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path}: its pixels cannot be decoded, since they are damaged, truncated or of an unknown compression. "
            f"Export the series again, or exclude it (use = no). (The decoder said: {cause[:300]})"
        ) from error


def _without_unused_bits(pixels: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Clear the bits above BitsStored, in which old files keep overlays; signed values keep their sign."""
    unused = 8 * pixels.dtype.itemsize - int(dataset.get("BitsStored") or 0)
    if pixels.dtype.kind not in "iu" or not 0 < unused < 8 * pixels.dtype.itemsize:
        return pixels
    return np.right_shift(np.left_shift(pixels, unused), unused)


def _straightened(volume: np.ndarray, geometry: Geometry, shift: np.ndarray) -> tuple[np.ndarray, Geometry]:
    """Resample slices that are shifted against each other by a constant (rows, columns), pixels."""
    shifts = np.arange(len(volume))[:, None] * shift
    before = np.ceil(np.maximum(0, -shifts.min(axis=0))).astype(int)
    after = np.ceil(np.maximum(0, shifts.max(axis=0))).astype(int)
    lowest = float(volume.min())
    padded = np.pad(volume, ((0, 0), *zip(before, after, strict=True)), constant_values=lowest)
    for place, slice_shift in enumerate(shifts):
        padded[place] = ndimage.shift(padded[place], slice_shift, order=1, mode="constant", cval=lowest)
    across, down = np.reshape(geometry.direction, (3, 3)).T[:2]
    origin = (
        np.array(geometry.origin) - before[1] * geometry.spacing[0] * across - before[0] * geometry.spacing[1] * down
    )
    return padded, replace(geometry, size=padded.shape[::-1], origin=tuple(origin.tolist()))


def _compact(volume: np.ndarray) -> np.ndarray:
    """Convert to the smallest usual type that holds every value exactly; else float32."""
    if np.array_equal(volume, np.rint(volume)):
        low, high = volume.min(), volume.max()
        for data_type in (np.int16, np.uint16, np.int32):
            if np.iinfo(data_type).min <= low and high <= np.iinfo(data_type).max:
                return volume.astype(data_type)
    return volume.astype(np.float32)
