import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

from longflow.data.body import (
    body_blocks,
    body_mask,
    body_of_scan,
    bright_image,
    brighter_than_mean,
    nonzero_mask,
)

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


def test_the_body_is_that_of_the_first_ct_channel_else_of_the_first():
    mr = np.random.default_rng(0).random(ELLIPSE.shape)
    scan = np.stack([mr, ct(), ct(lungs=True)])
    assert np.array_equal(body_of_scan(scan, [False, True, True]), body_mask(ct(), is_ct=True))
    assert np.array_equal(body_of_scan(scan, [False, False, False]), body_mask(mr, is_ct=False))
    assert not np.array_equal(body_mask(mr, is_ct=False), ELLIPSE)


def test_blocks_of_the_body_are_bright_in_any_channel():
    coarse = np.zeros((3, 2, 1, 4, 4), np.float32)
    coarse[:, 0, 0, 0, 0] = 5
    coarse[:, 1, 0, 3, 3] = 7
    assert np.argwhere(body_blocks(coarse)).tolist() == [[0, 0, 0], [0, 3, 3]]
    assert body_blocks(np.ones((1, 1, 2, 2, 2))).all()


def test_voxels_brighter_than_the_mean_exclude_air():
    image = np.full((4, 8, 8), -1000.0, dtype=np.float32)
    image[:, 2:6, 2:6] = 40
    assert np.array_equal(brighter_than_mean(image), image == 40)
    assert brighter_than_mean(np.zeros((2, 2, 2))).all()


def test_the_nonzero_mask_is_that_of_nnunet():
    scan = np.random.default_rng(0).integers(0, 2, (2, 6, 9, 9)) * (np.arange(2) == 0)[:, None, None, None]
    scan[1, 1:5, 1:8, 1:8] = 3
    scan[:, 2:4, 3:6, 3:6] = 0  # a hole that is enclosed
    found = nonzero_mask(scan)
    assert found[2:4, 3:6, 3:6].all() and not found.all()
    assert np.array_equal(found, create_nonzero_mask(scan))


def test_a_bright_image_keeps_its_grid():
    image = sitk.GetImageFromArray(np.where(ELLIPSE, 300.0, 0.0))
    image.SetSpacing((1.0, 2.0, 3.0))
    found = bright_image(image)
    assert np.array_equal(sitk.GetArrayFromImage(found), ELLIPSE)
    assert found.GetSpacing() == (1.0, 2.0, 3.0)
