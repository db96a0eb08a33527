import blosc2
import numpy as np
import pytest

from longflow.preprocessing.patches import read_patch

IMAGES = np.random.default_rng(0).normal(size=(4, 2, 6, 7, 8)).astype(np.float32)


@pytest.mark.parametrize("images", [IMAGES, blosc2.asarray(IMAGES)], ids=["memory", "stored"])
def test_a_patch_holds_the_scans_in_the_given_order(images):
    found = read_patch(images, [3, 0], (1, 2, 3), (2, 3, 4))
    np.testing.assert_array_equal(found, IMAGES[[3, 0], :, 1:3, 2:5, 3:7])


@pytest.mark.parametrize("images", [IMAGES, blosc2.asarray(IMAGES)], ids=["memory", "stored"])
def test_the_border_is_repeated_beyond_the_image(images):
    found = read_patch(images, [1], (-2, 4, 0), (10, 6, 8))
    expected = np.pad(IMAGES[[1]], ((0, 0), (0, 0), (2, 2), (0, 3), (0, 0)), mode="edge")[:, :, :, 4:]
    np.testing.assert_array_equal(found, expected)
