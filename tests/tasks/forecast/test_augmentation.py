from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.plans import ChannelPlan
from longflow.preprocessing.patches import is_thin
from longflow.tasks.forecast import augmentation
from longflow.tasks.forecast.augmentation import (
    augment,
    augment_batch,
    draw_augmentation,
    draw_time_factor,
    with_draw,
)
from tests.methods.helpers import minimal_plans, random_batch


def draw(stack, plans=None, seed=0, dimensions=3):
    plans = plans or minimal_plans(channels=stack.shape[1], dimensions=dimensions)
    (configuration,) = plans.configurations.values()
    return augment(stack, plans, configuration, np.random.default_rng(seed))


def random_stack(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("shape", "dimensions"), [((4, 8, 8), 3), ((8, 8), 2), ((1, 8, 8), 3)])
def test_one_draw_for_all_scans(monkeypatch, shape, dimensions):
    """Equal scans stay bit-identical, whatever is drawn; and something is drawn."""
    monkeypatch.setattr(augmentation, "PROBABILITY", 1.0)
    scan = random_stack(1, 2, *shape)
    for seed in range(10):
        out = draw(scan.repeat(3, *[1] * (len(shape) + 1)), seed=seed, dimensions=dimensions)
        assert out.shape == (3, 2, *shape) and out.dtype == torch.float32
        assert torch.equal(out[0], out[1]) and torch.equal(out[0], out[2])
        assert not torch.allclose(out[0], scan[0])


def test_what_does_not_change_between_scans_does_not_after_augmentation():
    stack = random_stack(1, 1, 4, 8, 8).repeat(2, 1, 1, 1, 1)
    stack[1, 0, 2:, 4:, 4:] += 1
    out = draw(stack)
    changed = (out[1] - out[0]).abs() > 1e-5
    assert 0 < changed.float().mean() < 0.6


def test_absolute_channels_keep_their_numbers(monkeypatch):
    """CT: mirrored and warped, but never brighter; the other channel is."""
    monkeypatch.setattr(augmentation, "_warp", lambda stack, configuration, elastic: stack)
    plans = minimal_plans(channels=2)
    plans.channels[0] = ChannelPlan(name="CT", normal_form="absolute", offset=0, scale=100)
    stack = random_stack(2, 2, 4, 8, 8)
    out = draw(stack, plans)
    assert torch.equal(out[:, 0], stack[:, 0])
    gain, shift = (out[0, 1].std() / stack[0, 1].std()).item(), 0.0
    shift = (out[0, 1] - gain * stack[0, 1]).mean().item()
    assert 0.8 <= gain <= 1.25 and -0.2 <= shift <= 0.2 and abs(gain - 1) > 1e-3
    torch.testing.assert_close(out[:, 1], gain * stack[:, 1] + shift)


def test_thin_patches_are_not_rotated_out_of_the_plane(monkeypatch):
    monkeypatch.setattr(augmentation, "PROBABILITY", 1.0)
    plans = minimal_plans()
    (configuration,) = plans.configurations.values()
    configuration.patch_size = [2, 16, 16]
    assert is_thin(configuration)
    stack = torch.arange(2.0).view(1, 1, 2, 1, 1).expand(1, 1, 2, 16, 16).clone()
    for seed in range(5):
        slices = draw(stack, plans, seed)[0, 0].flatten(1)
        assert torch.allclose(slices.max(1).values, slices.min(1).values, atol=1e-5)
    configuration.patch_size = [8, 16, 16]
    assert not is_thin(configuration)


def test_the_draw_depends_on_its_generator_alone():
    """Whatever the global generators of NumPy and torch are, and they are left as they were."""
    stack = random_stack(2, 1, 4, 8, 8)
    np.random.seed(1)
    torch.manual_seed(1)
    first = draw(stack, seed=5)
    np.random.seed(2)
    torch.manual_seed(2)
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    assert torch.equal(draw(stack, seed=5), first)
    assert not torch.equal(draw(stack, seed=6), first)
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))
    assert torch.equal(torch_state, torch.get_rng_state())


@pytest.mark.parametrize(("patch", "dimensions"), [((8, 10, 12), 3), ((10, 12), 2), ((2, 12, 16), 3)])
def test_a_draw_for_a_gpu_is_the_same_and_so_is_its_result(monkeypatch, patch, dimensions):
    """Of the library's transform on the one side, of torch's affine_grid on the other; edges differ, thin patches."""
    for certain in (0.0, 1.0):
        monkeypatch.setattr(augmentation, "PROBABILITY", certain)
        plans = minimal_plans(channels=2, dimensions=dimensions)
        (configuration,) = plans.configurations.values()
        configuration.patch_size = list(patch)
        stack = random_stack(3, 2, *patch)
        for seed in range(20):
            expected = draw(stack, plans, seed, dimensions)
            generator = np.random.default_rng(seed)
            drawn = draw_augmentation(plans, configuration, generator)
            torch.testing.assert_close(with_draw(stack, drawn), expected, atol=2e-4, rtol=1e-4)
            assert (drawn.affine is not None) == bool(certain)
            other = np.random.default_rng(seed)
            augment(stack, plans, configuration, other)
            assert generator.random() == other.random()  # the next sample begins alike


def elastic_plans(probability=1.0, patch=(16, 24, 24)):
    plans = minimal_plans()
    plans.training.elastic = probability
    (configuration,) = plans.configurations.values()
    configuration.patch_size = list(patch)
    return plans


def test_an_elastic_deformation_is_one_for_all_scans_and_smooth(monkeypatch):
    """Images of the coordinates show where each voxel comes from: the map is no affine one, and it does not fold."""
    monkeypatch.setattr(augmentation, "PROBABILITY", 0.0)
    monkeypatch.setattr(augmentation, "_with_intensities", lambda stack, *_: stack)
    axes = torch.meshgrid(*(torch.arange(float(edge)) for edge in (16, 24, 24)), indexing="ij")
    stack = torch.stack(axes).unsqueeze(0).repeat(2, 1, 1, 1, 1)
    for seed in range(10):
        out = draw(stack, elastic_plans(), seed)
        assert torch.equal(out[0], out[1])
        inside = out[0, :, 4:-4, 6:-6, 6:-6].numpy()
        slopes = np.stack([np.stack(np.gradient(of_axis)) for of_axis in inside])
        assert np.abs(slopes - slopes.mean((2, 3, 4), keepdims=True)).max() > 1e-3, "an affine map"
        determinants = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)))
        assert (np.sign(determinants) == np.sign(determinants.flat[0])).all(), "the map folds"


def test_without_elastic_deformation_nothing_changes_and_it_is_off_by_default():
    stack = random_stack(2, 1, 16, 24, 24)
    assert minimal_plans().training.elastic == 0
    (configuration,) = elastic_plans().configurations.values()
    plain = augment(stack, minimal_plans(), configuration, np.random.default_rng(3))
    assert torch.equal(draw(stack, elastic_plans(0.0), 3), plain)
    assert not torch.equal(draw(stack, elastic_plans(1.0), 3), plain)


def test_times_are_stretched_evenly_on_both_sides_unless_there_is_a_period():
    plans, generator = minimal_plans(), np.random.default_rng(0)
    assert draw_time_factor(plans, generator) == 1 and generator.random() == np.random.default_rng(0).random()
    plans.training.time_factor = 1.25
    factors = np.array([draw_time_factor(plans, generator) for _ in range(2000)])
    assert 0.8 <= factors.min() < 0.81 and 1.24 < factors.max() <= 1.25
    assert abs(np.median(factors) - 1) < 0.01
    plans.temporal.period = 20
    assert draw_time_factor(plans, generator) == 1


@pytest.mark.parametrize(("patch", "dimensions"), [((8, 10, 12), 3), ((10, 12), 2)])
def test_a_map_of_weights_is_moved_like_the_scans_and_keeps_its_numbers(monkeypatch, patch, dimensions):
    """A scan and its map are the same image: only the intensities of the scan change, on the CPU and on a GPU."""
    monkeypatch.setattr(augmentation, "PROBABILITY", 1.0)
    plans = minimal_plans(dimensions=dimensions)
    (configuration,) = plans.configurations.values()
    configuration.patch_size = list(patch)
    image = random_stack(1, 1, *patch)
    stack = torch.cat([image, image, image])
    with_map = augment(stack, plans, configuration, np.random.default_rng(2), maps=1)
    alone = augment(stack, plans, configuration, np.random.default_rng(2))
    assert torch.equal(with_map[:2], alone[:2]) and not torch.equal(with_map[2], alone[2])
    drawn = draw_augmentation(plans, configuration, np.random.default_rng(2))
    torch.testing.assert_close(with_map[2] * drawn.gains + drawn.shifts, with_map[1])
    torch.testing.assert_close(with_draw(stack, drawn, maps=1), with_map, atol=2e-4, rtol=1e-4)


def test_weights_of_a_deferred_batch_have_mean_one():
    plans = minimal_plans()
    (configuration,) = plans.configurations.values()
    weights = torch.ones(2, 1, 4, 8, 8)
    weights[0, :, 1:3, 2:5, 2:5] = 5
    draws = [draw_augmentation(plans, configuration, np.random.default_rng(seed)) for seed in (0, 1)]
    batch = replace(random_batch(), weights=weights, draws=draws)
    done = augment_batch(batch)
    torch.testing.assert_close(done.weights.mean((1, 2, 3, 4)), torch.ones(2))
    torch.testing.assert_close(done.weights[1], torch.ones(1, 4, 8, 8))
    assert done.weights[0].max() > 2
    plain = augment_batch(replace(batch, weights=None))
    assert plain.weights is None
    assert torch.equal(done.context, plain.context) and torch.equal(done.target, plain.target)
