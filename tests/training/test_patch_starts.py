import numpy as np
import pytest

from longflow.training.patch_starts import draw_patch_start, draw_start_around


def made_up_series(shape=(8, 32, 32), block=(4, 8, 8)):
    """Two scans with the body on the left half."""
    coarse = np.zeros((2, 1, *(-(-size // edge) for size, edge in zip(shape, block, strict=True))), np.float32)
    coarse[..., :2] = 1
    images = np.zeros((2, 1, *shape), np.float32)
    return type("Series", (), {"coarse": coarse, "coarse_block": block, "images": images})()


def change_in(series, *blocks):
    change = np.zeros(series.coarse.shape[2:], np.float32)
    for block in blocks:
        change[block] = 1
    return change


def test_a_third_of_the_patches_lie_where_much_changes():
    generator, series = np.random.default_rng(0), made_up_series()
    change = change_in(series, (1, 1, 1))
    starts = [draw_patch_start(series, change, (2, 2, 2), generator) for _ in range(2000)]
    centres = np.array(starts) + 1
    at_change = ((centres // (4, 8, 8)) == (1, 1, 1)).all(1).mean()
    # a third, and one sixteenth of the draws in the body
    assert at_change == pytest.approx(1 / 3 + 2 / 3 / 16, abs=0.04)
    assert (centres[:, 2] < 16).all()


def test_patches_lie_inside_the_image_or_around_it():
    generator, series = np.random.default_rng(0), made_up_series()
    for _ in range(200):
        z, y, x = draw_patch_start(series, change_in(series, (1, 1, 1)), (12, 20, 32), generator)
        assert z == -2 and 0 <= y <= 12 and x == 0


def test_without_any_change_or_body_patches_are_drawn_anywhere():
    series = made_up_series()
    series.coarse[:] = 0
    generator = np.random.default_rng(0)
    starts = {tuple(draw_patch_start(series, change_in(series), (2, 2, 2), generator)) for _ in range(200)}
    assert len(starts) > 50


def test_blocks_are_drawn_in_proportion_to_their_weight():
    generator, series = np.random.default_rng(0), made_up_series()
    weight = change_in(series, (0, 0, 0), (1, 3, 3))
    weight[1, 3, 3] = 3
    centres = np.array([draw_start_around(series, weight, (1, 1, 1), generator) for _ in range(2000)])
    last = (centres >= (4, 24, 24)).all(1)
    assert last.mean() == pytest.approx(3 / 4, abs=0.04) and (centres[~last] < (4, 8, 8)).all()
    # and every voxel of a block alike
    assert all(len(np.unique(centres[last][:, axis])) == edge for axis, edge in enumerate((4, 8, 8)))


def test_a_block_that_the_image_cuts_off_has_no_voxel_beyond_it():
    """Nine slices in blocks of eight: the last block is one slice, and is not found eight times as often for it."""
    generator, series = np.random.default_rng(0), made_up_series((9, 8, 8), (8, 8, 8))
    weight = np.array([8, 1], np.float32).reshape(2, 1, 1)
    first = [draw_start_around(series, weight, (1, 8, 8), generator)[0] for _ in range(3000)]
    assert np.bincount(first, minlength=9) / 3000 == pytest.approx(np.full(9, 1 / 9), abs=0.03)
