from datetime import date

import pytest

from longflow.dicom.files import read_export
from longflow.dicom.survey import ASK, NO, YES, name_subjects, survey_export
from tests.dicom.helpers import MR, SECONDARY, phantom, write_series
from tests.dicom.test_labels import masks, rectangle, write_rtstruct, write_seg

TODAY = date(2026, 1, 1)


def survey(folder, subjects=None):
    return survey_export(read_export(folder, 1), subjects, TODAY)


def findings(folder):
    return survey(folder).findings


def test_a_plain_series_needs_no_decision(tmp_path):
    write_series(tmp_path)
    (one,) = findings(tmp_path)
    assert (one.use, one.reason, one.subject, one.time, one.unit) == ("", "", "P001", 0, "days")
    assert one.phase.phase == "venous"


def test_days_between_studies(tmp_path):
    for study, day in (("s1", "20200110"), ("s2", "20200820"), ("s3", "20210110")):
        write_series(tmp_path, study=study, StudyDate=day, AcquisitionDate=day)
    found = survey(tmp_path)
    assert [one.time for one in found.findings] == [0, 223, 366]
    assert found.first_dates == {("p1", ""): date(2020, 1, 10)} and found.names == {("p1", ""): "Miller^Anna"}


def test_two_patients_of_the_same_name(tmp_path):
    write_series(tmp_path, patient="17")
    write_series(tmp_path, patient="18")
    write_series(tmp_path, patient="18", study="x", IssuerOfPatientID="north")
    write_series(tmp_path, patient="19", study="x", IssuerOfPatientID="north")
    write_series(tmp_path, patient="19", study="y", IssuerOfPatientID="south")
    found = {(one.instance.patient_id, one.instance.issuer): one for one in findings(tmp_path)}
    assert sorted(one.subject for one in found.values()) == ["P001", "P002", "P003", "P004", "P005"]
    assert not found["17", ""].use and not found["19", "north"].use
    assert found["18", ""].use == found["18", "north"].use == ASK
    assert "with and without its issuer" in found["18", ""].reason


def test_patients_keep_their_names():
    assert name_subjects([("1", ""), ("2", "")], {("2", ""): "Anna"}) == {("1", ""): "P001", ("2", ""): "Anna"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"PatientID": ""}, "no PatientID"),
        ({"StudyDate": "20120000"}, "no date of the study ('20120000')"),
        ({"StudyDate": "20400101", "AcquisitionDate": ""}, "2040-01-01, lies in the future"),
        ({"AcquisitionDate": "20190301"}, "clocks differ: acquired on 2019-03-01"),
        ({"BurnedInAnnotation": "YES"}, "text is burned into the pixels"),
        ({"ImageType": ["DERIVED", "SECONDARY", "ADC"]}, "a derived image"),
        ({"SeriesDescription": "native", "ContrastBolusAgent": "Iomeron"}, "header names a contrast agent"),
    ],
)
def test_questions(tmp_path, values, reason):
    write_series(tmp_path, **values)
    (one,) = findings(tmp_path)
    assert one.use == ASK and reason in one.reason


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"SeriesDescription": "Topogram 0.6"}, "a localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "a reformat of other slices (MPR)"),
        ({"SOPClassUID": SECONDARY}, "a secondary capture"),
        ({"skip": (3,)}, "missing slices: 1"),
    ],
)
def test_exclusions(tmp_path, values, reason):
    write_series(tmp_path, **values)
    (one,) = findings(tmp_path)
    assert one.use == NO and reason in one.reason


def test_many_secondary_captures_are_a_row_and_their_pixels_are_not_read(tmp_path):
    for path in write_series(tmp_path, phantom((60, 10, 12)), SOPClassUID=SECONDARY):
        path.write_bytes(path.read_bytes()[:-100])  # a file of which the end is missing
    (one,) = findings(tmp_path)
    assert one.use == NO and "a secondary capture" in one.reason and one.files == 60


def test_one_slice(tmp_path):
    write_series(tmp_path, phantom()[:1])
    (one,) = findings(tmp_path)
    assert one.use == NO and one.reason == "one slice, no volume"


def test_files_of_two_patients_in_one_series(tmp_path):
    for patient in ("p1", "p2"):
        write_series(tmp_path, patient=patient, SeriesInstanceUID="1.2.3")
    found = findings(tmp_path)
    assert [one.use for one in found] == [ASK, ASK] and {one.subject for one in found} == {"P001", "P002"}
    assert all("files of two patients in one series" in one.reason for one in found)


def test_one_number_for_two_persons(tmp_path):
    write_series(tmp_path)
    write_series(tmp_path, study="s2", PatientName="Smith^John", PatientBirthDate="19700101")
    assert all(one.use == ASK and "several persons" in one.reason for one in findings(tmp_path))


def test_damaged_files_have_a_row_each(tmp_path):
    paths = write_series(tmp_path)
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:-100])
    found = findings(tmp_path)
    damaged = [one for one in found if one.stack is None]
    assert all(one.use == NO and "a truncated file" in one.reason for one in damaged)
    assert sum(one.files for one in damaged) == 2


def test_phases_in_one_series_are_not_told_by_its_description(tmp_path):
    for phase in (1, 2):
        write_series(tmp_path, first_number=phase * 100, AcquisitionNumber=phase, SeriesDescription="Liver arterial")
    found = findings(tmp_path)
    assert [one.phase.phase for one in found] == ["", ""]
    assert all("one of several stacks of its series, by AcquisitionNumber" in one.reason for one in found)


def test_phases_in_one_series_by_the_time_since_injection(tmp_path):
    for phase, time in ((1, "081525"), (2, "081610")):
        values = {"AcquisitionNumber": phase, "AcquisitionTime": time, "ContrastBolusStartTime": "081500"}
        write_series(tmp_path, first_number=phase * 100, ContrastBolusAgent="Iomeron", **values)
    assert [one.phase.phase for one in findings(tmp_path)] == ["arterial", "venous"]


def test_labels_find_their_series(tmp_path):
    files = write_series(tmp_path)
    write_series(tmp_path, series="2")
    organ, _ = masks()
    write_seg(tmp_path / "seg", files, {"Liver": organ})
    write_rtstruct(tmp_path / "rt", files[0], {"GTV": [rectangle(1, (2, 9), (3, 10))]})
    found = findings(tmp_path)
    stack = next(one.id for one in found if one.stack and one.instance.series_number == "1")
    labels = [one for one in found if one.label]
    assert [one.use for one in labels] == [YES, YES] and {one.labels_of for one in labels} == {(stack, 0)}
    assert sorted(name for one in labels for name in one.structures) == ["gtv", "liver"]


def test_labels_of_another_export(tmp_path):
    files = write_series(tmp_path / "a")
    write_rtstruct(tmp_path / "rt", files[0], {"GTV": [rectangle(1, (2, 9), (3, 10))]})
    write_series(tmp_path / "b", series="7")
    for path in files:
        path.unlink()
    label = next(one for one in findings(tmp_path) if one.label)
    assert label.use == NO and "a series that is not in the export" in label.reason


def test_a_cine_needs_no_date(tmp_path):
    for time in range(5):
        values = {"TriggerTime": 40 * time, "SOPClassUID": MR, "Modality": "MR", "StudyDate": "20120000"}
        write_series(tmp_path, first_number=100 * time, **values)
    (one,) = findings(tmp_path)
    assert (one.use, one.unit, one.times) == ("", "ms", (0, 40, 80, 120, 160))
