import numpy as np
import pytest
import torch
from torch import nn

from longflow.networks import timeresnet
from longflow.networks.blocks import ResidualBlock
from longflow.networks.timeresnet import (
    HEADS,
    PAPER_BLOCKS,
    PAPER_FEATURES,
    SelfConvolutionAttention,
    TimeResNet,
    TimeResNetWithoutAttention,
    cell_size,
)
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake, in_bf16_and_float32


def plan(dimensions: int, features=(8, 16), blocks=()) -> NetworkPlan:
    stages = len(features)
    return NetworkPlan(
        features_per_stage=list(features),
        strides=[[1] * dimensions] + [[2] * dimensions] * (stages - 1),
        kernel_sizes=[[3] * dimensions] * stages,
        attention=False,
        blocks_per_stage=list(blocks),
    )


def test_at_the_papers_size_it_has_120_to_130_million_parameters():
    with torch.device("meta"):
        network = TimeResNet(1, 1, plan(2, PAPER_FEATURES, PAPER_BLOCKS))
    assert 120e6 < sum(parameter.numel() for parameter in network.parameters()) < 130e6
    assert 512 // np.prod(plan(2, PAPER_FEATURES).strides, axis=0)[0] == 32


def test_all_blocks_but_those_of_the_decoder_are_conditioned_on_time():
    network = TimeResNet(1, 1, plan(2, blocks=(2, 1)))
    blocks = [*(block for stage in network.encoder for block in stage), network.bottleneck[0], network.bottleneck[2]]
    assert len(blocks) == 5
    assert all(isinstance(block, ResidualBlock) and block.time is not None for block in blocks)
    assert isinstance(network.bottleneck[1], SelfConvolutionAttention)
    assert all(isinstance(block, ResidualBlock) and block.time is None for block in network.decoder)


def test_without_attention_it_is_the_same_network_before_attention_has_learnt():
    """Attention begins as the identity; so the difference is its parameters alone."""
    torch.manual_seed(0)
    network, without = TimeResNet(1, 1, plan(2)), TimeResNetWithoutAttention(1, 1, plan(2))
    weights = {
        name.replace("bottleneck.2.", "bottleneck.1."): value
        for name, value in network.state_dict().items()
        if not name.startswith("bottleneck.1.")
    }
    without.load_state_dict(weights)
    for one in (network, without):
        nn.init.constant_(one.head.weight, 0.1)
    image, time = torch.randn(2, 1, 12, 10), torch.rand(2)
    torch.testing.assert_close(network(image, time), without(image, time))
    attention = sum(one.numel() for one in network.bottleneck[1].parameters())
    sizes = [sum(one.numel() for one in net.parameters()) for net in (network, without)]
    assert sizes[0] - sizes[1] == attention > 0


@pytest.mark.parametrize("spatial", [(3, 5), (2, 3, 2)])
def test_attention_is_softmax_of_products_over_all_positions_added_to_its_input(spatial):
    torch.manual_seed(0)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[len(spatial)]
    block = awake(SelfConvolutionAttention(conv, 2 * HEADS, [3] * len(spatial)))
    x = torch.randn(2, 2 * HEADS, *spatial)
    qkv = block.to_qkv(block.norm(x)).detach().numpy()
    query, key, value = (part.reshape(2, HEADS, 2, -1) for part in np.split(qkv, 3, axis=1))
    weights = np.exp(np.einsum("bhcq,bhck->bhqk", query, key) / 2**0.5)
    weights /= weights.sum(axis=3, keepdims=True)
    attended = np.einsum("bhqk,bhck->bhcq", weights, value).reshape(x.shape)
    expected = x + block.out(torch.from_numpy(attended))
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-4)


def test_attention_starts_as_the_identity():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(SelfConvolutionAttention(nn.Conv2d, 8, [3, 3])(x), x)


@pytest.mark.parametrize(
    ("spatial", "cell"), [((32, 32), 1), ((33, 32), 2), ((64, 64), 2), ((65, 64), 3), ((1, 1), 1), ((4, 64, 64), 3)]
)
def test_cells_are_the_smallest_that_leave_no_more_keys_than_the_paper_has(spatial, cell):
    assert cell_size(spatial) == cell


def test_keys_of_larger_maps_are_averages_over_cells(monkeypatch):
    """Values that are constant within cells: averaging them changes nothing but how often they are counted."""
    torch.manual_seed(0)
    block = awake(SelfConvolutionAttention(nn.Conv2d, 8, [1, 1]))
    coarse = torch.randn(1, 8, 2, 3)
    fine = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = block(fine)
    monkeypatch.setattr(timeresnet, "MOST_KEYS", 6)
    torch.testing.assert_close(block(fine), expected)
    torch.testing.assert_close(block(fine)[..., ::2, ::2], block(coarse))
    odd = torch.randn(1, 8, 3, 5)
    assert block(odd).shape == odd.shape and not torch.allclose(block(odd), odd)


@pytest.mark.parametrize("shape", [(12, 10), (4, 8, 8), (2, 8, 8)])
def test_gradients_in_bf16_are_those_of_float32(shape):
    torch.manual_seed(0)
    network = awake(TimeResNet(1, 1, plan(len(shape))))
    low, high = in_bf16_and_float32(network, torch.randn(2, 1, *shape), torch.rand(2))
    assert (low - high).norm() < 0.05 * high.norm()
