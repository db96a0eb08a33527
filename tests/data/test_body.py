import numpy as np
import pytest

from longflow.data.body import body_mask

Z, Y, X = np.meshgrid(np.arange(6), np.arange(24), np.arange(30), indexing="ij")
ELLIPSE = ((Y - 10) / 8) ** 2 + ((X - 15) / 12) ** 2 <= 1


def ct(lungs=False, noise=20.0):
    """An ellipse of 40 HU in air above a table, in every slice."""
    volume = np.where(ELLIPSE, 40.0, -1000.0)
    volume[:, 21:23, 2:28] = -100  # the table, apart from the body
    if lungs:
        volume[:, 7:12, 8:12] = -850  # open at both ends of the scan
    return (volume + np.random.default_rng(0).normal(0, noise, volume.shape)).astype(np.float32)


@pytest.mark.parametrize("lungs", [False, True])
def test_ct_without_table_and_with_what_the_body_encloses(lungs):
    found = body_mask(ct(lungs), is_ct=True)
    assert found.dtype == bool and np.array_equal(found, ELLIPSE)


def test_mr_is_what_is_bright_and_what_that_encloses():
    volume = np.where(ELLIPSE, 300.0, 0.0)
    volume[:, 8:11, 10:20] = 10  # fluid is dark in T1
    volume += np.random.default_rng(0).normal(0, 8, volume.shape)
    assert np.array_equal(body_mask(volume, is_ct=False), ELLIPSE)


def test_both_parts_of_mr_count():
    volume = np.zeros((3, 16, 30), np.float32)
    volume[:, 4:12, 2:12] = volume[:, 4:12, 18:26] = 200  # two thighs
    assert np.array_equal(body_mask(volume, is_ct=False), volume > 0)


@pytest.mark.parametrize("is_ct", [True, False])
def test_no_body_in_air_or_in_a_constant(is_ct):
    assert not body_mask(np.full((3, 4, 5), -1000, np.int16), is_ct).any()
