import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.nifti import describe_infinite, is_nifti, read_nifti_array
from longflow.errors import DataError
from tests.data.helpers import tiny_array, write_image


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_arrays_are_as_simpleitk_reads_them(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_image(np.stack([tiny_array(0), tiny_array(1)]), path)
    array = read_nifti_array(path)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert array.shape == (2, 6, 8, 8) and array.dtype == np.int16


def test_big_endian_and_concatenated_gzip(tmp_path):
    image = nibabel.Nifti1Image(tiny_array().T, np.eye(4), nibabel.Nifti1Header(endianness=">"))
    content = image.to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    np.testing.assert_array_equal(read_nifti_array(tmp_path / "a.nii.gz"), tiny_array())


def test_nothing_at_all(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(DataError, match="is truncated"):
        read_nifti_array(tmp_path / "a.nii.gz")


def test_names():
    assert is_nifti("x/a.nii.gz") and is_nifti("a.nii") and not is_nifti("a.nrrd")


def test_describe_infinite():
    array = np.zeros((2, 3, 4), np.float32)
    assert describe_infinite(array) == ""
    assert describe_infinite(np.full((2, 2, 2), 3e38, np.float32)) == ""
    assert describe_infinite(np.full((2, 2, 2), 1e308)) == ""
    assert describe_infinite(np.zeros((2, 2, 2), np.int16)) == ""
    array[1, 2, 3], array[1, 2, 0], array[0, 1, 0] = np.nan, np.nan, -np.inf
    assert describe_infinite(array) == "2 NaN and 1 infinite, the first at (0, 1, 0)"
    array[0, 1, 1] = np.inf
    assert describe_infinite(array).startswith("2 NaN and 2 infinite")
