import math

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.flow.solvers import ORDERS
from longflow.methods.registry import method_class
from longflow.methods.translation._translation import direction, ends
from tests.methods.translation.helpers import phase_batch, translator


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("solver", [*ORDERS, "dopri5"])
def test_with_the_true_velocity_one_step_is_exact_either_way(solver, phase):
    batch = phase_batch((phase, phase))
    start, end = ends(batch)
    method = translator("mfm", lambda image, time: end - start)
    method.solver, method.steps = solver, 1
    torch.testing.assert_close(method.predict(batch)["translation"], batch.target, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_untrained_it_returns_the_scan_to_the_bit(dimensions):
    batch = phase_batch((1,), (4, 8, 8)[-dimensions:])
    assert torch.equal(translator("mfm", dimensions=dimensions).predict(batch)["translation"], batch.source)


@pytest.mark.parametrize("name", ["mfm", "regression", "ddpm"])
def test_augmentation_can_be_switched_off(name):
    assert translator(name).augmented
    assert not translator(name, augmentation=False).augmented


def test_one_field_is_followed_there_and_back():
    """dx/dt = x multiplies by e from t = 0 to 1, and divides by it from 1 to 0."""
    method = translator("mfm", lambda image, time: image)
    method.solver, method.steps = "rk4", 8
    batches = [phase_batch((phase,)) for phase in (0, 1)]
    there, back = (method.predict(batch)["translation"] / batch.source for batch in batches)
    torch.testing.assert_close(there, torch.full_like(there, math.e), atol=1e-3, rtol=0)
    torch.testing.assert_close(back, torch.full_like(back, 1 / math.e), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("phase", "times"), [(0, [0.0, 1.0]), (1, [1.0, 0.0])])
def test_the_network_gets_the_time_at_which_it_is_evaluated(phase, times):
    """Heun's one step: at its beginning, and at its end."""
    method = translator("mfm", lambda image, time: 0 * image)
    method.predict(phase_batch((phase, phase, phase)))
    assert [time.tolist() for _, time in method.network.seen] == [[time] * 3 for time in times]


def test_the_loss_is_equation_5():
    method, batch = translator("mfm", lambda image, time: 2 * image + time), phase_batch((0, 1, 1))
    torch.manual_seed(3)
    tau = torch.rand(3).numpy().reshape(-1, 1, 1, 1, 1)
    source, target = batch.source.numpy(), batch.target.numpy()
    of_contrast = np.array([False, True, True]).reshape(-1, 1, 1, 1, 1)
    native, contrast = np.where(of_contrast, target, source), np.where(of_contrast, source, target)
    expected = ((2 * ((1 - tau) * native + tau * contrast) + tau - (contrast - native)) ** 2).mean()
    torch.manual_seed(3)
    assert method.training_step(batch).item() == pytest.approx(expected, rel=1e-5)


def test_which_of_a_pair_is_the_source_is_nothing_to_the_loss():
    method, batch = translator("mfm", lambda image, time: image * time), phase_batch((0, 1, 0))
    turned = phase_batch((1, 0, 1))
    turned.source, turned.target = batch.target, batch.source
    losses = []
    for one in (batch, turned):
        torch.manual_seed(0)
        losses.append(method.training_step(one).item())
    assert losses[0] == losses[1]


def test_scans_of_both_phases_are_not_predicted_at_once():
    with pytest.raises(ConfigurationError, match="sources of both phases"):
        translator("mfm", lambda image, time: image).predict(phase_batch((0, 1)))
    assert direction(phase_batch((1, 1))) is True and direction(phase_batch((0, 0))) is False


@pytest.mark.parametrize("name", ["mfm", "regression", "ddpm"])
def test_all_networks_serve_all_methods_and_are_optimised_by_adam_without_decay(name):
    assert method_class(name).networks == (
        *("timeresnet", "unet", "segresnet", "swin_unetr", "umamba_bot", "timeresnet_without_attention"),
    )
    recipe = translator(name).recipe
    assert (recipe.optimizer, recipe.weight_decay, recipe.betas) == ("adam", 0, (0.9, 0.999))


@pytest.mark.parametrize("name", ["mfm", "regression", "ddpm"])
def test_a_step_trains_the_network(name):
    method = translator(name)
    method.training_step(phase_batch((0, 1))).backward()
    assert method.network.head.weight.grad.any()
