import numpy as np
import pytest
import SimpleITK as sitk

from longflow.errors import DataError
from longflow.inference.in_memory import image_like, volume_of


def test_arrays_lie_at_the_origin_with_the_spacing_that_is_given():
    volume = volume_of(np.ones((2, 3, 4), np.uint8), (5, 1, 0.5))
    assert volume.array.shape == (1, 2, 3, 4) and volume.array.dtype == np.float32 and volume.data_type == "uint8"
    assert volume.geometry.size == (4, 3, 2) and volume.geometry.spacing == (0.5, 1, 5)


@pytest.mark.parametrize("channels", [1, 2])
def test_images_there_and_back(channels):
    array = np.arange(24 * channels, dtype=np.int16).reshape(channels, 2, 3, 4)
    image = sitk.GetImageFromArray(array[0]) if channels == 1 else sitk.Compose(*map(sitk.GetImageFromArray, array))
    image.SetSpacing((1, 2, 3))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    volume = volume_of(image, None)
    assert np.array_equal(volume.array, array) and volume.data_type == "int16"
    back = image_like(array, image)
    assert back.GetDirection() == image.GetDirection() == volume.geometry.direction
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize(("shape", "spacing"), [((3, 4), (1, 1, 1)), ((2, 3, 4), None), ((2, 3, 4), (1, 1))])
def test_arrays_that_are_no_scan(shape, spacing):
    with pytest.raises(DataError, match="Arrays need the shape"):
        volume_of(np.zeros(shape), spacing)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_spacing_that_is_none(value):
    with pytest.raises(DataError, match="expected three finite numbers above 0, in mm"):
        volume_of(np.zeros((2, 3, 4)), (1.0, value, 1.0))
