import numpy as np
import pytest
from highdicom.seg import segread

from longflow.data.dataset import DatasetDescription
from longflow.data.images import Geometry
from longflow.dicom.segmentation import label_segmentation
from longflow.dicom.segments import coded_structures
from longflow.dicom.sources import read_series
from longflow.errors import ConfigurationError
from tests.dicom.phantom import files_in, make_enhanced, make_series, phantom_geometry, phantom_labels


def structures(**labels):
    named = {"background": 0, **(labels or {"liver": 1, "left ventricle": 2})}
    return coded_structures(
        DatasetDescription(channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days", labels=named)
    )


def segmentation_in(folder, labels=None, make=make_series, kind="BINARY", described=None, **arguments):
    source = read_series(make(folder / "source", **arguments), files_in(folder / "source"))
    labels = phantom_labels() if labels is None else labels
    made = label_segmentation(labels, source, described or structures(), "unet", 9001, kind)
    made.save_as(folder / "made.dcm")
    return segread(folder / "made.dcm"), source


def read_volume(made, **options):
    """Return what highdicom reads: voxels in the order of slices, rows, columns, and their grid.

    highdicom orders slices so that its axes are right-handed; here they go up.
    """
    volume = made.get_volume(**options)
    if volume.affine[2, 0] < 0:
        volume = volume.flip_spatial(0)
    affine = volume.affine[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = tuple((affine[:3, :3] / spacing).ravel())
    return volume.array, Geometry(volume.array.shape[2::-1], tuple(spacing), tuple(affine[:3, 3]), direction)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("make", [make_series, lambda folder: make_enhanced(folder, order=(2, 0, 3, 1))])
def test_highdicom_reads_the_same_voxels_on_the_same_grid(tmp_path, make, kind):
    made, _ = segmentation_in(tmp_path, make=make, kind=kind)
    found, grid = read_volume(made, combine_segments=True)
    first = round((grid.origin[2] - phantom_geometry().origin[2]) / 2.5)  # empty slices at the ends have no frame
    whole = np.zeros_like(phantom_labels())
    whole[first : first + len(found)] = found
    np.testing.assert_array_equal(whole, phantom_labels())
    assert grid.spacing == pytest.approx(phantom_geometry().spacing)
    assert grid.direction == pytest.approx(phantom_geometry().direction, abs=1e-4)
    assert grid.origin[:2] == pytest.approx(phantom_geometry().origin[:2])


def test_segments_have_names_codes_and_the_tracking_uid_of_the_patient(tmp_path):
    (tmp_path / "b").mkdir()
    made, source = segmentation_in(tmp_path)
    later, _ = segmentation_in(tmp_path / "b")
    first, second = (made.get_segment_description(number) for number in (1, 2))
    assert (first.segment_label, second.segment_label) == ("liver", "left ventricle")
    assert first.segmented_property_type.value == "10200004"
    assert first.tracking_uid != second.tracking_uid
    assert first.tracking_uid == later.get_segment_description(1).tracking_uid
    assert first.SegmentAlgorithmName == "longflow unet"
    assert "RecommendedDisplayCIELabValue" in first
    assert made.PatientName == source.first.PatientName == "Müller^Anna"
    assert made.StudyInstanceUID == source.first.StudyInstanceUID
    assert made.FrameOfReferenceUID == source.first.FrameOfReferenceUID
    referenced = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced} == {one.SOPInstanceUID for one in source.headers}


def test_regions_that_overlap_are_segments_that_overlap(tmp_path):
    described = structures(whole=[1, 2], core=2)
    made, _ = segmentation_in(tmp_path, described=described)
    masks, _ = read_volume(made, combine_segments=False)
    labels = phantom_labels()[1:]
    np.testing.assert_array_equal(masks[..., 0], labels > 0)
    np.testing.assert_array_equal(masks[..., 1], labels == 2)


def test_regions_that_overlap_are_no_label_map(tmp_path):
    with pytest.raises(ConfigurationError, match="overlap"):
        segmentation_in(tmp_path, described=structures(whole=[1, 2], core=2), kind="LABELMAP")


def test_an_empty_label_map_is_written(tmp_path):
    made, _ = segmentation_in(tmp_path, labels=np.zeros_like(phantom_labels()))
    assert not made.pixel_array.any()
    assert [one.SegmentLabel for one in made.SegmentSequence] == ["liver", "left ventricle"]
