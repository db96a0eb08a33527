"""What holds for every flow method: where it starts, what it learns from, what padding may not change."""

from dataclasses import replace

import pytest
import torch

from longflow.methods.method import build_method
from tests.methods.helpers import minimal_plans, random_batch
from tests.networks.helpers import awake

FLOWS = ("cronos", "cronos_discrete", "tfm")


def flow(name: str, **plan):
    torch.manual_seed(0)
    plans = minimal_plans(**plan)
    return build_method(name, plans, next(iter(plans.configurations)))


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("solver", ["euler", "heun2", "rk4"])
def test_untrained_last_is_the_last_context_image(name, solver):
    method, batch = flow(name), random_batch()
    method.solver = solver
    assert torch.equal(method.predict(batch)["last"], batch.context[:, -1])


def test_untrained_mean_of_continuous_cronos_is_the_context_mean():
    batch = random_batch()
    torch.testing.assert_close(flow("cronos").predict(batch)["mean"], batch.context.mean(1))


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("channels", "dimensions"), [(1, 3), (2, 3), (1, 2)])
def test_loss_falls_when_a_sample_is_learned_by_heart(name, channels, dimensions):
    method = flow(name, channels=channels, dimensions=dimensions)
    batch = random_batch(channels=channels, shape=(4, 8, 8)[-dimensions:])
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", FLOWS)
def test_coupling_is_paired(name):
    """The loss of a batch is the mean of the losses of its samples: no sample is ever carried to another's target."""
    method, batch = flow(name), random_batch(size=2)
    # a fresh network predicts no velocity, so that the loss is the distance of each stack from its own target
    apart = []
    for sample in range(2):
        alone = {key: value[sample : sample + 1] for key, value in vars(batch).items()}
        apart.append(method.training_step(replace(batch, **alone)).item())
    assert abs(method.training_step(batch).item() - sum(apart) / 2) < 1e-5
    swapped = replace(batch, target=batch.target.flip(0) + 3)
    assert method.training_step(swapped).item() > max(apart) + 1


def with_padding(batch):
    """The same batch with a place in front that was not observed."""
    return replace(
        batch,
        context=torch.cat([torch.zeros(2, 1, 1, 4, 8, 8), batch.context], 1),
        context_times=torch.cat([torch.full((2, 1), 77.0), batch.context_times], 1),
        context_mask=torch.cat([torch.zeros(2, 1, dtype=torch.bool), batch.context_mask], 1),
    )


@pytest.mark.parametrize("name", FLOWS)
def test_padding_changes_neither_loss_nor_forecast(name):
    method, batch = awake(flow(name)).eval(), random_batch(scans=3)
    padded = with_padding(batch)
    method.steps = 1
    torch.testing.assert_close(method.predict(padded)["mean"], method.predict(batch)["mean"])
    torch.manual_seed(1)
    alone = method.training_step(batch)
    torch.manual_seed(1)
    torch.testing.assert_close(method.training_step(padded), alone)


def test_padding_of_cronos_stays_out_of_several_steps_too():
    """Only the velocity of padded places could leak into later steps; the network must not see it."""
    method, batch = awake(flow("cronos")).eval(), random_batch(scans=3)
    padded = with_padding(batch)
    method.steps = 4
    torch.testing.assert_close(method.predict(padded)["last"], method.predict(batch)["last"])
