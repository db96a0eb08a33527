import pytest
from highdicom.sr import srread
from pydicom.sr.codedict import codes

from longflow.dicom.report import TimePoint, volume_report
from longflow.dicom.segmentation import label_segmentation
from longflow.dicom.sources import read_series
from tests.dicom.phantom import files_in, make_series, phantom_labels
from tests.dicom.test_segmentation import structures


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Two scans of a patient in two studies, a year apart; the second lacks a structure."""
    found = []
    for time, volumes in ((0.0, {"liver": 1500.5, "left ventricle": 80.25}), (366.0, {"liver": 1400.0})):
        folder = tmp_path_factory.mktemp("scan")
        source = read_series(make_series(folder), files_in(folder))
        made = label_segmentation(phantom_labels(), source, structures(), "unet", 9001)
        found.append(TimePoint(f"case{time:g}", time, made, "CT", str(source.first.SeriesInstanceUID), volumes))
    return found


def test_the_volumes_of_every_scan_are_in_the_report_with_their_time_points(points, tmp_path):
    volume_report(points, structures(), "days", "unet", 9002).save_as(tmp_path / "report.dcm")
    report = srread(tmp_path / "report.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    found = []
    for group in groups:
        (measurement,) = group.get_measurements(name=codes.SCT.Volume)
        context = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in group[0].ContentSequence}
        offset = context["Longitudinal Temporal Offset from Event"].MeasuredValueSequence[0]
        unit = offset.MeasurementUnitsCodeSequence[0].CodeValue
        order = context["Time Point Order"].MeasuredValueSequence[0].NumericValue
        found.append((group.tracking_identifier, measurement.value, float(offset.NumericValue), unit, int(order)))
        assert measurement.unit.value == "ml"
    assert found == [
        ("liver", 1500.5, 0.0, "d", 1),
        ("left ventricle", 80.25, 0.0, "d", 1),
        ("liver", 1400.0, 366.0, "d", 2),
    ]
    assert groups[0].tracking_uid == groups[2].tracking_uid
    segment = groups[2].reference_type
    assert segment.value == "121191"


def test_the_report_is_in_the_study_of_the_last_scan_and_refers_to_all_segmentations(points):
    report = volume_report(points, structures(), "days", "unet", 9002)
    assert report.StudyInstanceUID == points[-1].segmentation.StudyInstanceUID
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    items = [
        *report.get("CurrentRequestedProcedureEvidenceSequence", []),
        *report.get("PertinentOtherEvidenceSequence", []),
    ]
    uids = {
        instance.ReferencedSOPInstanceUID
        for study in items
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert uids == {point.segmentation.SOPInstanceUID for point in points}


def test_times_without_a_unit_of_the_standard_are_text_alone(points):
    report = volume_report(points, structures(), "frames", "unet", 9002)
    assert "Longitudinal Temporal Offset" not in report.to_json()
    assert "366 frames since the first scan" in report.to_json()
