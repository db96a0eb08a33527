from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch


def forecast(batch):
    return build_method("linear", minimal_plans(), "3d_fullres").predict(batch)["forecast"]


def test_it_is_the_line_through_the_last_two_scans_at_their_real_times():
    times, horizons = np.array([[-5, -2, 0], [-9, -0.5, 0]]), np.array([1.5, 3])
    batch = replace(
        random_batch(scans=3),
        context_times=torch.tensor(times, dtype=torch.float32),
        target_time=torch.tensor(horizons, dtype=torch.float32),
    )
    found = forecast(batch).numpy()
    for sample in range(2):
        before, last = batch.context[sample, 1:].double().numpy()
        line = np.polyfit(times[sample, 1:], np.stack([before.ravel(), last.ravel()]), 1)
        expected = line[0] * horizons[sample] + line[1]
        np.testing.assert_allclose(found[sample].ravel(), expected, atol=1e-5)


def test_scans_that_change_linearly_are_forecast_exactly():
    start, slope = torch.randn(2, 1, 4, 8, 8), torch.randn(2, 1, 4, 8, 8)
    batch = random_batch(scans=3)
    batch.context = torch.stack([start + time * slope for time in (-2.0, -1.0, 0.0)], 1)
    torch.testing.assert_close(forecast(batch), start + 1.5 * slope)


def test_a_single_scan_is_its_own_forecast():
    batch = random_batch(scans=1)
    assert torch.equal(forecast(batch), batch.context[:, -1])


@pytest.mark.parametrize("time", [0.0, -1.0, 77.0])
def test_a_scan_that_was_not_observed_gives_no_trend(time):
    """Beside a sample that has one, and whatever stands where its time would."""
    batch = random_batch(scans=2)
    both = forecast(batch)
    batch.context_mask = torch.tensor([[False, True], [True, True]])
    batch.context_times = torch.tensor([[time, 0.0], [-1.0, 0.0]])
    found = forecast(batch)
    assert torch.equal(found[0], batch.context[0, -1])
    assert torch.equal(found[1], both[1])


def test_noise_grows_as_the_docstring_says():
    noise = torch.randn(2, 2, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    for horizon in (1.0, 3.0):
        batch = replace(random_batch(scans=2), context=noise, target_time=torch.full((2,), horizon))
        expected = ((1 + horizon) ** 2 + horizon**2) ** 0.5
        assert forecast(batch).std().item() == pytest.approx(expected, rel=0.02)


def test_there_is_nothing_to_train():
    with pytest.raises(ConfigurationError, match="nothing to train"):
        build_method("linear", minimal_plans(), "3d_fullres").training_step(random_batch())
