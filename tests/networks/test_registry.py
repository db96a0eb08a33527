from importlib.metadata import EntryPoint

import pytest
import torch

from longflow import registry
from longflow.errors import ConfigurationError, NotFoundError
from longflow.networks.registry import NetworksFor, build_network
from longflow.networks.time_embedding import TimeEmbedding
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake, never_modulated

TRANSLATING = NetworksFor("translation").__get__(None)
FLOWING = ("film_unet", "diffusion_unet", "concatenation_unet")


def build(name: str, dimensions: int, channels_in: int = 2, channels_out: int = 1) -> torch.nn.Module:
    torch.manual_seed(0)
    plan = NetworkPlan(
        features_per_stage=[8, 8, 16],
        strides=[[1] * dimensions, [2] * dimensions, [2] * dimensions],
        kernel_sizes=[[3] * dimensions] * 3,
        attention=False,
    )
    return build_network(name, channels_in, channels_out, plan)


@pytest.mark.parametrize("name", TRANSLATING)
@pytest.mark.parametrize("spatial", [(16, 16), (13, 7), (1, 1), (8, 8, 8), (5, 9, 6)])
def test_any_image_goes_in_and_out_and_a_fresh_network_gives_zero(name, spatial):
    found = build(name, len(spatial))(torch.randn(2, 2, *spatial), torch.rand(2))
    assert found.shape == (2, 1, *spatial) and found.dtype == torch.float32
    assert not found.any()


@pytest.mark.parametrize("name", TRANSLATING)
@pytest.mark.parametrize("spatial", [(11, 16), (6, 8, 8)])
def test_time_matters_to_each_sample_by_itself(name, spatial):
    network = awake(build(name, len(spatial)))
    image = torch.randn(1, 2, *spatial).repeat(3, 1, *[1] * len(spatial))
    early, again, late = network(image, torch.tensor([0.2, 0.2, 0.9]))
    torch.testing.assert_close(early, again, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(early, late, atol=1e-3)
    early, late = never_modulated(network)(image[:2], torch.tensor([0.2, 0.9]))
    torch.testing.assert_close(early, late, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TRANSLATING)
def test_gradients_reach_every_weight_those_of_time_in_every_block_too(name):
    network = awake(build(name, 2))
    network(torch.randn(2, 2, 16, 16), torch.rand(2)).square().mean().backward()
    assert sum(isinstance(module, TimeEmbedding) for module in network.modules()) == 1
    without = [name for name, one in network.named_parameters() if one.grad is None or not one.grad.any()]
    assert not without


def test_a_network_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(NotFoundError, match="timeresnet"):
        build("timeresnett", 2)


class Dense(torch.nn.Module):
    serves = "flow"


def test_a_package_brings_a_network_for_what_it_serves(monkeypatch):
    point = EntryPoint("dense", f"{__name__}:Dense", "longflow.networks")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "longflow.networks" else [])
    assert NetworksFor("flow").__get__(None) == (*FLOWING, "dense")
    assert NetworksFor("translation").__get__(None) == TRANSLATING
    assert isinstance(build_network("dense"), Dense)


@pytest.mark.parametrize("target", ["torch.nn:Linear", "fractions:Fraction", "no_such_package:X"])
def test_a_broken_outside_network_is_not_listed_and_explained_when_requested(monkeypatch, target):
    point = EntryPoint("broken", target, "longflow.networks")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "longflow.networks" else [])
    assert NetworksFor("flow").__get__(None) == FLOWING
    with pytest.raises(ConfigurationError, match="network 'broken'"):
        build_network("broken")
