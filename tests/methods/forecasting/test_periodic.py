from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch

PERIOD = 8.0


def beat(time):
    return np.sin(2 * np.pi * np.asarray(time) / PERIOD)


def batch_of(times, target, period=PERIOD):
    context = torch.tensor(beat(times)).view(1, -1, 1, 1, 1, 1).expand(1, -1, 1, 4, 8, 8)
    mask = torch.ones(1, len(times), dtype=torch.bool)
    return replace(random_batch(), context=context, context_times=torch.tensor([times]), context_mask=mask,
                   target_time=torch.tensor([target]), period=torch.tensor([period]), target=None)  # fmt: skip


def forecast(batch):
    return build_method("periodic", minimal_plans(), "3d_fullres").predict(batch)["forecast"]


@pytest.mark.parametrize("target", [0.5, 1.75, 3.0, 4.0, 11.3, 40.1])
@pytest.mark.parametrize("times", [[-5.0, -4.0, -2.5, -1.0, 0.0], [-13.0, -6.5, -3.0, 0.0], [-2.0, 0.0], [0.0]])
def test_it_is_linear_interpolation_of_a_sinusoid_over_its_period(times, target):
    shifted = {time + k * PERIOD: beat(time) for time in times for k in range(-1, 9)}
    moments = sorted(shifted)
    expected = np.interp(target, moments, [shifted[moment] for moment in moments])
    assert forecast(batch_of(times, target)).numpy() == pytest.approx(expected, abs=1e-5)


def test_scans_that_were_not_observed_do_not_count():
    batch = batch_of([0.0, -3.0, 0.0], 2.0)
    batch.context_mask[0, 0] = False
    assert forecast(batch).numpy() == pytest.approx(forecast(batch_of([-3.0, 0.0], 2.0)).numpy())


@pytest.mark.parametrize("period", [None, float("nan")])
def test_without_a_period_the_remedy_is_said(period):
    batch = batch_of([-1.0, 0.0], 1.0)
    batch.period = None if period is None else torch.tensor([period])
    with pytest.raises(ConfigurationError, match=r'"period" into dataset.json'):
        forecast(batch)


def test_there_is_nothing_to_train():
    with pytest.raises(ConfigurationError, match="nothing to train"):
        build_method("periodic", minimal_plans(), "3d_fullres").training_step(random_batch())
