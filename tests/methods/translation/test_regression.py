import numpy as np
import pytest
import torch

from tests.methods.translation.helpers import phase_batch, translator


def test_the_loss_is_the_mean_absolute_error():
    method, batch = translator("regression", lambda image, time: 0.5 * image), phase_batch((0, 1))
    expected = np.abs(1.5 * batch.source.numpy() - batch.target.numpy()).mean()
    assert method.training_step(batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_network_that_knows_the_difference_makes_the_target():
    batch = phase_batch((0, 1))
    method = translator("regression", lambda image, time: batch.target - batch.source)
    torch.testing.assert_close(method.predict(batch)["translation"], batch.target)
    assert method.training_step(batch).item() < 1e-6


def test_the_time_tells_which_phase_the_source_is():
    """One network that adds contrast to the first phase, and takes it from the second."""
    method = translator("regression", lambda image, time: 1 - 2 * time + 0 * image)
    for phase, change in ((0, 1), (1, -1)):
        batch = phase_batch((phase, phase))
        torch.testing.assert_close(method.predict(batch)["translation"], batch.source + change)


def test_untrained_it_returns_the_scan_to_the_bit():
    batch = phase_batch((1, 1))
    assert torch.equal(translator("regression").predict(batch)["translation"], batch.source)


def test_no_solver_is_used():
    assert not translator("regression").integrates and not translator("regression").noise
