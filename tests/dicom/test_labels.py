import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from longflow.dicom.files import read_export
from longflow.dicom.headers import STRUCTURE_SET
from longflow.dicom.labels import DicomLabels, name_of_structure, read_labels, time_point_of
from longflow.dicom.stacks import stacks_of
from longflow.errors import DataError
from tests.dicom.helpers import SPACING, phantom, slice_header, uid, write_series


def masks(shape=(6, 10, 12)):
    """Return an organ and a tumour in it, boolean."""
    organ, tumour = np.zeros(shape, bool), np.zeros(shape, bool)
    organ[1:5, 2:9, 3:10], tumour[2:4, 4:6, 5:8] = True, True
    return organ, tumour


def write_seg(path, files, structures, kind="BINARY"):
    """Write structures, {name: mask}, as a SEG of a series."""
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type="MANUAL",
        )
        for number, name in enumerate(structures, start=1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in files],
        pixel_array=np.stack(list(structures.values()), axis=-1).astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=uid("seg", path),
        series_number=100,
        sop_instance_uid=uid("seg instance", path),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="x",
        device_serial_number="x",
    )
    segmentation.save_as(path)


def write_rtstruct(path, file, structures):
    """Write contours, {name: [points in mm, (n, 3)]}, as an RTSTRUCT of the series of a file."""
    source = pydicom.dcmread(file)
    header = slice_header(patient=source.PatientID, series="90", SOPClassUID=STRUCTURE_SET, Modality="RTSTRUCT")
    header.SOPInstanceUID = uid("rt", path)
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ContourImageSequence = [Dataset()]
    series.ContourImageSequence[0].ReferencedSOPInstanceUID = source.SOPInstanceUID
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [series], [study]
    header.ReferencedFrameOfReferenceSequence = [frame]
    regions, contours = [], []
    for number, (name, of_region) in enumerate(structures.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = []
        for points in of_region:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{value:.6g}" for value in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        regions.append(region)
        contours.append(drawn)
    header.StructureSetROISequence, header.ROIContourSequence = regions, contours
    header.save_as(path, enforce_file_format=True)


def rectangle(place, rows, columns):
    """Return a contour around voxels, mm; its edges are between voxels."""
    corners = [(columns[0], rows[0]), (columns[1], rows[0]), (columns[1], rows[1]), (columns[0], rows[1])]
    return [(-20 + 0.5 * (x - 0.5), -30 + 0.8 * (y - 0.5), 40 + 3.0 * place) for x, y in corners]


def labels_of(folder):
    export = read_export(folder, 1)
    (label,) = [instance for instance in export.instances if instance.is_label]
    (stack,) = stacks_of(export.frames)
    return label, stack


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments(tmp_path, kind):
    files = write_series(tmp_path)
    organ, tumour = masks()
    write_seg(tmp_path / "seg", files, {"Liver": organ & ~tumour, "Tumour": tumour}, kind)
    label, stack = labels_of(tmp_path)
    assert label.structures == ((1, "Liver"), (2, "Tumour")) and time_point_of(label, stack) == 0
    array, geometry = read_labels([label], stack.points[0], {"liver": 2, "tumour": 5})
    np.testing.assert_array_equal(array, np.where(tumour, 5, np.where(organ, 2, 0)))
    assert array.dtype == np.uint8 and geometry.size == (12, 10, 6)


def test_of_overlapping_segments_the_smaller_counts(tmp_path):
    organ, tumour = masks()
    write_seg(tmp_path / "seg", write_series(tmp_path), {"Tumour": tumour, "Liver": organ})
    label, stack = labels_of(tmp_path)
    array, _ = DicomLabels((label,), stack.points[0], (("liver", 1), ("tumour", 2))).read()
    np.testing.assert_array_equal(array, np.where(tumour, 2, np.where(organ, 1, 0)))


def test_segments_on_another_grid_are_refused(tmp_path):
    files = write_series(tmp_path / "a")
    organ, _ = masks()
    write_seg(tmp_path / "a" / "seg", files, {"Liver": organ})
    label, _ = labels_of(tmp_path / "a")
    write_series(tmp_path / "b", origin=(-20.2, -30, 40))
    (other,) = stacks_of(read_export(tmp_path / "b", 1).frames)
    with pytest.raises(DataError, match="not on the grid of its series"):
        read_labels([label], other.points[0], {"liver": 1})


def test_contours_with_a_hole(tmp_path):
    files = write_series(tmp_path)
    contours = [rectangle(place, (2, 9), (3, 10)) for place in range(1, 5)]
    contours += [rectangle(2, (4, 6), (5, 8))]
    write_rtstruct(tmp_path / "rt", files[0], {"GTV": contours})
    label, stack = labels_of(tmp_path)
    assert label.structures == ((1, "GTV"),) and time_point_of(label, stack) == 0
    array, _ = read_labels([label], stack.points[0], {"gtv": 1})
    expected, hole = masks()
    hole[3] = False
    np.testing.assert_array_equal(array, expected & ~hole)


def test_contours_between_slices_are_refused(tmp_path):
    files = write_series(tmp_path)
    write_rtstruct(tmp_path / "rt", files[0], {"GTV": [rectangle(1.5, (2, 9), (3, 10))]})
    label, stack = labels_of(tmp_path)
    with pytest.raises(DataError, match="a contour is between the slices"):
        read_labels([label], stack.points[0], {"gtv": 1})


def test_labels_of_a_tilted_series_are_refused(tmp_path):
    files = write_series(tmp_path, tilt=0.8)
    write_rtstruct(tmp_path / "rt", files[0], {"GTV": [rectangle(1, (2, 9), (3, 10))]})
    label, stack = labels_of(tmp_path)
    with pytest.raises(DataError, match="gantry tilt"):
        read_labels([label], stack.points[0], {"gtv": 1})


def test_the_time_point_of_labels_in_a_cine(tmp_path):
    for time in range(5):

        def change(header, _, time=time):
            header.TriggerTime = 40 * time

        files = write_series(tmp_path, phantom(seed=time), first_number=100 * time, change=change)
    write_rtstruct(tmp_path / "rt", files[0], {"LV": [rectangle(1, (2, 9), (3, 10))]})
    label, stack = labels_of(tmp_path)
    assert len(stack.points) == 5 and time_point_of(label, stack) == 4


def test_names_of_structures():
    assert name_of_structure(3, " Liver ") == "liver" and name_of_structure(3, "") == "structure_3"
    assert SPACING == (3.0, 0.8, 0.5)
