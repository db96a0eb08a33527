import math

import pytest
import torch

from longflow.flow.times import (
    encode_times,
    fourier_features,
    harmonic_features,
    interpolate_times,
    time_frequencies,
)


def test_interpolated_times_run_from_the_context_to_the_target():
    context, target = torch.tensor([[-3.0, -1.0, 0.0]]), torch.tensor([2.0])
    assert interpolate_times(context, target, torch.tensor([0.0])).tolist() == [[-3.0, -1.0, 0.0]]
    assert interpolate_times(context, target, torch.tensor([1.0])).tolist() == [[2.0, 2.0, 2.0]]
    torch.testing.assert_close(
        interpolate_times(context, target, torch.tensor([0.25])), torch.tensor([[-1.75, -0.25, 0.5]])
    )


def test_fourier_features_are_sines_and_cosines_of_turns():
    features = fourier_features(torch.tensor([0.25]), torch.tensor([1.0, 2.0]))
    expected = [math.sin(math.pi / 2), math.sin(math.pi), math.cos(math.pi / 2), math.cos(math.pi)]
    torch.testing.assert_close(features, torch.tensor([expected]), atol=1e-6, rtol=0)


def test_encoding_is_the_mean_over_scans_whatever_their_order():
    frequencies = torch.tensor([0.1, 0.7])
    times = torch.tensor([[0.0, 1.5, 4.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    encoded = encode_times(fourier_features(times, frequencies), mask)
    torch.testing.assert_close(encoded, fourier_features(times, frequencies).mean(1))
    torch.testing.assert_close(encode_times(fourier_features(times.flip(1), frequencies), mask), encoded)


def test_padded_scans_carry_no_weight():
    features = fourier_features(torch.tensor([[99.0, 1.0, 2.0]]), torch.tensor([0.1, 0.7]))
    padded = encode_times(features, torch.tensor([[False, True, True]]))
    torch.testing.assert_close(padded, encode_times(features[:, 1:], torch.ones(1, 2, dtype=torch.bool)))


def test_harmonics_are_sines_and_cosines_of_the_phase_and_the_same_one_period_later():
    times, period = torch.tensor([[0.0, 0.3, 1.1], [-2.0, 0.0, 5.0]]), torch.tensor([0.8, 3.0])
    features = harmonic_features(times, period, 3)
    for harmonic in (1, 2, 3):
        angle = 2 * math.pi * harmonic * times / period[:, None]
        torch.testing.assert_close(features[..., harmonic - 1], angle.sin())
        torch.testing.assert_close(features[..., harmonic + 2], angle.cos())
    torch.testing.assert_close(harmonic_features(times + period[:, None], period, 3), features, atol=1e-5, rtol=0)
    half = harmonic_features(times + period[:, None] / 2, period, 3)
    assert (half - features).norm(dim=-1).min() > 1
    torch.testing.assert_close(harmonic_features(times[:, 1], period, 3), features[:, 1])


def test_harmonics_of_an_unknown_period_are_zero():
    features = harmonic_features(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([float("nan"), 2.0]), 2)
    assert not features[0].any() and features[1].any()


@pytest.mark.parametrize(("shortest", "longest"), [(1.0, 1.0), (0.05, 20.0), (1.0, 3000.0)])
def test_frequencies_tell_the_shortest_interval_apart_and_do_not_confuse_the_longest(shortest, longest):
    frequencies = time_frequencies(shortest, longest, 16)
    times = torch.arange(0.0, longest + shortest / 2, max(shortest, longest / 200))
    features = fourier_features(times, frequencies)
    distances = torch.cdist(features, features) + 10 * torch.eye(len(times))
    assert distances.min() > 0.1
    apart = fourier_features(torch.tensor([0.0, shortest]), frequencies)
    assert (apart[0] - apart[1]).norm() > 1.0
