"""Against nnU-Net's own resampling, which holds whole volumes in float64; and what is in memory."""

import tracemalloc

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from longflow.preprocessing import resampling
from longflow.preprocessing.resampling import cubic_slabs, linear_slices

#: present and new shape, present and new spacing; a ratio of 1.25 interpolates half-way between numbers of 16 bits
GRIDS = {
    "finer": ((12, 20, 24), (15, 25, 30), (1.25, 1, 1), (1, 0.8, 0.8)),
    "coarser": ((15, 21, 22), (10, 14, 16), (1, 1, 1), (1.5, 1.5, 1.4)),
    "one axis alone": ((12, 10, 9), (16, 10, 9), (2, 1, 1), (1.5, 1, 1)),
    "one slice": ((1, 12, 10), (1, 15, 8), (1, 1, 1), (1, 0.8, 1.25)),
    "thick slices": ((6, 20, 24), (9, 25, 20), (6, 1, 1), (4, 0.8, 1.2)),
    "thick, the number of slices stays": ((6, 20, 24), (6, 25, 24), (6, 1, 1), (6, 0.8, 1)),
    "thick along the second axis": ((20, 6, 24), (16, 9, 30), (1, 6, 1), (1.25, 4, 0.8)),
    "thick along the last axis": ((20, 24, 6), (25, 24, 4), (1, 1, 6), (0.8, 1, 9)),
}


@pytest.fixture(params=GRIDS.values(), ids=GRIDS)
def grid(request):
    return request.param


def numbers(shape, channels=2):
    return np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)


def by_nnunet(volume, grid, order):
    return resample_data_or_seg_to_shape(volume, *grid[1:], is_seg=False, order=order, order_z=0, force_separate_z=None)


def cubic(image, grid, **further):
    parts = list(cubic_slabs(image, *grid[1:], **further))
    assert [place for part, _ in parts for place in range(part.start, part.stop)] == list(range(grid[1][0]))
    return np.concatenate([values for _, values in parts], axis=1)


@pytest.mark.parametrize("slab", [1, 1500, resampling.SLAB])
def test_cubic_splines_are_those_of_nnunet(grid, slab, monkeypatch):
    monkeypatch.setattr(resampling, "SLAB", slab)
    image = numbers(grid[0])
    found, expected = cubic(image, grid), by_nnunet(image, grid, 3)
    assert found.dtype == np.float32 and found.shape == expected.shape
    different = found != expected
    assert different.mean() < 1e-4
    assert np.all(np.abs(found - expected)[different] <= np.spacing(np.abs(expected[different])))


def test_overshoot_is_clipped_to_the_range_of_each_channel():
    image = np.zeros((2, 8, 8, 8), np.float32)
    image[0, :, 4:] = 1
    image[1, 4:] = -5
    for channel in cubic(image, ((8, 8, 8), (14, 14, 14), (1, 1, 1), (0.6, 0.6, 0.6))):
        assert set(np.unique(image).tolist()) >= {channel.min(), channel.max()} and channel.min() < channel.max()


def test_an_image_is_converted_a_few_slices_at_a_time(grid, monkeypatch):
    monkeypatch.setattr(resampling, "SLAB", 1)
    seen, stored = [], (1000 * numbers(grid[0])).astype(np.int16)

    def convert(slices):
        seen.append(slices.shape[1])
        return slices.astype(np.float32) / 7

    found = cubic(stored, grid, convert=convert)
    np.testing.assert_allclose(found, by_nnunet(stored.astype(np.float32) / 7, grid, 3), rtol=1e-6, atol=1e-5)
    thick_or_same = grid[0][0] == grid[1][0] or max(grid[2]) > 3 * min(grid[2])
    assert max(seen) == 1 or not (thick_or_same and grid[2].index(max(grid[2])) == 0)


def test_far_slices_do_not_matter_to_a_slice(monkeypatch):
    """Of 300 slices, 80 are enough to make one: a spline's share falls by a factor of 3.7 with each."""
    monkeypatch.setattr(resampling, "SLAB", 1)
    seen = []

    def convert(slices):
        seen.append(slices.shape[1])
        return slices

    cubic(numbers((300, 2, 2)), ((300, 2, 2), (240, 2, 2), (1, 1, 1), (1.25, 1, 1)), convert=convert)
    assert max(seen) <= 80


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_linear_slices_are_bit_identical_to_nnunet(grid, kind):
    logits = (4 * numbers(grid[0], 3)).astype(kind)
    found = np.stack(list(linear_slices(np.moveaxis(logits, 1, 0), *grid)), axis=1)
    assert found.dtype == kind and np.array_equal(found, by_nnunet(logits, grid, 1))


def test_memory_of_the_resampling_does_not_grow_with_the_slices():
    def peak(count):
        slices = (np.ones((20, 32, 32), np.float16) for _ in range(count))
        resampled = linear_slices(slices, (count, 32, 32), (2 * count, 40, 40), (1, 1, 1), (0.5, 0.8, 0.8))
        tracemalloc.start()
        for _ in resampled:
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(80) < 1.2 * peak(10)
