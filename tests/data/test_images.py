import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.images import Geometry, as_type, read_geometry, read_image, read_scan, write_volume
from longflow.errors import DataError
from tests.data.helpers import SHAPE, tiny_array, write_image


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


@pytest.mark.parametrize("data_type", ["int16", "float32"])
def test_voxels_that_are_no_numbers_are_not_written(tmp_path, data_type):
    """Cast to whole numbers, NaN would become 0."""
    array = tiny_array().astype(np.float32)
    array[5, 0, 2] = np.nan
    write_image(tiny_array(), tmp_path / "in.nii.gz")
    geometry = read_geometry(tmp_path / "in.nii.gz")
    with pytest.raises(DataError, match=r"out.nii.gz is not written: .* 1 NaN, the first at \(2, 0, 5\)"):
        write_volume(array, geometry, data_type, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


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
