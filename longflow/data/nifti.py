"""The voxels of a NIfTI file as they are stored.

SimpleITK reads a truncated NIfTI file without an error and fills the rest with zeros; it also replaces NaN and infinite
voxels by zero. Therefore files are first read here, with nibabel.
"""

import gzip
import zlib
from pathlib import Path

import nibabel
import nibabel.wrapstruct
import numpy as np

from longflow.errors import DataError

NIFTI2_HEADER = 540  # bytes; a file starts with the length of its header
NIBABEL_ERRORS = (
    nibabel.spatialimages.HeaderDataError,
    nibabel.filebasedimages.ImageFileError,
    nibabel.wrapstruct.WrapStructError,
)


def is_nifti(path: Path) -> bool:
    """Tell whether a path has the name of a NIfTI file in one piece."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def read_nifti_array(path: Path) -> np.ndarray:
    """Read all voxels with the scaling of the file.

    :param path: the file.
    :returns: (z, y, x) or (t, z, y, x), SimpleITK's order of axes.
    :raises DataError: the file is truncated, damaged (its checksum is wrong), or not NIfTI.
    """
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        if NIFTI2_HEADER in (int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")):
            raise DataError(f"{path} is NIfTI-2, which SimpleITK cannot read. Write it again as NIfTI-1.")
        return np.asanyarray(nibabel.Nifti1Image.from_bytes(content).dataobj).T
    except (OSError, EOFError, ValueError, zlib.error, *NIBABEL_ERRORS) as error:
        raise DataError(
            f"{path} is truncated, damaged or not an image. Copy it again from its source. "
            f"(The reader said: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
        ) from error


def describe_infinite(array: np.ndarray) -> str:
    """Count the voxels that are NaN or infinite.

    :param array: (z, y, x) or (t, z, y, x).
    :returns: numbers and place of the first (x, y, z), human-readable; empty where all are finite.
    """
    # the sum of finite numbers is finite unless they are huge; it saves testing every voxel
    with np.errstate(over="ignore", invalid="ignore"):
        if array.dtype.kind != "f" or np.isfinite(array.sum(dtype=np.float64)):
            return ""
    counts = ((int(np.isnan(array).sum()), "NaN"), (int(np.isinf(array).sum()), "infinite"))
    if not any(count for count, _ in counts):
        return ""
    first = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0][::-1])
    return f"{' and '.join(f'{count} {name}' for count, name in counts if count)}, the first at {first}"
