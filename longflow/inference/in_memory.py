"""Scans in memory, for the Python interface: arrays and SimpleITK images."""

import math
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from longflow.data.images import Geometry, Volume
from longflow.errors import DataError


def volume_of(scan: np.ndarray | sitk.Image, spacing: Sequence[float] | None) -> Volume:
    """Convert a scan to a volume.

    :param scan: an image, or an array (z, y, x) or (channels, z, y, x).
    :param spacing: (z, y, x), mm; of an array.
    :returns: the volume, float32, with the scan's type noted.
    :raises DataError: an array of another shape, or without a usable spacing.
    """
    if isinstance(scan, sitk.Image):
        array = sitk.GetArrayFromImage(scan)
        array = np.moveaxis(array, -1, 0) if scan.GetNumberOfComponentsPerPixel() > 1 else array[None]
        return Volume(array.astype(np.float32), Geometry.of(scan), array.dtype.name)
    array = np.asarray(scan)
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or spacing is None or len(spacing) != 3:
        raise DataError(
            f"Arrays need the shape (z, y, x) or (channels, z, y, x), and a spacing of three numbers in mm; "
            f"found shape {np.shape(scan)} and spacing {spacing}."
        )
    if not all(0 < value < math.inf for value in spacing):
        raise DataError(f"The spacing is {spacing}, expected three finite numbers above 0, in mm.")
    geometry = Geometry(
        size=array.shape[:0:-1],
        spacing=tuple(float(value) for value in reversed(spacing)),
        origin=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    return Volume(array.astype(np.float32), geometry, array.dtype.name)


def image_like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    """Convert an array (channels, z, y, x) to an image on the grid of another."""
    channels = [sitk.GetImageFromArray(channel) for channel in array]
    result = channels[0] if len(channels) == 1 else sitk.Compose(channels)
    result.CopyInformation(image)
    return result
