import numpy as np

from longflow.data.coarse import block_means, shift_between


def test_block_means_with_partial_blocks():
    image = np.random.default_rng(0).normal(size=(2, 1, 5, 9, 16)).astype(np.float32)
    means = block_means(image, (2, 8, 8))
    assert means.shape == (2, 1, 3, 2, 2) and means.dtype == np.float32
    assert np.allclose(means[:, :, 0, 0, 0], image[:, :, :2, :8, :8].mean(axis=(2, 3, 4)), atol=1e-6)
    assert np.allclose(means[:, :, 2, 1, 1], image[:, :, 4:, 8:, 8:].mean(axis=(2, 3, 4)), atol=1e-6)


def test_shift_between_is_in_blocks():
    left, right = np.zeros((2, 1, 6, 8, 8))
    left[0, 2:4, 2:4, 2:5], right[0, 2:4, 4:6, 1:4] = 1, 1
    assert np.allclose(shift_between(left, right), (0, -2, 1), atol=0.26)
    # three blocks along an axis say nothing of a shift along it
    assert np.allclose(shift_between(left[:, :, :, :3], right[:, :, :, 1:4])[2], 0)


def test_a_constant_scan_has_no_shift():
    assert not shift_between(np.ones((1, 4, 4, 4)), np.random.default_rng(0).random((1, 4, 4, 4))).any()
