import csv
import stat
from itertools import chain

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from longflow.dicom.deidentify import deidentify_export, read_key
from longflow.dicom.files import read_export
from longflow.dicom.stacks import stacks_of
from longflow.dicom.volume import read_volume
from longflow.errors import ConfigurationError, DataError
from tests.dicom.helpers import SECONDARY, edit, phantom, write_series
from tests.dicom.test_labels import masks, rectangle, write_rtstruct, write_seg

#: elements with text of a person or a hospital: a word that occurs nowhere else in each
SECRETS = (
    *("AccessionNumber", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "StationName", "StudyID"),
    *("StudyDescription", "InstitutionalDepartmentName", "PerformingPhysicianName", "OperatorsName", "PatientName"),
    *("PatientID", "IssuerOfPatientID", "OtherPatientNames", "PatientAddress", "PatientComments", "Occupation"),
    *(
        "MedicalRecordLocator",
        "AdditionalPatientHistory",
        "ImageComments",
        "RequestingPhysician",
        "CurrentPatientLocation",
    ),
    *("DeviceSerialNumber", "ProtocolName", "RequestedProcedureDescription", "PerformedProcedureStepDescription"),
    *("ReasonForStudy", "AdmissionID", "ContrastBolusAgent", "PatientTelephoneNumbers", "InsurancePlanIdentification"),
    *("DerivationDescription", "DetectorID", "PlateID", "ReceiveCoilName", "TransducerData", "UserDefined"),
)


def secretive(folder):
    """Write an export full of secrets; return all of them as bytes."""
    words = {}

    def change(header, place):
        for number, name in enumerate(SECRETS):
            tag = pydicom.datadict.tag_for_keyword(name)
            if tag and pydicom.datadict.dictionary_VR(tag) != "SQ" and name not in ("PatientID", "PatientName"):
                words[name] = f"Xq{number}Secret"
                setattr(header, name, words[name])
        nested = Dataset()
        nested.CodeMeaning, nested.PersonName, nested.StudyDate = "kept", "Xq90Secret", "20200111"
        nested.ReferencedSOPInstanceUID, nested.TextValue = "1.2.3.9876543", "Xq91Secret"
        header.ReferencedImageSequence = [nested]
        header.SourceImageSequence = [Dataset()]
        header.SourceImageSequence[0].ReferencedImageSequence = [nested]
        header.add_new(0x00990010, "LO", "Xq92Secret")
        header.add_new(0x00991001, "UN", b"Xq93Secret")
        header.add_new(0x00187FFE, "UN", b"Xq94Secret")
        header.file_meta.SourceApplicationEntityTitle = "Xq95Secret"
        header.file_meta.PrivateInformationCreatorUID, header.file_meta.PrivateInformation = "1.2.77", b"Xq96Secret"
        header.preamble = b"Xq97Secret".ljust(128, b"\0")

    values = {"patient": "Xq98Secret", "PatientName": "Xq99Secret^Anna"}
    files = write_series(folder, change=change, **values)
    first = pydicom.dcmread(files[0])
    uids = (first.StudyInstanceUID, first.SeriesInstanceUID, first.FrameOfReferenceUID, first.SOPInstanceUID)
    dates = ("20200110", "20200111", "19600102")
    return files, [f"Xq{number}Secret".encode() for number in range(100)] + [text.encode() for text in (*uids, *dates)]


def test_no_secret_is_in_any_byte(tmp_path):
    files, hidden = secretive(tmp_path / "export")
    write_seg(tmp_path / "export" / "seg", files, {"Liver": masks()[0]})
    write_rtstruct(tmp_path / "export" / "rt", files[0], {"Xq50Secret": [rectangle(1, (2, 9), (3, 10))]})
    before = b"".join(path.read_bytes() for path in (tmp_path / "export").iterdir())
    assert sum(word in before for word in hidden) > 40
    done = deidentify_export(tmp_path / "export", tmp_path / "safe", tmp_path / "key.csv", 1)
    assert (done.written, done.subjects, done.refused) == (8, 1, {})
    written = sorted(path for path in (tmp_path / "safe").rglob("*") if path.is_file())
    assert len(written) == 8
    for path in written:
        content = path.read_bytes() + str(path).encode()
        assert not [word for word in hidden if word in content]


def test_volumes_labels_and_intervals_stay(tmp_path):
    files = write_series(tmp_path / "in")
    write_seg(tmp_path / "in" / "seg", files, {"Liver": masks()[0]})
    write_series(tmp_path / "in", study="s2", StudyDate="20200820", AcquisitionDate="20200820")
    deidentify_export(tmp_path / "in", tmp_path / "safe", tmp_path / "key.csv", 1)
    export = read_export(tmp_path / "safe", 1)
    stacks = stacks_of(export.frames)
    assert len(stacks) == 2
    for stack in stacks:
        array, geometry = read_volume(stack.points[0])
        np.testing.assert_array_equal(array, phantom())
        assert geometry.origin == (-20, -30, 40)
    days = [np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in sorted(s.instance.study_date for s in stacks)]
    assert (days[1] - days[0]).astype(int) == 223 and days[1] < np.datetime64("2020-08-20")
    (label,) = [instance for instance in export.instances if instance.is_label]
    assert stacks[0].instance.series_uid in label.references | {stacks[1].instance.series_uid}
    assert label.references & {frame.instance.sop_uid for frame in chain(*stacks[0].points, *stacks[1].points)}


def test_a_key_is_continued(tmp_path):
    write_series(tmp_path / "in")
    deidentify_export(tmp_path / "in", tmp_path / "safe", tmp_path / "key.csv", 1)
    (first,) = read_key(tmp_path / "key.csv").values()
    assert stat.S_IMODE((tmp_path / "key.csv").stat().st_mode) == 0o600
    write_series(tmp_path / "later", study="s2")
    write_series(tmp_path / "later", patient="p0", study="s3")
    deidentify_export(tmp_path / "later", tmp_path / "safe2", tmp_path / "key.csv", 1)
    key = read_key(tmp_path / "key.csv")
    assert key["p1", ""] == first and key["p0", ""].subject == "P002" and key["p0", ""].shift != 0
    assert sorted(path.name for path in (tmp_path / "safe2").iterdir()) == ["P001", "P002"]


def test_refusals_and_the_report(tmp_path):
    write_series(tmp_path / "in")
    write_series(tmp_path / "in", series="2", SOPClassUID=SECONDARY)
    write_series(tmp_path / "in", series="3", BurnedInAnnotation="YES")
    path = write_series(tmp_path / "in", series="4")[0]
    path.write_bytes(path.read_bytes()[:-20])
    done = deidentify_export(tmp_path / "in", tmp_path / "safe", tmp_path / "key.csv", 1)
    assert done.written == 11 and sorted(done.refused.values()) == [1, 6, 6]
    with open(done.report, newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["action"] == "refused" for row in rows) == 13
    assert {"what": "StudyDate", "action": "shifted", "number": "11", "reason": ""} in rows


def test_the_key_never_leaves(tmp_path):
    write_series(tmp_path / "in")
    with pytest.raises(ConfigurationError, match="but the key is in it"):
        deidentify_export(tmp_path / "in", tmp_path / "safe", tmp_path / "safe" / "key.csv", 1)
    with pytest.raises(ConfigurationError, match="but the export is in it"):
        deidentify_export(tmp_path / "in", tmp_path, tmp_path.parent / "key.csv", 1)
    with pytest.raises(ConfigurationError, match="is in the export"):
        deidentify_export(tmp_path / "in", tmp_path / "in" / "safe", tmp_path / "key.csv", 1)


@pytest.mark.parametrize("line", ["P001,1,,x,soon,abc", "a/b,1,,x,-5,abc", "P001,1,,x,-5,"])
def test_an_invalid_key(tmp_path, line):
    (tmp_path / "key.csv").write_text(f"subject,patient,issuer,name,shift_days,secret\n{line}\n")
    with pytest.raises(DataError, match=r"key.csv, line 2"):
        read_key(tmp_path / "key.csv")


def test_a_file_without_preamble(tmp_path):
    path = write_series(tmp_path / "in", phantom()[:1])[0]
    edit(path, InstanceNumber=3)
    pydicom.dcmwrite(path, Dataset(pydicom.dcmread(path)), implicit_vr=True, little_endian=True)
    done = deidentify_export(tmp_path / "in", tmp_path / "safe", tmp_path / "key.csv", 1)
    assert done.written == 1 and read_export(tmp_path / "safe", 1).frames[0].position == (-20, -30, 40)
