import numpy as np
import pytest
import torch

from longflow.flow.interpolant import (
    broadcast_target,
    change_weights,
    draw_flow_steps,
    interpolate,
    joint_weights,
    velocity,
    velocity_loss,
    with_mean_one,
)


def stack(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_broadcast_repeats_the_target_for_every_scan():
    target = stack(2, 1, 3, 4, 5)
    repeated = broadcast_target(target, 6)
    assert repeated.shape == (2, 6, 1, 3, 4, 5)
    assert all(torch.equal(repeated[:, scan], target) for scan in range(6))


def test_interpolation_matches_equation_4_sample_by_sample():
    start, end = stack(3, 2, 1, 4, 4), stack(3, 2, 1, 4, 4) + 1
    tau = torch.tensor([0.0, 0.3, 1.0])
    found = interpolate(start, end, tau)
    for sample, share in enumerate([0.0, 0.3, 1.0]):
        expected = (1 - share) * start[sample].numpy() + share * end[sample].numpy()
        np.testing.assert_allclose(found[sample].numpy(), expected, atol=1e-6)


def test_noise_has_the_stated_standard_deviation_and_zero_adds_none():
    torch.manual_seed(0)
    start = torch.zeros(1, 1, 1, 100, 100)
    assert torch.equal(interpolate(start, start, torch.tensor([0.5])), start)
    assert abs(interpolate(start, start, torch.tensor([0.5]), noise=0.3).std().item() - 0.3) < 0.01


def test_velocity_carries_the_start_to_the_end_in_one_unit_of_tau():
    start, end = stack(1, 2, 1, 3, 3), stack(1, 2, 1, 3, 3) * 2
    torch.testing.assert_close(start + velocity(start, end), end)


def test_loss_is_the_mean_squared_error_over_observed_scans_alone():
    predicted, expected = stack(2, 3, 1, 4, 4), stack(2, 3, 1, 4, 4) * 0.5
    mask = torch.tensor([[False, True, True], [True, True, True]])
    errors = [((predicted[b, s] - expected[b, s]) ** 2).numpy() for b, s in mask.nonzero().tolist()]
    assert abs(velocity_loss(predicted, expected, mask).item() - np.mean(errors)) < 1e-6
    predicted[0, 0] = 1e6
    assert abs(velocity_loss(predicted, expected, mask).item() - np.mean(errors)) < 1e-6


def test_flow_steps_are_those_of_torch_unless_a_share_is_at_the_start():
    torch.manual_seed(4)
    steps = draw_flow_steps(100)
    torch.manual_seed(4)
    assert torch.equal(steps, torch.rand(100))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_the_flow_steps_is_at_the_start_and_the_rest_is_uniform(share):
    torch.manual_seed(0)
    steps = draw_flow_steps(100_000, share)
    assert abs((steps == 0).float().mean().item() - share) < 0.01
    if share < 1:
        rest = np.sort(steps[steps > 0].numpy())
        assert np.abs(rest - np.linspace(0, 1, len(rest))).max() < 0.01


def test_change_weights_are_those_of_the_formula_sample_by_sample():
    target, last = stack(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    last[1] = 5
    found = change_weights(target, last, 2.0).numpy()
    for sample in range(2):
        change = np.abs(target[sample].numpy() - last[sample].numpy())
        np.testing.assert_allclose(found[sample], (1 + 2 * change / change.mean()) / 3, rtol=1e-5)


def test_without_change_all_voxels_weigh_one_and_a_strength_of_zero_costs_nothing():
    target = stack(1, 1, 4, 4)
    assert torch.equal(change_weights(target, target, 2.0), torch.ones(1, 1, 4, 4))
    assert change_weights(target, 0 * target, 0.0) is None


def test_a_weighted_loss_is_the_weighted_mean_over_observed_scans():
    predicted, expected, weights = stack(2, 3, 1, 4, 4), stack(2, 3, 1, 4, 4) * 0.5, stack(2, 1, 4, 4).abs()
    mask = torch.tensor([[False, True, True], [True, True, True]])
    errors = [(weights[b] * (predicted[b, s] - expected[b, s]) ** 2).numpy() for b, s in mask.nonzero().tolist()]
    assert abs(velocity_loss(predicted, expected, mask, weights).item() - np.mean(errors)) < 1e-6


def test_joint_weights_are_the_product_with_mean_one_in_each_sample():
    first, second = (with_mean_one(torch.rand(3, 1, 4, 5) + 0.1) for _ in range(2))
    found = joint_weights(first, second)
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.ones(3))
    ratio = found / (first * second)
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    assert joint_weights(None, second) is second and joint_weights(first, None) is first
    assert joint_weights(None, None) is None
