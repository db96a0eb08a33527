import numpy as np
import torch

from longflow.flow.interpolant import broadcast_target, interpolate, velocity, velocity_loss


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
