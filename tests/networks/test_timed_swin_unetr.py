from copy import deepcopy

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn

from longflow.networks.timed_swin_unetr import TimedResBlock, TimedSwinUNETR
from longflow.plans import NetworkPlan
from longflow.private import fake_tensors
from tests.networks.helpers import awake, in_bf16_and_float32, never_modulated


def plan(dimensions: int, features=(8, 16, 32)) -> NetworkPlan:
    return NetworkPlan(
        features_per_stage=list(features),
        strides=[[1] * dimensions] + [[2] * dimensions] * (len(features) - 1),
        kernel_sizes=[[3] * dimensions] * len(features),
        attention=False,
    )


def network(dimensions: int, inputs: int = 1, **further) -> TimedSwinUNETR:
    torch.manual_seed(0)
    return TimedSwinUNETR(inputs, 1, plan(dimensions, **further))


@pytest.mark.parametrize("shape", [(16, 24), (9, 7), (1, 1), (8, 8), (4, 8, 16), (1, 2, 3)])
def test_any_size_comes_back_as_it_was_and_starts_at_zero(shape):
    found = network(len(shape), inputs=2)(torch.randn(2, 2, *shape), torch.rand(2))
    assert found.shape == (2, 1, *shape) and found.dtype == torch.float32
    assert not found.any()


def test_unconditioned_on_time_it_is_monais_network():
    """Five stages are MONAI's four; 64 positions are more than a window holds, so that windows are shifted."""
    net = never_modulated(awake(network(2, features=(8, 16, 32, 64, 128))))
    monais = SwinUNETR(1, 1, feature_size=12, spatial_dims=2, use_v2=True)
    vit = monais.swinViT
    vit.patch_embed = net.embedding
    for number, stage in enumerate(net.stages, start=1):
        getattr(vit, f"layers{number}")[0] = stage.swin
        getattr(vit, f"layers{number}c")[0].layer = stage.convolutions.block
    for number, skip in enumerate(net.skips, start=1):
        getattr(monais, f"encoder{number}").layer = skip.block
    monais.encoder10.layer = net.bottleneck.block
    for number, up in enumerate(net.decoder):
        setattr(monais, f"decoder{5 - number}", up)
    monais.out = net.head
    image = torch.randn(2, 1, 64, 32)
    torch.testing.assert_close(net(image, torch.rand(2)), monais(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("inputs", [4, 8])
def test_the_time_scales_and_shifts_what_the_first_activation_gives(inputs):
    """A = 0 and B = 1: the second convolution sees ones, whatever the image."""
    block = TimedResBlock(2, inputs, 8, code_size=4)
    nn.init.zeros_(block.time.linear.weight)
    block.time.linear.bias.data = torch.tensor([0.0, 1.0]).repeat_interleave(8)
    x, inner = torch.randn(2, inputs, 6, 6), block.block
    skip = x if inputs == 8 else inner.norm3(inner.conv3(x))
    expected = inner.lrelu(inner.norm2(inner.conv2(torch.ones(2, 8, 6, 6))) + skip)
    torch.testing.assert_close(block(x, torch.randn(2, 4)), expected)


@pytest.mark.parametrize("shape", [(9, 12), (3, 8, 9)])
def test_time_matters_for_each_sample_and_gradients_reach_every_parameter(shape):
    net = awake(network(len(shape)))
    image = torch.randn(1, 1, *shape).repeat(2, *[1] * (len(shape) + 1))
    early, late = net(image, torch.tensor([0.0, 1.0]))
    assert not torch.allclose(early, late)
    torch.testing.assert_close(net(image[1:], torch.tensor([1.0]))[0], late, atol=1e-4, rtol=1e-4)
    net(image, torch.rand(2)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_features_are_a_multiple_of_twelve_for_every_plan():
    for first in (8, 16, 40, 64):
        net = network(2, features=(first, 8))
        assert net.embedding.embed_dim == 3 * first // 2 and net.embedding.embed_dim % 12 == 0


def test_with_the_plan_of_timeresnet_it_has_the_stated_size():
    with fake_tensors():
        net = network(2, features=(64, 128, 256, 512, 1024))
    assert len(net.stages) == 4
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 1) == 116.6


def test_a_copy_is_the_same_network():
    net = awake(network(2))
    image, time = torch.randn(1, 1, 8, 16), torch.rand(1)
    expected = net(image, time)
    torch.testing.assert_close(deepcopy(net)(image, time), expected)


def test_gradients_in_bf16_are_those_of_float32_where_two_slices_are_left():
    low, high = in_bf16_and_float32(awake(network(3)), torch.randn(2, 1, 16, 8, 16), torch.rand(2))
    assert (low - high).norm() < 0.05 * high.norm()
