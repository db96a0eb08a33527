import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from longflow.dicom.files import read_export
from longflow.dicom.headers import SCALE_SLOPE
from longflow.dicom.stacks import stacks_of
from longflow.dicom.volume import DicomVolume, read_volume
from longflow.errors import DataError
from tests.conftest import outside_data
from tests.dicom.helpers import MR, edit, enhanced, phantom, save_big_endian, set_pixels, write_series

#: encoders of JPEG 2000 need 32 pixels
LARGE = phantom((6, 40, 48))


def stacks(folder):
    return stacks_of(read_export(folder, 1).frames)


def volume(folder):
    (stack,) = stacks(folder)
    return read_volume(stack.points[0])


def as_nifti(array, geometry):
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    affine[:3, 3] = geometry.origin
    return nibabel.as_closest_canonical(nibabel.Nifti1Image(array.T, np.diag([-1, -1, 1, 1]) @ affine))


def by_dcm2niix(folder: Path, out: Path):
    """Convert a folder by dcm2niix; return the images."""
    import dcm2niix

    out.mkdir()
    arguments = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "%s", "-o", str(out), str(folder)]
    subprocess.run(arguments, check=True, capture_output=True)
    return [nibabel.as_closest_canonical(nibabel.load(path)) for path in sorted(out.glob("*.nii"))]


def test_values_and_type(tmp_path):
    write_series(tmp_path)
    array, geometry = volume(tmp_path)
    np.testing.assert_array_equal(array, phantom())
    assert array.dtype == np.int16 and geometry.origin == (-20, -30, 40)


def rle(path):
    header = pydicom.dcmread(path)
    header.compress(RLELossless)
    header.save_as(path)


def jpeg2000(path):
    header = pydicom.dcmread(path)
    header.compress(JPEG2000Lossless)
    header.save_as(path)


def jpegls(path):
    header = pydicom.dcmread(path)
    header.compress(JPEGLSLossless)
    header.save_as(path)


def jpeg_lossless(path):
    """By SimpleITK's GDCM, which pydicom has no encoder for."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("compress", [rle, jpeg2000, jpegls, jpeg_lossless])
def test_compressed_pixels(tmp_path, compress):
    for path in write_series(tmp_path, LARGE):
        compress(path)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(volume(tmp_path)[0], LARGE)


def test_big_endian(tmp_path):
    for path in write_series(tmp_path):
        save_big_endian(path)
    np.testing.assert_array_equal(volume(tmp_path)[0], phantom())


def test_signed_pixels_without_rescale(tmp_path):
    write_series(tmp_path, change=lambda header, place: set_pixels(header, phantom()[place], intercept=None))
    array, _ = volume(tmp_path)
    assert array.min() < 0
    np.testing.assert_array_equal(array, phantom())


def test_signed_pixels_with_rescale(tmp_path):
    def change(header, place):
        set_pixels(header, phantom()[place], intercept=None)
        header.RescaleSlope, header.RescaleIntercept = 2, 5

    write_series(tmp_path, change=change)
    np.testing.assert_array_equal(volume(tmp_path)[0], 2 * phantom() + 5)


def test_a_rescale_of_each_slice(tmp_path):
    def change(header, place):
        set_pixels(header, phantom()[place].astype(float), slope=0.5 + place, intercept=-1024)

    write_series(tmp_path, change=change)
    array, _ = volume(tmp_path)
    np.testing.assert_allclose(array, phantom(), atol=3)
    stored = np.rint((phantom()[3] + 1024) / 3.5)
    np.testing.assert_allclose(array[3], stored * 3.5 - 1024, rtol=1e-6)


def test_overlays_in_unused_bits(tmp_path):
    def change(header, place):
        header.PixelData = (np.frombuffer(header.PixelData, np.uint16) | 0x8000).tobytes()
        header.BitsStored, header.HighBit = 12, 11

    write_series(tmp_path, change=change)
    np.testing.assert_array_equal(volume(tmp_path)[0], phantom())


def philips(folder):
    """MR with another scale slope in each slice; the measured value is stored value * slope / (slope * scale slope)."""

    def change(header, place):
        header.add(DataElement(0x20050010, "LO", "Philips MR Imaging DD 001"))
        header.add(DataElement(0x2005100D, "FL", 0.0))
        header.add(DataElement(SCALE_SLOPE, "FL", 0.5))
        set_pixels(header, 500 + phantom()[place] + 1000.0, slope=2, intercept=0)

    values = {"SOPClassUID": MR, "Modality": "MR", "Manufacturer": "Philips Medical Systems", "EchoTime": 3}
    write_series(folder, change=change, ImageType=["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], **values)


def test_scale_slope_of_philips(tmp_path):
    philips(tmp_path)
    stored = np.rint((1500.0 + phantom()) / 2)
    np.testing.assert_allclose(volume(tmp_path)[0], stored / 0.5)


def test_enhanced_ct_by_the_groups_of_its_frames(tmp_path):
    enhanced(phantom(), orders=[3, 0, 5, 1, 4, 2]).save_as(tmp_path / "a", enforce_file_format=True)
    array, geometry = volume(tmp_path)
    np.testing.assert_allclose(array, phantom(), atol=0.5)
    assert geometry.origin == (-20, -30, 40) and geometry.spacing == (0.5, 0.8, 3)


@pytest.mark.parametrize("tilt", [0.8, -1.3])
def test_a_tilted_gantry_is_resampled(tmp_path, tilt):
    """A plane in space stays that plane: linear interpolation of it is exact."""
    z, y, x = np.indices((6, 20, 12))
    position = 40 + 3.0 * z, -30 + 0.8 * y + tilt * z, -20 + 0.5 * x
    truth = np.rint(1000 * (0.5 * position[0] + 0.25 * position[1] - 0.125 * position[2])) / 10
    write_series(tmp_path, truth, tilt=tilt, change=lambda header, p: set_pixels(header, truth[p], 0.5, -6000))
    array, geometry = volume(tmp_path)
    assert np.reshape(geometry.direction, (3, 3)) == pytest.approx(np.eye(3))
    z, y, x = np.indices(array.shape)
    place = [
        start + step * index for start, step, index in zip(geometry.origin, geometry.spacing, (x, y, z), strict=True)
    ]
    expected = 100 * (0.5 * place[2] + 0.25 * place[1] - 0.125 * place[0])
    inside = array > array.min() + 1
    # interpolation at the border mixes with air
    rows = inside.all(axis=(0, 2))
    assert rows.sum() >= 10
    np.testing.assert_allclose(array[:, rows], expected[:, rows], atol=0.6)


def test_damaged_pixels_are_said(tmp_path):
    paths = write_series(tmp_path)
    rle(paths[2])
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[:-60])
    with pytest.raises(DataError, match=r"its pixels cannot be decoded"):
        volume(tmp_path)


def test_a_stack_with_a_problem_is_refused(tmp_path):
    write_series(tmp_path, skip=(3,))
    with pytest.raises(DataError, match="are no volume: missing slices"):
        volume(tmp_path)


def test_files_of_a_volume(tmp_path):
    paths = write_series(tmp_path)
    (stack,) = stacks(tmp_path)
    one = DicomVolume(stack.points[0])
    assert one.files == paths and one.name == str(paths[0])
    np.testing.assert_array_equal(one.read()[0], phantom())


@pytest.mark.parametrize("kind", ["plain", "oblique", "jpeg2000", "philips"])
def test_equal_to_dcm2niix(tmp_path, kind):
    folder = tmp_path / "in"
    if kind == "philips":
        philips(folder)
    else:
        paths = write_series(
            folder, LARGE, orientation=(0.8, 0.6, 0, 0, 0, -1) if kind == "oblique" else (1, 0, 0, 0, 1, 0)
        )
        for path in paths if kind == "jpeg2000" else ():
            jpeg2000(path)
    ours = as_nifti(*volume(folder))
    (theirs,) = by_dcm2niix(folder, tmp_path / "out")
    np.testing.assert_allclose(ours.get_fdata(), theirs.get_fdata(), rtol=1e-5)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-3)


REAL = [
    *("ge/anatomical/001", "ge/anatomical/001_implicit", "ge/anatomical/001_single_slice", "ge/dti/001", "ge/dti/002"),
    *("ge/dti/001_implicit", "ge/fmri/001", "ge/fmri/001_implicit", "hitachi/anatomical/001"),
    *("hitachi/anatomical/001_implicit", "hyperfine/anatomical/001", "siemens_multiframe/anatomical/001"),
]


@pytest.mark.parametrize("name", REAL)
def test_real_scans_of_vendors(name):
    folder = outside_data(f"dicom/{name}")
    truth = nibabel.as_closest_canonical(nibabel.load(folder.with_name(f"{folder.name}_ground_truth.nii.gz")))
    expected = np.asarray(truth.dataobj)
    expected = expected if expected.ndim == 4 else expected[..., None]
    found = [as_nifti(*read_volume(point)) for stack in stacks(folder) for point in stack.points]
    assert len(found) == expected.shape[3]
    for place, one in enumerate(found):
        np.testing.assert_array_equal(np.asarray(one.dataobj), expected[..., place])
        np.testing.assert_allclose(one.affine, truth.affine, atol=1e-3)


def test_a_real_cine():
    folder = outside_data("sunnybrook")
    (stack,) = stacks(folder / "dicom" / "SCD0000301")
    truth = nibabel.as_closest_canonical(nibabel.load(folder / "nifti" / "SCD0000301_cine.nii.gz"))
    expected = np.asarray(truth.dataobj)
    assert len(stack.points) == expected.shape[3]
    for place in (0, 7, 19):
        one = as_nifti(*read_volume(stack.points[place]))
        np.testing.assert_array_equal(np.asarray(one.dataobj), expected[..., place])
        np.testing.assert_allclose(one.affine, truth.affine, atol=1e-2)


def test_more_frames_in_the_header_than_in_the_pixels(tmp_path):
    (path,) = write_series(tmp_path, phantom()[:1])
    (stack,) = stacks(tmp_path)
    edit(path, Rows=5, PixelData=bytes(5 * 12 * 2))
    with pytest.raises(DataError, match="its header describes"):
        read_volume(stack.points[0])
