import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.images import (
    Geometry,
    as_type,
    read_array,
    read_geometry,
    read_image,
    read_label,
    read_scan,
    two_transforms,
    write_volume,
)
from longflow.errors import DataError
from tests.data.helpers import SHAPE, tiny_array, tiny_label, write_image
from tests.data.test_nifti import PIXDIM, saved


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_read_scan_gives_voxels_geometry_and_type(tmp_path, ending):
    write_image(tiny_array(), tmp_path / f"a{ending}")
    volume = read_scan((tmp_path / f"a{ending}",))
    assert volume.array.shape == (1, *SHAPE) and volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], tiny_array())
    assert volume.data_type == "int16"
    assert volume.geometry.size == SHAPE[::-1]
    assert volume.geometry.array_spacing == pytest.approx((5.0, 1.5, 1.5))


def test_the_header_alone_tells_the_grid(tmp_path):
    write_image(tiny_array(), tmp_path / "a.nii.gz")
    assert read_geometry(tmp_path / "a.nii.gz") == read_scan((tmp_path / "a.nii.gz",)).geometry
    (tmp_path / "b.nii.gz").write_text("no image")
    with pytest.raises(DataError, match=r"b\.nii\.gz is truncated"):
        read_geometry(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("data_type", ["int16", "uint8", "float32", "int32"])
def test_written_volume_has_the_geometry_and_type_of_the_input_by_nibabel(tmp_path, data_type):
    write_image(tiny_array(), tmp_path / "in.nii.gz")
    geometry = read_scan((tmp_path / "in.nii.gz",)).geometry
    array = np.random.default_rng(1).uniform(0, 200, SHAPE)
    write_volume(array, geometry, data_type, tmp_path / "out.nii.gz")
    before, after = nibabel.load(tmp_path / "in.nii.gz"), nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(before.affine, after.affine, atol=1e-4)
    assert after.get_data_dtype() == np.dtype(data_type)
    np.testing.assert_array_equal(np.asarray(after.dataobj).T, as_type(array, data_type))


def test_as_type_rounds_and_clips():
    array = np.array([-1.2, 0.5, 1.5, 254.7, 999.0])
    assert as_type(array, "uint8").tolist() == [0, 0, 2, 255, 255]
    assert as_type(array, "float32").dtype == np.float32


def test_a_type_is_changed_slice_by_slice():
    array = np.random.default_rng(0).uniform(-500, 500, (50, 64, 64)).astype(np.float32)
    tracemalloc.start()
    converted = as_type(array, "int16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * converted.nbytes
    assert np.array_equal(converted, np.rint(array))


def test_scaled_nifti_is_read_in_its_units(tmp_path):
    image = nibabel.Nifti1Image(tiny_array().T, np.diag([1.5, 1.5, 5, 1]))
    image.header.set_slope_inter(2.0, -1000.0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    expected = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj).T
    np.testing.assert_allclose(read_scan((tmp_path / "a.nii.gz",)).array[0], expected)


def test_nifti2_is_told_apart_from_a_damaged_file(tmp_path):
    nibabel.save(nibabel.Nifti2Image(tiny_array().T, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="is NIfTI-2"):
        read_scan((tmp_path / "a.nii.gz",))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_truncated_file(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_image(tiny_array(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(DataError, match="is truncated"):
        read_image(path)


def test_damaged_file_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "a.nii.gz"
    write_image(np.random.default_rng(0).integers(-32768, 32767, (20, 20, 20)).astype(np.int16), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "1 NaN"), (-np.inf, "1 infinite")])
def test_voxels_that_are_no_numbers(tmp_path, ending, value, name):
    array = tiny_array().astype(np.float32)
    array[5, 0, 2] = value
    write_image(array, tmp_path / f"a{ending}")
    with pytest.raises(DataError, match=rf"{name}, the first at \(2, 0, 5\)"):
        read_image(tmp_path / f"a{ending}")


def test_files_that_are_no_volumes(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "none.nii.gz")
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(DataError, match="not an image"):
        read_image(tmp_path / "text.nii.gz")
    write_image(np.zeros((3, *SHAPE), np.int16), tmp_path / "four.nii.gz")
    with pytest.raises(DataError, match=r"4 dimensions \(8 x 8 x 6 x 3\), expected 3"):
        read_image(tmp_path / "four.nii.gz")
    colour = sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "colour.nii.gz"))
    with pytest.raises(DataError, match="3 values per voxel"):
        read_image(tmp_path / "colour.nii.gz")


def test_channels_on_different_grids(tmp_path):
    write_image(tiny_array(), tmp_path / "a_0000.nii.gz")
    write_image(tiny_array(), tmp_path / "a_0001.nii.gz", spacing=(1.5, 1.5, 4.0))
    with pytest.raises(DataError, match=r"a_0001.nii.gz: spacing is 1.5 x 1.5 x 4, but .* 1.5 x 1.5 x 5"):
        read_scan((tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"))


def test_geometry_differences_have_a_tolerance():
    one = Geometry((8, 8, 6), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    near = Geometry((8, 8, 6), (1.0, 1.0005, 5.0), (0.0005, 0.0, 0.0), (1, 5e-5, 0, -5e-5, 1, 0, 0, 0, 1))
    far = Geometry((8, 8, 7), (1.0, 1.01, 5.0), (0.01, 0.0, 0.0), (1, 1e-3, 0, -1e-3, 1, 0, 0, 0, 1))
    assert one.differences(near) == []
    assert [field for field, _, _ in one.differences(far)] == ["size", "spacing", "origin", "direction"]


def test_a_volume_that_cannot_be_written_leaves_nothing(tmp_path):
    geometry = Geometry((8, 8, 6), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(DataError, match="could not be written"):
        write_volume(tiny_array(), geometry, "int16", tmp_path / "a.unknown")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("data_type", ["uint8", "int16", "float32", "float64"])
def test_ordinary_files_are_read_as_simpleitk_reads_them(tmp_path, ending, data_type):
    path = tmp_path / f"a{ending}"
    write_image(tiny_array().astype(data_type), path, direction=(0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1))
    expected, found = sitk.ReadImage(str(path)), read_image(path)
    array, geometry = read_array(path)
    assert geometry == Geometry.of(expected) == Geometry.of(found)
    assert found.GetPixelID() == expected.GetPixelID()
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(expected))


@pytest.mark.parametrize(("qcode", "scode", "used", "other"), [(1, 2, "qform", "sform"), (1, 1, "sform", "qform")])
def test_two_transforms_that_differ_are_named_with_the_millimetres(tmp_path, qcode, scode, used, other):
    path = saved(tmp_path / "a.nii.gz", qcode, scode, turn=0.2)
    geometry = Geometry.of(sitk.ReadImage(str(path)))
    assert read_geometry(path) == geometry
    header = nibabel.load(path).header
    transforms = {"qform": header.get_qform(), "sform": header.get_sform()}
    corners = [
        (*(index * (size - 1) for index, size in zip(one, (8, 8, 6), strict=True)), 1) for one in np.ndindex(2, 2, 2)
    ]
    apart = np.linalg.norm(np.array(corners) @ (transforms["qform"] - transforms["sform"]).T, axis=1).max()
    expected = np.diag([-1, -1, 1]) @ transforms[used][:3, :3] / geometry.spacing
    np.testing.assert_allclose(np.reshape(geometry.direction, (3, 3)), expected, atol=1e-5)
    found, _, advice = two_transforms(read_geometry(path))
    assert f"corners up to {apart:.3g} mm apart" in found
    assert advice.startswith(f"The {used} is used") and f"use the {other}" in advice
    (warning,) = read_scan((path,)).warnings
    assert warning.startswith("a.nii.gz: qform and sform")


def test_two_transforms_that_agree_give_no_warning(tmp_path):
    for turn in (0.0, 1e-5):
        assert two_transforms(read_geometry(saved(tmp_path / "a.nii.gz", 1, 2, turn))) is None
    assert two_transforms(read_geometry(saved(tmp_path / "a.nii.gz", 1, 0, 0.5))) is None


@pytest.mark.parametrize(("qcode", "scode"), [(1, 2), (1, 1), (2, 0), (0, 4), (0, 0), (1, 3)])
def test_what_is_written_keeps_both_transforms_and_their_codes(tmp_path, qcode, scode):
    volume = read_scan((saved(tmp_path / "a.nii.gz", qcode, scode, turn=0.2),))
    write_volume(volume.array[0] + 1, volume.geometry, volume.data_type, tmp_path / "b.nii.gz")
    before, after = (nibabel.load(tmp_path / name).header for name in ("a.nii.gz", "b.nii.gz"))
    for one, other in zip(
        (*before.get_qform(coded=True), *before.get_sform(coded=True)),
        (*after.get_qform(coded=True), *after.get_sform(coded=True)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert before.get_xyzt_units()[0] == after.get_xyzt_units()[0] and after["descrip"].item() == b""
    one, other = (sitk.ReadImage(str(tmp_path / name)) for name in ("a.nii.gz", "b.nii.gz"))
    assert Geometry.of(one) == Geometry.of(other)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other), tiny_array() + 1)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "b.nii.gz").dataobj).T, tiny_array() + 1)


@pytest.mark.parametrize(("qcode", "scode"), [(1, 2), (1, 1), (2, 0), (0, 4)])
def test_a_file_that_simpleitk_refuses_is_placed_by_the_transform_that_it_would_use(tmp_path, qcode, scode):
    """The intent says that voxels are tensors: nibabel reads the file, and what is written for it is an image."""
    path, written = saved(tmp_path / "a.nii.gz", qcode, scode, 0.2, at_68=("h", 1005)), tmp_path / "b.nii.gz"
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(path))
    volume = read_scan((path,))
    write_volume(volume.array[0], volume.geometry, volume.data_type, written)
    assert Geometry.of(sitk.ReadImage(str(written))).differences(volume.geometry) == []
    assert read_geometry(written).differences(volume.geometry) == []


@pytest.mark.parametrize("intent", [1005, 1006])
@pytest.mark.parametrize(("qcode", "scode", "used"), [(1, 2, 0), (1, 1, 7), (2, 0, 0), (0, 4, 7)])
def test_a_voxel_that_simpleitk_sees_without_its_place_is_placed_likewise(tmp_path, qcode, scode, used, intent):
    """For SimpleITK a single tensor is nothing, and a single vector an image of one axis."""
    image, moved = nibabel.Nifti1Image(np.full((1, 1, 1), 3, np.uint8), None), np.eye(4)
    moved[2, 3] = 7
    image.set_qform(np.eye(4), qcode)
    image.set_sform(moved, scode)
    content = bytearray(image.to_bytes())
    struct.pack_into("<h", content, 68, intent)
    path, written = tmp_path / "a.nii", tmp_path / "b.nii"
    path.write_bytes(content)
    volume = read_scan((path,))
    assert volume.geometry.origin == (0, 0, used)
    write_volume(volume.array[0], volume.geometry, volume.data_type, written)
    assert read_geometry(written).differences(volume.geometry) == []


def test_a_spacing_of_the_sform_gives_a_grid_that_all_programs_read(tmp_path):
    path = saved(tmp_path / "a.nii.gz", 0, 1, 0.2, **{f"at_{PIXDIM + 8}": ("f", 0.0)})
    volume = read_scan((path,))
    assert volume.geometry.spacing == pytest.approx((1.5, 1.5, 5.0))
    write_volume(volume.array[0], volume.geometry, "int16", tmp_path / "b.nii.gz")
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii.gz").affine, nibabel.load(path).affine)
    assert not Geometry.of(sitk.ReadImage(str(tmp_path / "b.nii.gz"))).differences(volume.geometry)


def test_where_pixdim_contradicts_the_only_transform_the_transform_counts(tmp_path):
    path = saved(tmp_path / "a.nii.gz", 0, 1, 0.2, **{f"at_{PIXDIM + 8}": ("f", 2.0)})
    assert read_geometry(path).spacing == pytest.approx((1.5, 1.5, 5.0))


def test_labels_on_the_other_transform_are_not_to_be_resampled(tmp_path):
    image = read_scan((saved(tmp_path / "a.nii.gz", 1, 2, turn=0.2),))
    label = nibabel.Nifti1Image(tiny_label().T, nibabel.load(tmp_path / "a.nii.gz").get_sform())
    nibabel.save(label, tmp_path / "label.nii.gz")
    with pytest.raises(DataError, match="Do not resample the label image, which would displace it: give it the trans"):
        read_label(tmp_path / "label.nii.gz", tmp_path / "a.nii.gz", image.geometry)
    write_image(tiny_label(), tmp_path / "label.nii.gz", spacing=(1, 1, 2))
    with pytest.raises(DataError, match="Resample it to that grid with nearest neighbour"):
        read_label(tmp_path / "label.nii.gz", tmp_path / "a.nii.gz", image.geometry)


def test_advice_for_one_slice_and_for_a_place_where_no_patient_is(tmp_path):
    nibabel.save(nibabel.Nifti1Image(tiny_array()[0], np.eye(4)), tmp_path / "flat.nii.gz")
    with pytest.raises(DataError, match=r"2 dimensions \(8 x 8\), expected 3\. Save each scan .* third axis of size 1"):
        read_image(tmp_path / "flat.nii.gz")
    path = saved(tmp_path / "a.nii", scode=0, **{f"at_{PIXDIM}": ("f", 1e5)})
    with pytest.raises(DataError, match=r"a corner 7e\+05 mm from the origin"):
        read_geometry(path)


@pytest.mark.parametrize("data_type", ["int16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_not_written(tmp_path, data_type, value):
    array = np.zeros(SHAPE, np.float32)
    array[1, 2, 3] = value
    geometry = Geometry((8, 8, 6), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(DataError, match=r"a\.nii\.gz is not written\. .* the first at \(3, 2, 1\)"):
        write_volume(array, geometry, data_type, tmp_path / "a.nii.gz")
    assert not any(tmp_path.iterdir())


def test_voxels_beyond_32_bits(tmp_path):
    write_image(np.full(SHAPE, 1e300), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz has voxels beyond the range of 32-bit numbers"):
        read_scan((tmp_path / "a.nii.gz",))
