from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from longflow.data.images import Geometry
from longflow.dicom.files import read_export
from longflow.dicom.sources import (
    Source,
    functional_group,
    is_on_grid,
    read_series,
    read_sources,
    slices_in_order,
    source_of,
    write_sources,
)
from longflow.dicom.stacks import geometry_of, stacks_of
from longflow.errors import ConfigurationError, DataError
from tests.dicom.phantom import files_in, make_enhanced, make_series, phantom_array, phantom_geometry


def series_in(folder, make=make_series, **arguments):
    source = make(folder, **arguments)
    return read_series(source, files_in(folder))


def test_sources_are_written_and_those_of_other_images_kept(tmp_path):
    one = Source(study="1.2", series="1.3", instances=("1.4", "1.5"))
    two = Source(study="1.2", series="1.6", instances=("1.7",), frames=(2, 0, 1))
    assert read_sources(tmp_path) == {}
    write_sources(tmp_path, {"a_0000": one})
    write_sources(tmp_path, {"b_0000": two})
    assert read_sources(tmp_path) == {"a_0000": one, "b_0000": two}


def test_a_file_of_sources_that_was_changed_is_refused(tmp_path):
    (tmp_path / "dicom_sources.json").write_text('{"images": {"a_0000": {"study": "1"}}}')
    with pytest.raises(ConfigurationError, match=r"(?s)dicom_sources\.json.*a_0000\.series: missing"):
        read_sources(tmp_path)


@pytest.mark.parametrize("make", [make_series, lambda folder: make_enhanced(folder, order=(2, 0, 3, 1))])
def test_the_grid_is_that_of_the_slices_in_the_order_of_the_source(tmp_path, make):
    assert series_in(tmp_path, make).geometry.differences(phantom_geometry()) == []


def test_a_single_slice_takes_the_thickness(tmp_path):
    geometry = series_in(tmp_path, array=phantom_array()[:1]).geometry
    assert geometry.size[2] == 1
    assert geometry.spacing == phantom_geometry().spacing


def test_a_missing_instance_is_named(tmp_path):
    source = make_series(tmp_path)
    (tmp_path / "99.dcm").unlink()
    with pytest.raises(DataError, match=rf"1 of 4 DICOM instances .* not in the export: {source.instances[1]}"):
        read_series(source, files_in(tmp_path))


def test_slices_without_a_place_are_refused(tmp_path):
    source = make_series(tmp_path, PixelSpacing=None)
    with pytest.raises(DataError, match=r"100\.dcm does not say where its slices are .*PixelSpacing"):
        read_series(source, files_in(tmp_path))


def test_texts_become_unicode_and_empty_attributes_exist(tmp_path):
    header = series_in(tmp_path, AccessionNumber=None).first
    assert str(header.PatientName) == "Müller^Anna"
    assert header.SpecificCharacterSet == "ISO_IR 192"
    assert header.AccessionNumber is None or header.AccessionNumber == ""


def turned(order, flips):
    """Return the phantom's voxels and grid with other axes: ``order`` of x, y, z, then ``flips`` among the new ones."""
    array, geometry = phantom_array().transpose(2, 1, 0), phantom_geometry()
    axes = np.reshape(geometry.direction, (3, 3))[:, order]
    size, spacing = (np.array(values)[list(order)] for values in (geometry.size, geometry.spacing))
    origin = np.array(geometry.origin)
    for axis in flips:
        origin = origin + axes[:, axis] * spacing[axis] * (size[axis] - 1)
    axes = axes * [-1 if axis in flips else 1 for axis in range(3)]
    voxels = np.flip(array.transpose(order), flips).transpose(2, 1, 0)
    return voxels, Geometry(*(tuple(values.tolist()) for values in (size, spacing, origin, axes.ravel())))


@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_voxels_are_put_into_the_order_of_the_slices(tmp_path, order, flips):
    series = series_in(tmp_path)
    voxels, geometry = turned(order, flips)
    np.testing.assert_array_equal(slices_in_order(voxels, geometry, series), phantom_array())


@pytest.mark.parametrize(
    "change", [{"origin": (-20.5, 31.25, 100.3)}, {"spacing": (0.5, 0.75, 2.6)}, {"size": (20, 24, 5)}]
)
def test_an_image_on_another_grid_is_refused(tmp_path, change):
    series = series_in(tmp_path)
    geometry = Geometry(**{**vars(phantom_geometry()), **change})
    assert not is_on_grid(geometry, series)
    with pytest.raises(DataError, match=f"not on the grid of the DICOM series.*{next(iter(change))}"):
        slices_in_order(np.zeros(geometry.size[::-1]), geometry, series)


def test_an_image_at_45_degrees_is_on_another_grid(tmp_path):
    half = 0.5**0.5
    geometry = Geometry(
        (20, 24, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (half, -half, 0.0, half, half, 0.0, 0.0, 0.0, 1.0)
    )
    assert not is_on_grid(geometry, series_in(tmp_path))


def test_a_functional_group_of_a_frame_comes_before_the_shared_one():
    header = Dataset()
    shared, own, empty = Dataset(), Dataset(), Dataset()
    for group, value in ((shared, "A"), (own, "B")):
        item = Dataset()
        item.LUTLabel = value
        group.PixelMeasuresSequence = [item]
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], [empty, own]
    assert [functional_group(header, frame, "PixelMeasuresSequence").LUTLabel for frame in (0, 1)] == ["A", "B"]


@pytest.mark.parametrize("make", [make_series, lambda folder: make_enhanced(folder, order=(2, 0, 3, 1))])
def test_the_source_of_a_volume_names_its_slices_in_order(tmp_path, make):
    source = make(tmp_path)
    (stack,) = stacks_of(read_export(tmp_path, processes=1).frames)
    assert source_of(stack.points[0]) == source
    assert is_on_grid(geometry_of(stack.points[0]), read_series(source, files_in(tmp_path)))


def test_slices_of_a_tilted_gantry_and_tiles_have_no_source(tmp_path):
    make_series(tmp_path)
    (stack,) = stacks_of(read_export(tmp_path, processes=1).frames)
    frames = stack.points[0]
    places = (np.add(one.position, (0.0, number, 0.0)) for number, one in enumerate(frames))
    tilted = [replace(one, position=tuple(place)) for one, place in zip(frames, places, strict=True)]
    assert source_of(tilted) is None
    assert source_of([replace(one, tile=place) for place, one in enumerate(frames)]) is None


def test_what_breaks_the_standard_is_removed_and_a_frame_of_reference_made(tmp_path):
    with pydicom.config.disable_value_validation():
        source = make_series(tmp_path, PatientAge="0Y", FrameOfReferenceUID=None, PatientPosition=None)
    series = read_series(source, files_in(tmp_path))
    assert "PatientAge" not in series.first
    assert len({header.FrameOfReferenceUID for header in series.headers}) == 1
    assert series.first.PatientBirthDate == "19500607"


def test_an_unknown_thickness_is_the_distance_of_slices(tmp_path):
    source = make_series(tmp_path, SliceThickness=None)
    assert read_series(source, files_in(tmp_path)).first.SliceThickness == 2.5


def test_groups_of_single_frame_files_are_ignored(tmp_path):
    source = make_series(tmp_path, PerFrameFunctionalGroupsSequence=[Dataset()])
    series = read_series(source, files_in(tmp_path))
    assert series.frames == ()
    assert series.geometry.differences(phantom_geometry()) == []


def test_what_frames_share_is_found_where_each_frame_has_it(tmp_path):
    source = make_enhanced(tmp_path)
    one = pydicom.dcmread(tmp_path / "enhanced.dcm")
    (shared,) = one.SharedFunctionalGroupsSequence
    for group in one.PerFrameFunctionalGroupsSequence:
        group.PixelMeasuresSequence, group.PlaneOrientationSequence = (
            shared.PixelMeasuresSequence,
            shared.PlaneOrientationSequence,
        )
    del one.SharedFunctionalGroupsSequence
    one.save_as(tmp_path / "enhanced.dcm")
    series = read_series(source, files_in(tmp_path))
    assert series.geometry.differences(phantom_geometry()) == []
    assert "PixelMeasuresSequence" in series.first.SharedFunctionalGroupsSequence[0]


def test_a_series_has_one_frame_of_reference_whatever_its_slices_say(tmp_path):
    source = make_series(tmp_path)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        one = pydicom.dcmread(path)
        one.FrameOfReferenceUID = f"1.2.{number}"
        one.save_as(path)
    series = read_series(source, files_in(tmp_path))
    assert {header.FrameOfReferenceUID for header in series.headers} == {series.first.FrameOfReferenceUID}


def test_directions_that_differ_by_rounding_become_one_and_others_are_refused(tmp_path):
    source = make_series(tmp_path)
    one = pydicom.dcmread(tmp_path / "97.dcm")
    one.ImageOrientationPatient = [value + 2e-6 for value in one.ImageOrientationPatient]
    one.save_as(tmp_path / "97.dcm")
    headers = read_series(source, files_in(tmp_path)).headers
    assert len({tuple(header.ImageOrientationPatient) for header in headers}) == 1
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.save_as(tmp_path / "97.dcm")
    with pytest.raises(DataError, match="several directions"):
        read_series(source, files_in(tmp_path))


def test_decimals_that_are_too_long_are_rounded(tmp_path):
    with pydicom.config.disable_value_validation():
        source = make_series(tmp_path, PixelSpacing=["0.75000000000000001", "0.50000000000000001"])
    series = read_series(source, files_in(tmp_path))
    assert series.geometry.differences(phantom_geometry()) == []
    assert all(len(str(value)) <= 16 for value in series.first.PixelSpacing)
