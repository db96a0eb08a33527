from datetime import datetime, timedelta

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from longflow.data.images import Geometry
from longflow.dicom.derived import BURNED_IN, Derivation, derived_series
from longflow.dicom.sources import read_series
from longflow.errors import DataError
from longflow.version import __version__
from tests.dicom.phantom import files_in, make_enhanced, make_series, phantom_array, phantom_geometry

WORDS = Derivation("forecast +180 days, 1a2b3c4d", "Forecast by longflow.")


def source_in(folder, make=make_series, **arguments):
    return read_series(make(folder, **arguments), files_in(folder))


def written(images, folder):
    folder.mkdir()
    for image in images:
        image.save_as(folder / f"{image.InstanceNumber}.dcm", enforce_file_format=True)
    return read_back(folder)


def read_back(folder):
    reader = sitk.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    image = reader.Execute()
    return sitk.GetArrayFromImage(image), Geometry.of(image)


def test_hounsfield_units_and_grid_are_those_of_the_source(tmp_path):
    source = source_in(tmp_path / "source")
    values = phantom_array() + np.linspace(-0.5, 0.5, phantom_array().size).reshape(phantom_array().shape)
    array, geometry = written(derived_series(values, source, WORDS, 9001, burned_in=False), tmp_path / "made")
    assert np.abs(array - values).max() <= 0.5
    np.testing.assert_allclose(geometry.corners, source.geometry.corners, atol=1e-3)
    assert geometry.differences(phantom_geometry(), 1e-3) == []


@pytest.mark.parametrize("scale", [1.0, 0.37, 1e-4, 12345.678])
def test_values_of_mr_are_kept_to_a_65535th_of_their_range(tmp_path, scale):
    source = source_in(tmp_path / "source", modality="MR", array=phantom_array() + 1000)
    values = (phantom_array() + 1000) * scale
    images = list(derived_series(values, source, WORDS, 9001, burned_in=False))
    found = np.stack([pydicom.pixels.apply_rescale(image.pixel_array, image) for image in images])
    assert np.abs(found - values).max() <= np.ptp(values) / 65535 * 0.51
    if scale == 1.0:
        assert (images[0].RescaleSlope, images[0].RescaleIntercept) == (1, 0)
        array, _ = written(images, tmp_path / "made")
        np.testing.assert_array_equal(array, values)


def test_an_enhanced_source_gives_single_images_in_the_order_of_slices(tmp_path):
    source = source_in(tmp_path / "source", lambda folder: make_enhanced(folder, order=(2, 0, 3, 1)))
    values = phantom_array() + 1000
    images = list(derived_series(values, source, WORDS, 9001, burned_in=False))
    assert [image.SourceImageSequence[0].ReferencedFrameNumber for image in images] == [2, 4, 1, 3]
    assert images[0].ScanningSequence == "RM"
    array, geometry = written(images, tmp_path / "made")
    np.testing.assert_array_equal(array, values)
    assert geometry.differences(phantom_geometry()) == []


def test_it_says_that_it_is_synthetic_and_from_what(tmp_path):
    source = source_in(tmp_path)
    first, second, *_ = derived_series(phantom_array(), source, WORDS, 9001)
    assert first.SeriesDescription == "Synthetic, research only: forecast +180 days, 1a2b3c4d"
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.SyntheticData == "YES"
    assert "Forecast by longflow." in first.DerivationDescription
    assert first.ContributingEquipmentSequence[0].SoftwareVersions == __version__
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == source.headers[1].SOPInstanceUID
    (series,) = first.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 4


def test_patient_study_and_frame_of_reference_are_the_sources_and_the_uids_new(tmp_path):
    source = source_in(tmp_path, PatientWeight=70)
    first, second, *_ = derived_series(phantom_array(), source, WORDS, 9001)
    for name in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID", "KVP"):
        assert first[name].value == source.first[name].value
    assert first.PatientWeight == 70
    assert first.SeriesInstanceUID == second.SeriesInstanceUID != source.first.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SOPInstanceUID not in {header.SOPInstanceUID for header in source.headers}


def test_private_and_unknown_attributes_of_the_source_are_not_taken_over(tmp_path):
    source = source_in(tmp_path, ContrastBolusAgent="Iomeprol", InstitutionName="Clinic")
    source.first.private_block(0x0011, "VENDOR", create=True).add_new(1, "LO", "secret")
    for image in derived_series(phantom_array(), source, WORDS, 9001):
        assert "ContrastBolusAgent" not in image
        assert not any(element.tag.is_private for element in image)


def test_letters_are_burned_into_the_first_slice_unless_refused(tmp_path):
    source = source_in(tmp_path)
    burned, plain = (
        np.stack([image.pixel_array for image in derived_series(phantom_array(), source, WORDS, 9001, flag)])
        for flag in (True, False)
    )
    assert len(BURNED_IN) == 2
    assert (burned[0] != plain[0]).any()
    np.testing.assert_array_equal(burned[1:], plain[1:])
    np.testing.assert_array_equal(plain, phantom_array())


def test_the_date_of_acquisition_is_never_in_the_future(tmp_path):
    tomorrow = (datetime.now() + timedelta(days=1)).strftime("%Y%m%d")
    of_past = next(derived_series(phantom_array(), source_in(tmp_path / "a"), WORDS, 9001))
    of_future = next(derived_series(phantom_array(), source_in(tmp_path / "b", date=tomorrow), WORDS, 9001))
    assert of_past.AcquisitionDate == "20200102"
    assert "AcquisitionDate" not in of_future
    assert of_future.ContentDate < tomorrow


def test_values_beyond_16_bits_are_clipped(tmp_path):
    values = phantom_array().astype(np.float32)
    values[1, 0, 0], values[1, 0, 1] = 1e6, -1e6
    images = list(derived_series(values, source_in(tmp_path), WORDS, 9001))
    assert images[1].pixel_array[0, :2].tolist() == [32767, -32768]


def test_the_window_is_the_sources_else_one_that_shows_the_values(tmp_path):
    given = source_in(tmp_path / "a", WindowCenter=[40, 600], WindowWidth=[400, 1600])
    first = next(derived_series(phantom_array(), given, WORDS, 9001))
    assert (first.WindowCenter, first.WindowWidth) == (40, 400)
    first = next(derived_series(phantom_array(), source_in(tmp_path / "b"), WORDS, 9001))
    assert first.WindowWidth == pytest.approx(np.ptp(np.percentile(phantom_array(), (1, 99))), rel=1e-4)


def test_a_volume_on_a_grid_of_its_own_has_a_frame_of_reference_of_its_own(tmp_path):
    source = source_in(tmp_path / "source")
    grid = Geometry((5, 6, 3), (1.1, 1.2, 1.3), (1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    values = np.arange(90, dtype=np.int16).reshape(3, 6, 5)
    images = [list(derived_series(values, source, WORDS, 9001, False, grid)) for _ in range(2)]
    array, geometry = written(images[0], tmp_path / "made")
    np.testing.assert_array_equal(array, values)
    assert geometry.differences(grid) == []
    assert images[0][0].FrameOfReferenceUID == images[1][0].FrameOfReferenceUID != source.first.FrameOfReferenceUID
    assert "SourceImageSequence" not in images[0][0]


def test_other_modalities_are_refused(tmp_path):
    with pytest.raises(DataError, match="modality 'US'"):
        next(derived_series(phantom_array(), source_in(tmp_path, Modality="US"), WORDS, 9001))
