import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from longflow.dicom.headers import SCALE_SLOPE, is_dicom, read_file
from longflow.dicom.libraries import require_dicom
from tests.dicom.helpers import MR, SECONDARY, edit, enhanced, phantom, save_big_endian, slice_header, write_series

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture
def libraries():
    require_dicom()


@pytest.fixture
def file(tmp_path):
    return write_series(tmp_path, phantom()[:1])[0]


def test_a_slice(file):
    instance, (frame,) = read_file(file)
    assert (instance.patient_id, instance.study_date, instance.modality) == ("p1", "20200110", "CT")
    assert instance.image_type == ("ORIGINAL", "PRIMARY", "AXIAL") and not instance.problem
    assert frame.position == (-20, -30, 40) and frame.spacing == (0.8, 0.5) and frame.size == (10, 12)
    assert (frame.slope, frame.intercept, frame.depth) == (1, -1024, 40)


def test_the_number_of_a_series_can_be_zero(file):
    edit(file, SeriesNumber=0)
    assert read_file(file)[0].series_number == "0"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, pydicom.uid.ExplicitVRLittleEndian])
def test_files_with_and_without_preamble(file, syntax):
    if syntax == ExplicitVRBigEndian:
        save_big_endian(file)
    else:
        header = pydicom.dcmread(file)
        header.file_meta.TransferSyntaxUID = syntax
        header.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=True)
    assert read_file(file)[1][0].position == (-20, -30, 40)
    if syntax != ExplicitVRBigEndian:
        bare = pydicom.dcmread(file)
        pydicom.dcmwrite(file, pydicom.Dataset(bare), implicit_vr=syntax.is_implicit_VR, little_endian=True)
        assert file.read_bytes()[128:132] != b"DICM"
        assert read_file(file)[1][0].position == (-20, -30, 40)


def test_other_files_are_no_dicom(tmp_path):
    for content in (b"", b"text of a person", b"\x08\x00", bytes(500)):
        (tmp_path / "a").write_bytes(content)
        assert read_file(tmp_path / "a") is None
    assert not is_dicom(b"\x08\x00\xff\xff" + b"\xff" * 128)


@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_a_truncated_file(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    instance, frames = read_file(file)
    assert "truncated" in instance.problem and not frames


def test_a_file_that_ends_in_its_header(file):
    file.write_bytes(file.read_bytes()[:500])
    instance, frames = read_file(file)
    assert instance.problem and not frames


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"SOPClassUID": SECONDARY}, "a secondary capture"),
        ({"SamplesPerPixel": 3}, "a colour image"),
        ({"ImagePositionPatient": None}, "no position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no position or orientation"),
        ({"PixelSpacing": [0, 1]}, "no pixel spacing"),
        ({"Rows": None}, "a truncated file: its header has no Rows and Columns"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Rows": None, "Modality": "SR"},
            "no image (SR: Basic Text SR",
        ),
    ],
)
def test_files_without_a_slice(file, values, reason):
    edit(file, **values)
    instance, frames = read_file(file)
    assert reason in instance.problem and not frames


def test_several_frames_without_positions(file):
    header = pydicom.dcmread(file)
    header.NumberOfFrames, header.PixelData = 3, header.PixelData * 3
    header.save_as(file)
    assert "3 frames in one file" in read_file(file)[0].problem


def test_enhanced_frames(tmp_path):
    enhanced(phantom(), orders=[5, 4, 3, 2, 1, 0]).save_as(tmp_path / "a", enforce_file_format=True)
    instance, frames = read_file(tmp_path / "a")
    assert not instance.problem and [frame.depth for frame in frames] == [55, 52, 49, 46, 43, 40]
    assert [frame.slope for frame in frames] == [1, 0.5, 1, 0.5, 1, 0.5] and frames[2].index == 2


def test_an_empty_sequence_of_frames_in_a_classic_file(file):
    edit(file, PerFrameFunctionalGroupsSequence=[pydicom.Dataset()])
    assert len(read_file(file)[1]) == 1


@pytest.mark.parametrize("implicit", [False, True])
def test_scale_slope_of_philips(tmp_path, implicit):
    def change(header, _):
        header.add(DataElement(0x20050010, "LO", "Philips MR Imaging DD 001"))
        header.add(DataElement(SCALE_SLOPE, "FL", 0.25))
        if implicit:
            header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    values = {"SOPClassUID": MR, "Modality": "MR", "Manufacturer": "Philips Medical Systems"}
    (path,) = write_series(tmp_path, phantom()[:1], change=change, **values)
    assert read_file(path)[1][0].scale_slope == 0.25
    edit(path, Manufacturer="SIEMENS")
    assert read_file(path)[1][0].scale_slope == 0


def test_heart_rate_is_an_interval(file):
    edit(file, HeartRate=80)
    assert read_file(file)[1][0].interval == 750
    edit(file, NominalInterval=923)
    assert read_file(file)[1][0].interval == 923


def test_a_header_of_a_slice_alone():
    assert slice_header(number=3).InstanceNumber == 4
