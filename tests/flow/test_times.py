import math

import pytest
import torch

from longflow.data import periods
from longflow.flow.times import (
    encode_times,
    fourier_features,
    harmonic_features,
    interpolate_times,
    neighbours_in_period,
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


def test_the_repetitions_around_a_target_are_those_of_numpy():
    """Against the same search for one subject, which works in NumPy (data/periods.py)."""
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(40, 5, generator=generator).sort(1).values * 8
    target, period = times[:, -1] + 0.05 + 9 * torch.rand(40, generator=generator), 1 + 4 * torch.rand(40)
    positions, repeated, known = neighbours_in_period(times, torch.ones(40, 5, dtype=torch.bool), target, period)
    assert known.all()
    for sample in range(40):
        numbers = times[sample].tolist(), float(target[sample]), float(period[sample])
        before, after, weight = periods.neighbours_in_period(*numbers)
        assert positions[sample].tolist() == [before, after]
        share = (target[sample] - repeated[sample, 0]) / (repeated[sample, 1] - repeated[sample, 0])
        assert float(share) == pytest.approx(weight, abs=1e-4)
    turns = (repeated - times.gather(1, positions)) / period.unsqueeze(1)
    torch.testing.assert_close(turns, turns.round(), atol=1e-4, rtol=0)


def test_repetitions_of_masked_scans_and_of_unknown_periods():
    times, mask = torch.tensor([[3.0, 4.0, 6.0]] * 2), torch.tensor([[False, True, True]] * 2)
    period = torch.tensor([4.0, float("nan")])
    # the masked scan at 3 would be at 7, the target itself
    positions, repeated, known = neighbours_in_period(times, mask, torch.tensor([7.0, 7.0]), period)
    assert known.tolist() == [True, False] and positions[0].tolist() == [2, 1]
    assert repeated.tolist() == [[6.0, 8.0], [0.0, 0.0]]


def test_of_two_scans_at_one_phase_the_later_is_repeated():
    positions, repeated, _ = neighbours_in_period(
        torch.tensor([[0.0, 4.0, 20.0]]), torch.ones(1, 3, dtype=torch.bool), torch.tensor([40.0]), torch.tensor([20.0])
    )
    assert positions.tolist() == [[2, 1]] and repeated.tolist() == [[40.0, 44.0]]
