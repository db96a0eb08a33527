import numpy as np

from longflow.dicom.curve import draw_volumes, volume_curve
from longflow.dicom.sources import read_series
from tests.dicom.phantom import files_in, make_series
from tests.dicom.test_report import points  # noqa: F401
from tests.dicom.test_segmentation import structures


def test_every_structure_is_drawn_in_its_colour(points):  # noqa: F811
    picture = draw_volumes(points, structures(), "days")
    assert picture.dtype == np.uint8
    for one in structures():
        assert (picture == one.colour).all(axis=-1).sum() > 20


def test_the_picture_is_a_secondary_capture_of_the_patient_without_a_name_in_it(points, tmp_path):  # noqa: F811
    source = read_series(make_series(tmp_path), files_in(tmp_path))
    made = volume_curve(points, structures(), "days", source.first, 9003)
    assert made.SOPClassUID.name == "Secondary Capture Image Storage"
    assert made.PatientID == "P1"
    assert made.StudyInstanceUID == source.first.StudyInstanceUID
    assert made.BurnedInAnnotation == "NO"
    np.testing.assert_array_equal(made.pixel_array, draw_volumes(points, structures(), "days"))
