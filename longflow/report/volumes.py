"""Volumes inside a page: 8-bit NIfTI for the viewer, and a PNG strip for browsers without WebGL.

A page is one file that is sent by mail, so its volumes have 256 levels, and are averaged over blocks of voxels where
they would be too large. The header holds the levels' units and the blocks' places: a viewer shows values and mm.
"""

import gzip
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import nibabel
import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave

from longflow.data.images import FLIP, Geometry

#: levels of 8 bits
LEVELS = 256
#: of the values of a scan, the percentiles that bound the levels; a few voxels beyond would take levels from the others
CLIPPED = 0.1, 99.9
#: likewise, of the window that is shown first: organs and lesions rather than a few bright vessels
WINDOW = 1.0, 98.5
#: voxels of a scan, at most, that percentiles are computed from
MOST_MEASURED = 2_000_000
#: pixels of the longest side in a strip
STRIP_PIXELS = 160


@dataclass(frozen=True)
class Levels:
    """The values that 256 levels stand for.

    :param low: of level 0, input units.
    :param step: between two levels, input units.
    """

    low: float
    step: float

    @classmethod
    def between(cls, low: float, high: float) -> "Levels":
        """Return the levels from the lowest to the highest value; a constant has levels, too."""
        return cls(low, (high - low) / (LEVELS - 1) if high > low else 1.0)

    @classmethod
    def around_zero(cls, largest: float) -> "Levels":
        """Return the levels of differences up to a largest one; zero is a level."""
        step = largest / (LEVELS // 2 - 1) if largest > 0 else 1.0
        return cls(-step * (LEVELS // 2 - 1), step)

    @property
    def high(self) -> float:
        """Return the value of the last level."""
        return self.low + self.step * (LEVELS - 1)

    def of(self, array: np.ndarray) -> np.ndarray:
        """Return the nearest level of each value, uint8; values beyond the levels have the first or last one."""
        return np.clip(np.rint((array - self.low) / self.step), 0, LEVELS - 1).astype(np.uint8)


@dataclass(frozen=True)
class Shown:
    """A volume of a page.

    :param voxels: (z, y, x), uint8.
    :param affine: (4, 4), from voxel (x, y, z) to mm right, anterior, superior.
    :param levels: of the voxels; None: labels.
    """

    voxels: np.ndarray
    affine: np.ndarray
    levels: Levels | None = None

    @cached_property
    def nifti(self) -> bytes:
        """Return the volume as a compressed NIfTI file; the same volume gives the same bytes."""
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape(self.voxels.shape[::-1])
        header.set_sform(self.affine, code=1)
        header.set_qform(self.affine, code=1)
        header.set_xyzt_units("mm")
        levels = self.levels or Levels(0.0, 1.0)
        header["scl_slope"], header["scl_inter"], header["vox_offset"] = levels.step, levels.low, 352
        return gzip.compress(header.binaryblock + bytes(4) + self.voxels.tobytes(), 6, mtime=0)

    def strip(self, colours: str = "gray") -> bytes:
        """Draw the middle planes next to each other: axial, coronal, sagittal, in radiological view.

        :param colours: matplotlib's name; level 0 has the first colour, level 255 the last one.
        :returns: a PNG file.
        """
        return _png((255 * colormaps[colours](self.planes())[..., :3]).round().astype(np.uint8))

    def label_strip(self, colours: Sequence[tuple[int, int, int]]) -> bytes:
        """Draw the middle planes of labels as :meth:`strip` does; the background is transparent.

        :param colours: of the labels 1, 2 and so on.
        :returns: a PNG file.
        """
        palette = np.array([(0, 0, 0, 0), *((*colour, 255) for colour in colours)], np.uint8)
        return _png(palette[self.planes()])

    def planes(self) -> np.ndarray:
        """Return the middle planes next to each other, in square pixels: (rows, columns)."""
        turn = nibabel.io_orientation(self.affine)
        canonical = nibabel.apply_orientation(self.voxels.T, turn)  # right, anterior, superior
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
        pixel = max(np.array(canonical.shape) * spacing) / STRIP_PIXELS
        x, y, z = (
            np.minimum((np.arange(max(1, round(count * size / pixel))) * pixel / size).astype(int), count - 1)
            for count, size in zip(canonical.shape, spacing, strict=True)
        )
        middle = [count // 2 for count in canonical.shape]
        planes = (
            canonical[np.ix_(x[::-1], y[::-1])][..., middle[2]].T,
            canonical[:, middle[1]][np.ix_(x[::-1], z[::-1])].T,
            canonical[middle[0]][np.ix_(y[::-1], z[::-1])].T,
        )
        height = max(plane.shape[0] for plane in planes)
        return np.concatenate([np.pad(plane, ((0, height - len(plane)), (0, 4))) for plane in planes], axis=1)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    imsave(file, pixels, format="png")
    return file.getvalue()


def affine_of(geometry: Geometry) -> np.ndarray:
    """Return the NIfTI transform of a grid: (4, 4), from voxel (x, y, z) to mm right, anterior, superior."""
    affine = np.eye(4)
    affine[:3, :3] = FLIP[:, None] * np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    affine[:3, 3] = FLIP * geometry.origin
    return affine


def factors_of(geometry: Geometry, coarsest: float) -> tuple[int, int, int]:
    """Return the voxels of a block along (z, y, x) so that no block is larger than a spacing.

    :param coarsest: mm; axes with this spacing, or a larger one, stay as they are.
    """
    z, y, x = (
        max(1, min(int(coarsest / spacing + 1e-6), size))
        for spacing, size in zip(geometry.array_spacing, reversed(geometry.size), strict=True)
    )
    return z, y, x


def shrunk(array: np.ndarray, affine: np.ndarray, factors: Sequence[int], labels: bool = False) -> tuple:
    """Average blocks of voxels; of labels, take the middle one.

    :param array: (z, y, x). :param affine: (4, 4), of :func:`affine_of`.
    :param factors: voxels of a block along (z, y, x); voxels that fill no block are cut off.
    :returns: the array, and its transform: the centre of a block is where it was.
    """
    if max(factors) == 1:
        return array, affine
    steps = np.array(factors)
    size = np.array(array.shape) // steps
    kept = array[tuple(slice(0, count * step) for count, step in zip(size, steps, strict=True))]
    if labels:
        start = (steps - 1) // 2
        small = kept[tuple(slice(first, None, step) for first, step in zip(start, steps, strict=True))]
        centre = start.astype(float)
    else:
        blocks = np.stack([size, steps], axis=1).ravel()
        small = kept.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)
        centre = (steps - 1) / 2
    moved = affine.copy()
    moved[:3, :3] = affine[:3, :3] * steps[::-1]
    moved[:3, 3] = affine[:3, :3] @ centre[::-1] + affine[:3, 3]
    return small, moved


def bounds(array: np.ndarray, percentiles: tuple[float, float] = CLIPPED) -> tuple[float, float]:
    """Return the values between which nearly all voxels are; of a large volume, evenly spaced voxels are measured."""
    step = math.ceil((array.size / MOST_MEASURED) ** (1 / array.ndim))
    low, high = np.percentile(array[(slice(None, None, step),) * array.ndim], percentiles)
    return float(low), float(high)
