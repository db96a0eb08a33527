"""Siemens' MOSAIC: all slices of a volume as tiles of one image, described in a private header (CSA)."""

import math
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

#: private tags: number of tiles (of the group "SIEMENS MR HEADER"), and the CSA image header
TILES, CSA = 0x0019100A, 0x00291010


class Mosaic(NamedTuple):
    """The tiles of a mosaic, row by row from the upper left.

    :param tiles: number of slices.
    :param per_row: tiles in a row, and rows of tiles.
    :param reverse: the slices go against the cross product of row and column direction.
    """

    tiles: int
    per_row: int
    reverse: bool


def mosaic_of(header: "Dataset", image_type: tuple[str, ...]) -> Mosaic | None:
    """Describe a mosaic.

    :param header: of the file, with the private tags of this module.
    :param image_type: of the file.
    :returns: None where the file is no mosaic.
    :raises ValueError: the number of its slices is not in the header.
    """
    if "MOSAIC" not in image_type:
        return None
    csa = read_csa(bytes(header[CSA].value)) if CSA in header else {}
    stated = header[TILES].value if TILES in header else (csa.get("NumberOfImagesInMosaic") or [None])[0]
    if stated is None:
        raise ValueError("a MOSAIC without the number of its slices (0019,100A or CSA header)")
    if isinstance(stated, bytes):  # implicit VR: the type of a private tag is not in the file
        stated = int.from_bytes(stated[:2], "little")
    tiles = int(float(stated))
    across, down = np.reshape([float(value) for value in header.ImageOrientationPatient], (2, 3))
    normal = [float(value) for value in csa.get("SliceNormalVector", [])[:3]]
    reverse = len(normal) == 3 and float(np.dot(np.cross(across, down), normal)) < 0
    return Mosaic(tiles, math.ceil(math.sqrt(tiles)), reverse)


def read_csa(content: bytes) -> dict[str, list[str]]:
    """Read the elements of a CSA header (SV10).

    :param content: the bytes of the private element.
    :returns: the values of each element as text; empty where the header is of another kind.
    """
    if content[:4] != b"SV10":
        return {}
    found: dict[str, list[str]] = {}
    (count,) = struct.unpack_from("<I", content, 8)
    place = 16
    for _ in range(min(count, 1000)):
        name, items = struct.unpack_from("<64s12xI4x", content, place)
        place += 84
        values = []
        for _ in range(min(items, 100)):
            (length,) = struct.unpack_from("<4xI8x", content, place)
            place += 16
            values.append(content[place : place + length].split(b"\0")[0].decode("latin-1").strip())
            place += (length + 3) // 4 * 4
        found[name.split(b"\0")[0].decode("latin-1")] = [value for value in values if value]
    return found
