import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from longflow.tasks.translate import augmentation as phase_augmentation
from longflow.tasks.translate.augmentation import (
    Affine,
    Draw,
    augment_phases,
    draw_geometry,
    may_be_turned,
    with_geometry,
)

SQUARE = (1.0, 1.0)


def random_stack(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def of_seed(seed, stack, spacing=SQUARE):
    return augment_phases(stack, spacing, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(2, 1, 12, 12), (2, 2, 4, 12, 10)])
def test_both_scans_and_all_slices_are_warped_alike_to_the_bit(shape):
    stack = random_stack(*shape)
    stack[1] = stack[0]
    if len(shape) == 5:
        stack = stack[:, :, :1].expand(shape).contiguous()
    for seed in range(20):
        found = of_seed(seed, stack)
        assert found.shape == stack.shape and torch.equal(found[0], found[1])
        assert len(shape) == 4 or (found == found[:, :, :1]).all()


def test_what_happens_to_a_scan_does_not_depend_on_the_other():
    stack = random_stack(2, 1, 12, 12)
    for seed in range(20):
        assert torch.equal(of_seed(seed, stack)[0], of_seed(seed, stack[:1])[0])


def test_intensities_are_not_changed():
    """What is constant stays so, and no value is beyond those there were."""
    for seed in range(20):
        assert torch.allclose(of_seed(seed, torch.full((2, 1, 9, 13), 0.3)), torch.tensor(0.3))
        stack = random_stack(2, 1, 9, 13) * 2 - 1
        found = of_seed(seed, stack)
        assert found.min() >= stack.min() - 1e-6 and found.max() <= stack.max() + 1e-6


def test_nothing_drawn_is_nothing_done():
    stack = random_stack(2, 1, 3, 8, 8)
    assert torch.equal(with_geometry(stack, Draw(), SQUARE), stack)
    torch.testing.assert_close(with_geometry(stack, Draw(affine=Affine()), SQUARE), stack)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_mirrored_and_turned_as_numpy_does(turns):
    stack = random_stack(2, 1, 3, 8, 8)
    for mirrored in ((), (-1,), (-2,), (-1, -2)):
        expected = np.rot90(np.flip(stack.numpy(), mirrored), turns, (-2, -1))
        assert np.array_equal(with_geometry(stack, Draw(mirrored, turns), SQUARE).numpy(), expected)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_rotation_by_right_angles_is_that_of_numpy(quarters):
    stack = random_stack(1, 1, 8, 8)
    found = with_geometry(stack, Draw(affine=Affine(rotation=quarters * math.pi / 2)), SQUARE).numpy()
    assert np.allclose(found, np.rot90(stack.numpy(), quarters, (-2, -1)), atol=1e-5)


def test_a_rotation_is_one_in_mm():
    """A disc of 6 mm in pixels of 1 x 2 mm stays where it is; taken for square pixels, it would be turned over."""
    y, x = np.meshgrid(np.arange(-19.5, 20), 2 * np.arange(-9.5, 10), indexing="ij")
    disc = torch.from_numpy(np.clip(7 - np.hypot(y, x), 0, 1)).float()[None, None]
    turned = Draw(affine=Affine(rotation=math.radians(45)))
    assert (with_geometry(disc, turned, (1.0, 2.0)) - disc).abs().mean() < 0.02
    assert (with_geometry(disc, turned, SQUARE) - disc).abs().mean() > 0.04


def test_rotation_shear_and_shift_against_scipy():
    """Where each pixel comes from, in pixels of 0.5 x 0.8 mm; beyond the border it is repeated."""
    stack, spacing = random_stack(2, 2, 11, 14), (0.5, 0.8)
    affine = Affine(rotation=0.4, shear=(0.1, -0.15), shift=(0.2, -0.1))
    cosine, sine = math.cos(0.4), math.sin(0.4)
    of_xy = (
        np.array([[cosine, -sine], [sine, cosine]])
        @ np.array([[1, 0], [math.tan(-0.15), 1]])
        @ np.array([[1, math.tan(0.1)], [0, 1]])
    )
    in_pixels = of_xy[::-1, ::-1] * np.array(spacing)[None] / np.array(spacing)[:, None]
    centre = (np.array([11, 14]) - 1) / 2
    offset = centre - in_pixels @ centre + np.array([-0.1 * 11, 0.2 * 14])
    found = with_geometry(stack, Draw(affine=affine), spacing).numpy()
    for image, expected in zip(found.reshape(-1, 11, 14), stack.numpy().reshape(-1, 11, 14), strict=True):
        assert np.allclose(image, affine_transform(expected, in_pixels, offset, order=1, mode="nearest"), atol=1e-4)


def test_a_plane_is_turned_only_where_it_fits_itself():
    assert may_be_turned((8, 8), (0.7, 0.7))
    assert not may_be_turned((8, 10), (0.7, 0.7)) and not may_be_turned((8, 8), (0.7, 0.9))
    oblong = random_stack(2, 1, 8, 10)
    assert all(of_seed(seed, oblong).shape == oblong.shape for seed in range(10))


def test_draws_are_those_of_the_paper():
    generator = np.random.default_rng(0)
    draws = [draw_geometry(generator, True) for _ in range(4000)]
    share = pytest.approx(0.5, abs=0.03)
    assert np.mean([-1 in draw.mirrored for draw in draws]) == share
    assert np.mean([-2 in draw.mirrored for draw in draws]) == share
    turns = np.bincount([draw.turns for draw in draws], minlength=4) / len(draws)
    assert turns == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.03)
    affines = [draw.affine for draw in draws if draw.affine]
    assert len(affines) / len(draws) == pytest.approx(0.7, abs=0.03)
    for values, limit in (
        ([affine.rotation for affine in affines], math.radians(45)),
        ([affine.shear for affine in affines], math.radians(10)),
        ([affine.shift for affine in affines], 0.2),
    ):
        assert -limit <= np.min(values) < -0.95 * limit and 0.95 * limit < np.max(values) <= limit
        assert np.std(values) == pytest.approx(limit / math.sqrt(3), rel=0.05)
    assert not any(draw_geometry(generator, False).turns for _ in range(50))


def test_a_draw_is_decided_by_the_generator_alone():
    """The global generators are neither read nor advanced."""
    stack = random_stack(2, 1, 8, 8)
    first = of_seed(3, stack)
    np.random.seed(5)
    torch.manual_seed(5)
    assert torch.equal(of_seed(3, stack), first) and not torch.equal(of_seed(4, stack), first)
    np.random.seed(5)
    torch.manual_seed(5)
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    of_seed(3, stack)
    assert np.array_equal(np.random.get_state()[1], state[0]) and torch.equal(torch.get_rng_state(), state[1])


def test_what_is_switched_off_in_the_draw_stays_off(monkeypatch):
    for name in ("MIRROR_PROBABILITY", "TURN_PROBABILITY", "AFFINE_PROBABILITY"):
        monkeypatch.setattr(phase_augmentation, name, 0)
    stack = random_stack(2, 1, 8, 8)
    assert all(torch.equal(of_seed(seed, stack), stack) for seed in range(10))
