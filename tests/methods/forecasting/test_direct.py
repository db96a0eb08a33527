"""What holds for every baseline that predicts the target directly from the scans on the planned grid."""

from dataclasses import replace

import pytest
import torch

from longflow.methods.forecasting._direct import scans_on_grid
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from longflow.planning.presets import preset
from longflow.plans import NetworkPlan
from longflow.private import cpu_has_bf16
from tests.methods.helpers import minimal_plans, random_batch

BASELINES = ("simvp", "vivit")


def baseline(name: str, **plan) -> Method:
    torch.manual_seed(0)
    plans = minimal_plans(**plan)
    return build_method(name, plans, next(iter(plans.configurations)))


def test_scans_lie_in_the_slots_before_the_target_and_the_others_are_zero():
    batch = random_batch(scans=2)
    batch.context_times = torch.tensor([[-2.0, 0.0]] * 2)
    batch.target_time = torch.full((2,), 2.0)
    stack, occupied = scans_on_grid(batch, minimal_plans(grid_length=5))
    # slots at -3, -2, -1, 0 and 1 intervals
    assert occupied.tolist() == [[False, True, False, True, False]] * 2
    assert torch.equal(stack[:, [1, 3]], batch.context)
    assert not stack[:, [0, 2, 4]].any()


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(("channels", "dimensions"), [(1, 3), (2, 3), (1, 2)])
def test_loss_falls_when_samples_are_learned_by_heart(name, channels, dimensions):
    method = baseline(name, channels=channels, dimensions=dimensions)
    batch = random_batch(channels=channels, shape=(4, 8, 8)[-dimensions:])
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(parameter.grad is not None for parameter in method.parameters())


@pytest.mark.parametrize("name", BASELINES)
def test_the_loss_is_the_mean_squared_error_of_the_forecast(name):
    method, batch = baseline(name), random_batch()
    forecast = method.predict(batch)["forecast"]
    assert forecast.shape == batch.target.shape and forecast.dtype == torch.float32
    torch.testing.assert_close(method.training_step(batch), (forecast - batch.target).square().mean())


@pytest.mark.parametrize("name", BASELINES)
def test_a_forecast_is_the_same_in_training_and_in_prediction(name):
    method, batch = baseline(name), random_batch()
    trained = method.predict(batch)["forecast"]
    with torch.inference_mode():
        torch.testing.assert_close(method.eval().predict(batch)["forecast"], trained.detach())


@pytest.mark.parametrize("name", BASELINES)
def test_padding_and_other_samples_change_nothing(name):
    method, batch = baseline(name), random_batch(scans=3)
    padded = replace(
        batch,
        context=torch.cat([torch.zeros(2, 1, 1, 4, 8, 8), batch.context], 1),
        context_times=torch.cat([torch.full((2, 1), 77.0), batch.context_times], 1),
        context_mask=torch.cat([torch.zeros(2, 1, dtype=torch.bool), batch.context_mask], 1),
    )
    expected = method.predict(batch)["forecast"]
    torch.testing.assert_close(method.predict(padded)["forecast"], expected)
    alone = replace(batch, **{key: value[:1] for key, value in vars(batch).items() if value is not None})
    torch.testing.assert_close(method.predict(alone)["forecast"], expected[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_the_place_of_a_gap_matters(name):
    """The same scans in other slots, and the same slots further from the target, give another forecast."""
    method, batch = baseline(name), random_batch(scans=2)
    batch.context_times, batch.target_time = torch.tensor([[-1.0, 0.0]] * 2), torch.ones(2)
    near = method.predict(batch)["forecast"]
    gap = method.predict(replace(batch, context_times=torch.tensor([[-2.0, 0.0]] * 2)))["forecast"]
    far = method.predict(replace(batch, target_time=torch.full((2,), 2.0)))["forecast"]
    assert (near - gap).abs().max() > 1e-3
    assert (near - far).abs().max() > 1e-3


@pytest.mark.parametrize("name", BASELINES)
def test_a_grid_of_one_slot_is_enough(name):
    batch = random_batch(scans=3)
    assert baseline(name, grid_length=1).predict(batch)["forecast"].shape == batch.target.shape


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(("slices", "dimensions"), [(2, 3), (4, 3), (8, 3), (8, 2)])
def test_gradients_in_bf16_are_those_of_float32(name, slices, dimensions):
    """The processor's library gets some sizes wrong: NaN, or numbers that look like gradients."""
    if not cpu_has_bf16():
        pytest.skip("this processor has no bf16 instructions, and longflow uses none")
    plans = minimal_plans(dimensions=dimensions)
    plan = next(iter(plans.configurations.values()))
    plan.patch_size = [slices, 16, 16][-dimensions:]
    method = build_method(name, plans, next(iter(plans.configurations)))
    method.to(memory_format=torch.channels_last if dimensions == 2 else torch.channels_last_3d)
    batch, gradients = random_batch(shape=tuple(plan.patch_size)), []
    for context in (torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        method.zero_grad()
        litter = [torch.full((100_000,), torch.nan) for _ in range(4)]
        del litter  # what is read without having been written is now likely NaN
        with context:
            loss = method.training_step(batch)
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in method.parameters()]))
    low, high = gradients
    assert (low - high).norm() < 0.1 * high.norm()


@pytest.mark.parametrize("name", ["convlstm", "ode_lstm"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("size", ["tiny", "S", "M", "L"])
def test_a_recurrent_baseline_has_as_many_weights_as_cronos_within_a_factor_of_2(name, dimensions, size):
    """At every preset, with the most stages of it."""
    chosen = preset(size)
    plans = minimal_plans(scans=chosen.longest_sequence, dimensions=dimensions)
    (plan,) = plans.configurations.values()
    stages = chosen.max_stages
    plan.network = NetworkPlan(
        features_per_stage=chosen.features(stages, dimensions),
        strides=[[1] * dimensions] + [[2] * dimensions] * (stages - 1),
        kernel_sizes=[[3] * dimensions] * stages,
        attention=chosen.attention,
    )
    with torch.device("meta"):
        own, cronos = (
            sum(one.numel() for one in build_method(method, plans, next(iter(plans.configurations))).parameters())
            for method in (name, "cronos")
        )
    assert 1 / 2 < own / cronos < 2


@pytest.mark.parametrize(("name", "rate", "steps"), [("convlstm", 1e-2, 40), ("ode_lstm", 3e-3, 70)])
def test_a_recurrent_network_of_three_stages_learns_a_scan_by_heart(name, rate, steps):
    """The coarser layers and their way back take part."""
    torch.manual_seed(0)
    plans, batch = minimal_plans(), random_batch()
    plan = plans.configuration("3d_fullres")
    plan.network = NetworkPlan(
        features_per_stage=[8, 8, 16],
        strides=[[1] * 3, [1, 2, 2], [2] * 3],
        kernel_sizes=[[3] * 3] * 3,
        attention=False,
    )
    method = build_method(name, plans, "3d_fullres")
    optimizer = torch.optim.AdamW(method.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.any() for parameter in method.network.layers.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
