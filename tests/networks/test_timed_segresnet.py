from copy import deepcopy

import pytest
import torch
from monai.networks.blocks.segresnet_block import ResBlock
from torch import nn

from longflow.networks.time_embedding import TimeModulation
from longflow.networks.timed_segresnet import BLOCKS, TimedSegResNet, conditioned_on_time
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake, in_bf16_and_float32, never_modulated


def plan(dimensions: int, features=(8, 16, 32)) -> NetworkPlan:
    return NetworkPlan(
        features_per_stage=list(features),
        strides=[[1] * dimensions] + [[2] * dimensions] * (len(features) - 1),
        kernel_sizes=[[3] * dimensions] * len(features),
        attention=False,
    )


def network(dimensions: int, inputs: int = 1, **further) -> TimedSegResNet:
    torch.manual_seed(0)
    return TimedSegResNet(inputs, 1, plan(dimensions, **further))


@pytest.mark.parametrize("shape", [(8, 12), (9, 7), (1, 1), (4, 8, 8), (3, 9, 6), (1, 2, 3)])
def test_any_size_comes_back_as_it_was_and_starts_at_zero(shape):
    found = network(len(shape), inputs=2)(torch.randn(2, 2, *shape), torch.rand(2))
    assert found.shape == (2, 1, *shape) and found.dtype == torch.float32
    assert not found.any()


@pytest.mark.parametrize("shape", [(8, 12), (4, 8, 8)])
def test_unconditioned_on_time_it_is_monais_network(shape):
    net = never_modulated(awake(network(len(shape))))
    image = torch.randn(2, 1, *shape)
    torch.testing.assert_close(net(image, torch.rand(2)), net.segresnet(image))


def test_the_time_scales_and_shifts_what_the_second_activation_gives():
    """A = 0 and B = 1: the second convolution sees ones, whatever the image."""
    block, modulation = ResBlock(2, 8, norm=("GROUP", {"num_groups": 8})), TimeModulation(4, 8)
    nn.init.zeros_(modulation.linear.weight)
    modulation.linear.bias.data = torch.tensor([0.0, 1.0]).repeat_interleave(8)
    x = torch.randn(2, 8, 6, 6)
    expected = x + block.conv2(torch.ones_like(x))
    torch.testing.assert_close(conditioned_on_time(block, modulation, x.clone(), torch.randn(2, 4)), expected)


@pytest.mark.parametrize("shape", [(9, 12), (3, 8, 8)])
def test_time_matters_for_each_sample_and_gradients_reach_every_parameter(shape):
    net = awake(network(len(shape)))
    image = torch.randn(1, 1, *shape).repeat(2, *[1] * (len(shape) + 1))
    early, late = net(image, torch.tensor([0.0, 1.0]))
    assert not torch.allclose(early, late)
    torch.testing.assert_close(net(image[1:], torch.tensor([1.0]))[0], late, atol=1e-5, rtol=1e-4)
    net(image, torch.rand(2)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_stages_and_features_are_the_plans_and_blocks_monais():
    net = network(2, features=(8, 8, 8, 8, 8))
    assert [len(modulations) for modulations in net.modulations] == [*BLOCKS, BLOCKS[-1]]
    assert [stage[0].linear.out_features // 2 for stage in net.modulations] == [8, 16, 32, 64, 128]
    assert network(2, features=(8,))(torch.randn(1, 1, 5, 5), torch.zeros(1)).shape == (1, 1, 5, 5)


def test_with_the_plan_of_timeresnet_it_has_the_stated_size():
    with torch.device("meta"):
        net = network(2, features=(64, 128, 256, 512, 1024))
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 1) == 114.3


def test_a_copy_is_the_same_network():
    net = awake(network(2))
    image, time = torch.randn(1, 1, 8, 8), torch.rand(1)
    expected = net(image, time)
    torch.testing.assert_close(deepcopy(net)(image, time), expected)


def test_gradients_in_bf16_are_those_of_float32_where_two_slices_are_left():
    low, high = in_bf16_and_float32(awake(network(3)), torch.randn(2, 1, 8, 8, 8), torch.rand(2))
    assert (low - high).norm() < 0.05 * high.norm()
