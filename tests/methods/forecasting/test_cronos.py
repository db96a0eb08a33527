from dataclasses import replace

import pytest
import torch

from longflow.flow.times import encode_times, fourier_features
from longflow.methods.forecasting._flow import FREQUENCIES
from longflow.methods.forecasting.cronos import HARMONICS
from longflow.methods.registry import build_method
from tests.methods.helpers import conditioned_plans, minimal_plans, random_batch
from tests.networks.helpers import awake


def cronos():
    torch.manual_seed(0)
    return build_method("cronos", minimal_plans(), "3d_fullres")


def test_code_is_equation_11_of_the_interpolated_times_next_to_the_target_time():
    method, batch = cronos(), random_batch()
    tau = torch.tensor([0.2, 0.9])
    times = (1 - tau[:, None]) * batch.context_times + tau[:, None] * batch.target_time[:, None]
    expected = encode_times(fourier_features(times, method.frequencies), batch.context_mask)
    code = method.code(batch, tau)
    torch.testing.assert_close(code[:, : expected.shape[1]], expected)
    torch.testing.assert_close(code[:, expected.shape[1] :], fourier_features(batch.target_time, method.frequencies))


def test_the_code_tells_target_times_apart_at_the_first_step():
    method, batch = cronos(), random_batch()
    start = torch.zeros(2)
    half_an_interval_later = replace(batch, target_time=batch.target_time + 0.5)
    assert (method.code(batch, start) - method.code(half_an_interval_later, start)).norm(dim=1).min() > 0.5


def test_a_trained_forecast_changes_with_its_target_time():
    """One subject, one context scan, and a target that is the context plus its time: nothing but time can tell."""
    method = cronos()
    context = torch.randn(8, 1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    horizon = torch.linspace(0.5, 4, 8)
    batch = replace(
        random_batch(),
        context=context,
        context_times=torch.zeros(8, 1),
        context_mask=torch.ones(8, 1, dtype=torch.bool),
        target_time=horizon,
        target=context[:, 0] + horizon.view(8, 1, 1, 1, 1),
    )
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    for _ in range(150):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for steps in (1, 4):
        method.steps = steps
        with torch.no_grad():
            change = (method.predict(batch)["last"] - context[:, 0]).mean((1, 2, 3, 4))
        assert torch.corrcoef(torch.stack([change, horizon]))[0, 1] > 0.98
        assert (change - horizon).abs().max() < 0.5


def one_step_forecasts(options):
    """Forecasts of one Euler step for two target times, from a network whose every part is awake."""
    torch.manual_seed(0)
    method = awake(build_method("cronos", minimal_plans(), "3d_fullres", options)).eval()
    method.steps = 1
    batch = random_batch()
    later = replace(batch, target_time=batch.target_time + 0.7)
    with torch.no_grad():
        return method, batch, method.predict(batch)["mean"], method.predict(later)["mean"]


def test_as_printed_one_step_does_not_know_the_target_time():
    """Equation 9 at tau = 0 gives the context's times; two steps see the target's."""
    method, batch, forecast, later = one_step_forecasts({"mixing": "off", "target_code": "off"})
    assert torch.equal(forecast, later)
    method.steps = 2
    with torch.no_grad():
        assert not torch.allclose(
            method.predict(batch)["mean"], method.predict(replace(batch, target_time=batch.target_time + 0.7))["mean"]
        )


@pytest.mark.parametrize("switched_off", ["mixing", "target_code"])
def test_either_way_alone_tells_the_first_step_the_target_time(switched_off):
    _, _, forecast, later = one_step_forecasts({switched_off: "off"})
    assert not torch.allclose(forecast, later)


def test_as_printed_the_code_is_equation_11_alone_and_the_velocity_the_networks():
    method, batch, _, _ = one_step_forecasts({"mixing": False, "target_code": False})
    tau = torch.tensor([0.2, 0.9])
    times = (1 - tau[:, None]) * batch.context_times + tau[:, None] * batch.target_time[:, None]
    expected = torch.stack([fourier_features(of_one, method.frequencies).mean(0) for of_one in times])
    torch.testing.assert_close(method.code(batch, tau), expected)
    with torch.no_grad():
        of_network = method.network(batch.context.flatten(1, 2), expected).view_as(batch.context)
        velocity = method.velocity(batch, batch.context, batch.context_mask, tau)
    torch.testing.assert_close(velocity, of_network)
    assert not hasattr(method, "mixing")


def test_with_a_period_times_one_period_apart_are_alike_to_the_harmonics():
    method = build_method("cronos", conditioned_plans(period=20.0), "3d_fullres")
    batch, count = replace(random_batch(), period=torch.tensor([2.0, float("nan")])), 2 * FREQUENCIES
    features = method.features(batch.context_times, batch)
    assert features.shape == (2, 3, count + 2 * HARMONICS)
    torch.testing.assert_close(features[..., :count], fourier_features(batch.context_times, method.frequencies))
    later = method.features(batch.context_times + 2, batch)[0, :, count:]
    torch.testing.assert_close(later, features[0, :, count:], atol=1e-5, rtol=0)
    assert not features[1, :, count:].any()  # its period is not known
    tau = torch.tensor([0.2, 0.9])
    code = method.code(batch, tau)
    assert code.shape == (2, 2 * features.shape[-1])
    torch.testing.assert_close(code[:, features.shape[-1] :], method.features(batch.target_time, batch))


def test_with_a_period_an_untrained_forecast_is_lci_and_a_trained_one_depends_on_it():
    torch.manual_seed(0)
    method = build_method("cronos", conditioned_plans(period="rr"), "3d_fullres")
    batch = replace(random_batch(), period=torch.tensor([2.0, 3.0]))
    assert torch.equal(method.predict(batch)["last"], batch.context[:, -1])
    awake(method).eval()
    shorter = replace(batch, period=torch.tensor([1.2, 3.0]))
    first, second = method.predict(shorter)["last"] - method.predict(batch)["last"]
    assert first.abs().max() > 1e-3 and second.abs().max() < 1e-5


def test_without_explicit_time_no_time_enters():
    """The same forecast whatever the times are, several steps included; only the flow step enters."""
    torch.manual_seed(0)
    method = awake(build_method("cronos", minimal_plans(), "3d_fullres", {"explicit_time": "off"})).eval()
    batch, tau = random_batch(), torch.tensor([0.2, 0.9])
    torch.testing.assert_close(method.code(batch, tau), fourier_features(tau, method.frequencies))
    other = replace(batch, context_times=3 * batch.context_times - 1, target_time=batch.target_time + 4)
    method.steps = 3
    for reduction, volume in method.predict(batch).items():
        assert torch.equal(method.predict(other)[reduction], volume)
    assert not hasattr(method, "mixing")
    swapped = replace(batch, context=batch.context.flip(1))
    assert not torch.allclose(method.predict(swapped)["mean"], method.predict(batch)["mean"])


def test_without_explicit_time_a_sample_is_learned_by_heart_all_the_same():
    torch.manual_seed(0)
    method, batch = build_method("cronos", minimal_plans(), "3d_fullres", {"explicit_time": False}), random_batch()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
