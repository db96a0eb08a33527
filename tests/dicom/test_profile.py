import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from longflow.dicom.profile import Identity, clean_words, deidentify
from tests.dicom.helpers import phantom, write_series

IDENTITY = Identity("P007", -400, "secret")


def test_dates_move_and_intervals_stay():
    assert IDENTITY.date("20200110") == "20181206"
    assert IDENTITY.date("20200110081500.5+0100") == "20181206081500.5+0100"
    assert IDENTITY.date("20120000") == IDENTITY.date("") == IDENTITY.date("today") == ""
    assert Identity("x", -3650, "s").date("00010101") == ""


def test_uids_are_new_and_always_the_same():
    assert IDENTITY.uid(MRImageStorage) == MRImageStorage
    assert IDENTITY.uid("1.2.3") == IDENTITY.uid("1.2.3") != IDENTITY.uid("1.2.4")
    assert IDENTITY.uid("1.2.3") != Identity("P007", -400, "other").uid("1.2.3")
    assert pydicom.uid.UID(IDENTITY.uid("1.2.3")).is_valid


@pytest.mark.parametrize(
    ("text", "clean"),
    [("Abdomen ART. 1.0 (Miller)", "abdomen art"), ("T2 FLAIR", "t2 flair"), ("Müller", ""), ("", "")],
)
def test_descriptions(text, clean):
    assert clean_words(text) == clean


def test_every_kind_of_element(tmp_path):
    def change(header, _):
        header.PatientWeight, header.PatientAge, header.OperatorsName = 70, "060Y", "Nurse^Ann"
        header.ImageComments, header.AccessionNumber, header.ContrastBolusAgent = "call Ms Miller", "A77", "Iomeron"
        header.add_new(0x00990010, "LO", "PRIVATE")
        header.add_new(0x00991001, "LO", "Miller")
        header.add_new(0x60000010, "US", 5)
        header.ReferencedImageSequence = [Dataset()]
        header.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"
        header.RequestAttributesSequence = [Dataset()]
        header.PatientSex = "F"

    (path,) = write_series(tmp_path, phantom()[:1], change=change)
    dataset = pydicom.dcmread(path)
    changes = deidentify(dataset, IDENTITY)
    assert dataset.PatientID == dataset.PatientName == "P007" and dataset.PatientIdentityRemoved == "YES"
    assert dataset.StudyDate == "20181206" and dataset.StudyTime == "080000"
    assert dataset.SeriesDescription == "abdomen portal venous" and dataset.ContrastBolusAgent == "CONTRAST"
    assert dataset.AccessionNumber == dataset.PatientSex == dataset.PatientBirthDate == ""
    assert dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID == IDENTITY.uid("1.2.3")
    gone = ("PatientWeight", "PatientAge", "OperatorsName", "ImageComments", "RequestAttributesSequence")
    assert not [name for name in gone if name in dataset]
    assert not any(element.tag.is_private or element.tag.group == 0x6000 for element in dataset)
    assert dataset.ImagePositionPatient == [-20, -30, 40] and dataset.PatientPosition == "HFS"
    assert changes["private elements", "removed"] == 2 and changes["StudyDate", "shifted"] == 1
    assert [code.CodeValue for code in dataset.DeidentificationMethodCodeSequence] == ["113100", "113105", "113107"]
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
