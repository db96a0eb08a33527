from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.methods.forecasting._direct import scans_on_grid
from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch


def convlstm(**plan):
    torch.manual_seed(0)
    plans = minimal_plans(**plan)
    return build_method("convlstm", plans, next(iter(plans.configurations)))


@pytest.mark.parametrize(("channels", "dimensions", "scans"), [(1, 3, 3), (2, 3, 1), (1, 2, 4)])
def test_the_forecast_has_the_shape_of_the_target_and_is_no_scan_before_training(channels, dimensions, scans):
    method = convlstm(channels=channels, dimensions=dimensions)
    batch = random_batch(scans, channels, shape=(4, 8, 8)[-dimensions:])
    found = method.predict(batch)["forecast"]
    assert found.shape == batch.target.shape and found.dtype == torch.float32
    assert (found - batch.context[:, -1]).square().mean() > 0.1


def test_the_loss_is_the_mean_squared_error_of_the_forecast():
    method, batch = convlstm(), random_batch()
    expected = np.square((method.predict(batch)["forecast"] - batch.target).detach().numpy()).mean()
    assert method.training_step(batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_loss_falls_when_a_sample_is_learned_by_heart(dimensions):
    method, batch = convlstm(dimensions=dimensions), random_batch(shape=(4, 8, 8)[-dimensions:])
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_state_goes_through_the_grid_from_the_first_scan_on():
    """One step for the scan, then one with zeros for each empty slot up to the target; none before it."""
    method, batch = convlstm(grid_length=5).eval(), random_batch(scans=1)
    batch.target_time = torch.tensor([1.0, 3.0])
    network = method.network
    occupied = scans_on_grid(batch, method.plans)[1]
    assert occupied.tolist() == [[False] * 4 + [True], [False, False, True, False, False]]
    found = method.predict(batch)["forecast"]
    for sample, empty in ((0, 0), (1, 2)):
        scan = batch.context[sample : sample + 1]
        maps = network.encoder(torch.cat([scan, *[torch.zeros_like(scan)] * empty], dim=1))
        states = (torch.zeros_like(maps[:, 0]), torch.zeros_like(maps[:, 0]))
        for x in maps.unbind(1):
            states = network.layers(x, states)
        torch.testing.assert_close(found[sample : sample + 1], network.decoder(states))


def test_padding_changes_neither_loss_nor_forecast():
    method, batch = convlstm().eval(), random_batch(scans=3)
    padded = replace(
        batch,
        context=torch.cat([torch.zeros(2, 1, 1, 4, 8, 8), batch.context], 1),
        context_times=torch.cat([torch.full((2, 1), 77.0), batch.context_times], 1),
        context_mask=torch.cat([torch.zeros(2, 1, dtype=torch.bool), batch.context_mask], 1),
    )
    torch.testing.assert_close(method.predict(padded)["forecast"], method.predict(batch)["forecast"])
    torch.testing.assert_close(method.training_step(padded), method.training_step(batch))


def test_the_order_of_scans_matters():
    method, batch = convlstm().eval(), random_batch(scans=3)
    turned = replace(batch, context=batch.context.flip(1))
    assert not torch.allclose(method.predict(turned)["forecast"], method.predict(batch)["forecast"], atol=1e-3)


def test_a_gradient_reaches_every_weight():
    method = convlstm()
    method.training_step(random_batch()).backward()
    assert all(parameter.grad.any() for parameter in method.parameters())
