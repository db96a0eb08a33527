import struct

import numpy as np
import pytest
from pydicom.dataelem import DataElement

from longflow.dicom.headers import read_file
from longflow.dicom.libraries import require_dicom
from longflow.dicom.siemens import CSA, read_csa
from longflow.dicom.stacks import stacks_of
from longflow.dicom.volume import read_volume
from tests.dicom.helpers import MR, phantom, set_pixels, slice_header


def csa(**elements) -> bytes:
    """Write a CSA header as Siemens does."""
    content = b"SV10" + b"\4\3\2\1" + struct.pack("<II", len(elements), 77)
    for name, values in elements.items():
        content += struct.pack("<64sI4sIII", name.encode(), len(values), b"DS", 0, len(values), 77)
        for value in values:
            text = str(value).encode() + b"\0"
            content += struct.pack("<4I", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return content


def test_csa():
    assert read_csa(csa(NumberOfImagesInMosaic=[6], SliceNormalVector=[0, 0, 1.0])) == {
        "NumberOfImagesInMosaic": ["6"],
        "SliceNormalVector": ["0", "0", "1.0"],
    }
    assert read_csa(b"another header") == {}


@pytest.mark.parametrize("reverse", [False, True])
def test_mosaic(tmp_path, reverse):
    """Six slices of 10 x 12 as 3 x 3 tiles; the position is stated as if the mosaic had the centre of a tile."""
    volume = phantom((6, 10, 12))
    tiles = np.zeros((30, 36), np.int16)
    for place, pixels in enumerate(volume):
        row, column = divmod(place, 3)
        tiles[row * 10 : row * 10 + 10, column * 12 : column * 12 + 12] = pixels
    header = slice_header(SOPClassUID=MR, Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    set_pixels(header, tiles, intercept=None)
    header.ImageOrientationPatient, header.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.5]
    header.SliceThickness, header.SpacingBetweenSlices = 2.5, 3
    header.ImagePositionPatient = [-20 - 0.5 * (36 - 12) / 2, -30 - 0.8 * (30 - 10) / 2, 40]
    normal = [0, 0, -1 if reverse else 1]
    header.add(DataElement(0x00290010, "LO", "SIEMENS CSA HEADER"))
    header.add(DataElement(CSA, "OB", csa(NumberOfImagesInMosaic=[6], SliceNormalVector=normal)))
    header.save_as(tmp_path / "a", enforce_file_format=True)
    require_dicom()
    instance, frames = read_file(tmp_path / "a")
    assert not instance.problem and len(frames) == 6
    (stack,) = stacks_of(frames)
    array, geometry = read_volume(stack.points[0])
    np.testing.assert_array_equal(array, volume[::-1] if reverse else volume)
    assert geometry.origin == pytest.approx((-20, -30, 40 - 15 * reverse)) and geometry.spacing == (0.5, 0.8, 3)
