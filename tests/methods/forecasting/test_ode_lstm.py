from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from longflow.flow.solvers import integrate
from longflow.methods.forecasting.ode_lstm import STEPS, evolve, waiting_times
from longflow.methods.registry import build_method
from longflow.planning.memory import training_memory
from longflow.private import cpu_has_bf16
from tests.methods.helpers import minimal_plans, random_batch
from tests.networks.helpers import awake


def ode_lstm(**plan):
    torch.manual_seed(0)
    plans = minimal_plans(**plan)
    return build_method("ode_lstm", plans, next(iter(plans.configurations)))


@pytest.mark.parametrize(("channels", "dimensions", "scans"), [(1, 3, 3), (2, 3, 1), (1, 2, 4)])
def test_the_forecast_has_the_shape_of_the_target(channels, dimensions, scans):
    method = ode_lstm(channels=channels, dimensions=dimensions)
    batch = random_batch(scans, channels, shape=(4, 8, 8)[-dimensions:])
    found = method.predict(batch)["forecast"]
    assert found.shape == batch.target.shape and found.dtype == torch.float32
    expected = np.square((found - batch.target).detach().numpy()).mean()
    assert method.training_step(batch).item() == pytest.approx(expected, rel=1e-5)


def test_waits_are_the_real_intervals_and_the_horizon():
    batch = random_batch(scans=3)
    batch.context_times = torch.tensor([[-5.0, -2.0, 0.0], [-9.0, -0.5, 0.0]])
    batch.target_time = torch.tensor([1.5, 3.0])
    assert waiting_times(batch).tolist() == [[3, 2, 1.5], [8.5, 0.5, 3]]


def test_waiting_is_the_solvers_euler_with_the_time_of_each_sample():
    (f,) = awake(ode_lstm()).network.dynamics
    hidden, times = torch.randn(2, 8, 2, 4, 4), torch.tensor([0.5, 4.0])
    found = evolve(f, hidden, times)
    expected = integrate(lambda _, h: times.view(2, 1, 1, 1, 1) * f(h), hidden, "euler", STEPS)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, hidden, atol=1e-2)


def test_waiting_solves_the_equation():
    """dh/dt = -h goes as exp(-t)."""
    times = np.array([0.1, 0.3])
    found = evolve(Decay(), torch.ones(2, 8, 1, 1, 1), torch.from_numpy(times).float())[:, 0].flatten()
    np.testing.assert_allclose(found.numpy(), np.exp(-times), rtol=0.02)


class Decay(nn.Module):
    def forward(self, h):
        return -h


def test_nothing_happens_between_scans_before_it_is_learned():
    (f,) = ode_lstm().network.dynamics
    hidden = torch.randn(2, 8, 2, 4, 4)
    assert torch.equal(evolve(f, hidden, torch.tensor([0.5, 40.0])), hidden)


def test_scans_update_hidden_state_and_cell_and_waiting_the_hidden_state_alone():
    network, batch = awake(ode_lstm()).network.eval(), random_batch(scans=2)
    maps = network.encoder(batch.context)
    hidden = cell = torch.zeros_like(maps[:, 0])
    for scan, wait in ((0, 1.0), (1, 1.5)):
        hidden, cell = network.layers(maps[:, scan], (hidden, cell))
        hidden = evolve(network.dynamics[0], hidden, torch.full((2,), wait))
    torch.testing.assert_close(
        network(batch.context, waiting_times(batch), batch.context_mask), network.decoder((hidden, cell))
    )


@pytest.mark.parametrize("later", ["context_times", "target_time"])
def test_real_times_matter(later):
    method, batch = awake(ode_lstm()).eval(), random_batch(scans=2)
    changed = replace(batch)
    if later == "target_time":
        changed.target_time = batch.target_time + 1
    else:
        changed.context_times = torch.tensor([[-2.5, 0.0]]).expand(2, 2)
    assert (method.predict(changed)["forecast"] - method.predict(batch)["forecast"]).abs().max() > 1e-3


def test_a_trained_forecast_changes_with_its_target_time():
    """One scan, and a target that is the scan plus its time: nothing but time can tell."""
    method = ode_lstm()
    context = torch.randn(8, 1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.1
    horizon = torch.linspace(0.5, 4, 8)
    batch = replace(
        random_batch(),
        context=context,
        context_times=torch.zeros(8, 1),
        context_mask=torch.ones(8, 1, dtype=torch.bool),
        target_time=horizon,
        target=context[:, 0] + horizon.view(8, 1, 1, 1, 1),
    )
    optimizer = torch.optim.AdamW(method.parameters(), lr=2e-2)
    for _ in range(60):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    change = method.predict(batch)["forecast"].detach().mean((1, 2, 3, 4))
    assert torch.corrcoef(torch.stack([change, horizon]))[0, 1] > 0.98


def test_padding_changes_neither_loss_nor_forecast():
    method, batch = awake(ode_lstm()).eval(), random_batch(scans=3)
    padded = replace(
        batch,
        context=torch.cat([torch.zeros(2, 1, 1, 4, 8, 8), batch.context], 1),
        context_times=torch.cat([torch.full((2, 1), 77.0), batch.context_times], 1),
        context_mask=torch.cat([torch.zeros(2, 1, dtype=torch.bool), batch.context_mask], 1),
    )
    torch.testing.assert_close(method.predict(padded)["forecast"], method.predict(batch)["forecast"])
    torch.testing.assert_close(method.training_step(padded), method.training_step(batch))


def test_a_long_wait_does_not_explode():
    """f is bounded, so the state grows no faster than time."""
    (f,) = awake(ode_lstm()).network.dynamics
    hidden = torch.randn(1, 8, 2, 4, 4)
    most = f[2].weight.abs().sum((1, 2, 3, 4)).max() + f[2].bias.abs().max()
    for time in (10.0, 1000.0):
        moved = (evolve(f, hidden, torch.tensor([time])) - hidden).abs().max()
        assert moved <= 1.01 * time * most


def test_a_gradient_reaches_every_weight():
    method = awake(ode_lstm())
    method.training_step(random_batch()).backward()
    assert all(parameter.grad.any() for parameter in method.parameters())


def test_its_memory_can_be_planned_and_grows_with_the_scans():
    few, many = (training_memory("ode_lstm", minimal_plans(scans=scans), "3d_fullres", "cuda") for scans in (2, 8))
    assert 0 < few < many


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor has no bf16 instructions")
def test_in_bf16_the_state_keeps_its_type_and_a_small_step_is_not_lost():
    (f,) = awake(ode_lstm()).network.dynamics
    hidden = torch.ones(1, 8, 2, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert evolve(f, hidden.bfloat16(), torch.ones(1)).dtype == torch.bfloat16
        many = hidden + sum(evolve(f, hidden, torch.tensor([1e-3])) - hidden for _ in range(2))
    with torch.autocast("cpu", enabled=False):
        expected = hidden + 2 * (evolve(f, hidden, torch.tensor([1e-3])) - hidden)
    torch.testing.assert_close(many, expected, rtol=0, atol=1e-4)
