import numpy as np
import pytest

from longflow.data.images import Geometry
from longflow.errors import DataError
from longflow.preprocessing.grid import (
    check_grid,
    inverse_order,
    resample_image,
    resample_labels,
    resampled_shape,
    transposed,
)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_transposition_is_undone(order):
    array = np.arange(24).reshape(1, 2, 3, 4)
    there = transposed(array, order)
    assert there.shape[1:] == tuple(array.shape[1 + axis] for axis in order)
    assert np.array_equal(transposed(there, inverse_order(order)), array)


def test_the_same_shape_is_the_same_to_the_bit():
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert resample_image(image, [3, 4, 5], (3.0, 1.0, 1.0), (3.01, 1.0, 1.0)) is image
    labels = image[0].astype(np.int16)
    assert resample_labels(labels, [3, 4, 5], (3.0, 1.0, 1.0), (3.01, 1.0, 1.0)) is labels


def test_no_axis_vanishes():
    assert resampled_shape([1, 20, 20], (4.0, 1.0, 1.0), (10.0, 2.0, 2.0)) == [1, 10, 10]


def test_thick_slices_are_not_blended():
    """Order 0 through the plane: values of a slice are those of one slice of the source."""
    image = np.zeros((1, 4, 8, 8), np.float32)
    image[0] += np.array([0, 10, 20, 30], np.float32)[:, None, None]
    resampled = resample_image(image, [6, 12, 12], (10.0, 1.0, 1.0), (6.667, 0.667, 0.667))
    assert resampled.dtype == np.float32
    assert set(np.unique(np.round(resampled, 3))) == {0, 10, 20, 30}


def test_thin_slices_are_interpolated_smoothly():
    line = np.linspace(0, 1, 16, dtype=np.float32)
    image = np.broadcast_to(line[:, None, None], (16, 16, 16))[None]
    up = resample_image(image, [32, 32, 32], (2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    down = resample_image(up, [16, 16, 16], (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    assert np.abs(down - image).max() < 0.02


def test_labels_stay_labels():
    labels = np.zeros((4, 8, 8), np.int16)
    labels[1:3, 2:6, 2:6] = 3
    resampled = resample_labels(labels, [4, 16, 16], (5.0, 2.0, 2.0), (5.0, 1.0, 1.0))
    assert resampled.dtype == np.int16 and set(np.unique(resampled)) == {0, 3}
    assert (resampled == 3).mean() == pytest.approx((labels == 3).mean(), rel=0.1)


def test_a_grid_that_memory_cannot_hold_names_the_file_and_its_spacing():
    geometry = Geometry((30, 30, 20), (1e3, 1e3, 1e3), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    shape = resampled_shape((20, 30, 30), (1e3, 1e3, 1e3), (1.0, 1.0, 1.0))
    assert shape == [20_000, 30_000, 30_000]
    check_grid((20, 30, 30), 3, "a.nii.gz", geometry)
    with pytest.raises(DataError, match=r"a\.nii\.gz has the size 30 x 30 x 20 voxels of 1000 x 1000 x 1000 mm, resam"):
        check_grid(shape, 3, "a.nii.gz", geometry)
