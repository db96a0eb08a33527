import pytest
import torch
from torch import nn

from longflow.networks.blocks import FiLMBlock, PlainBlock, ResidualBlock, film_residual


def test_the_time_scales_and_shifts_what_comes_out_of_silu():
    block = PlainBlock(nn.Conv2d, 3, 8, [3, 3], [2, 2], code_size=4)
    nn.init.zeros_(block.time.linear.weight)
    block.time.linear.bias.data = torch.tensor([2.0, -0.5]).repeat_interleave(8)
    block.conv2, block.norm2 = nn.Identity(), nn.Identity()
    x = torch.randn(2, 3, 8, 8)
    h = block.norm1(block.conv1(x))
    h = 2 * h * torch.sigmoid(h) - 0.5
    torch.testing.assert_close(block(x, torch.randn(2, 4)), h * torch.sigmoid(h))


def test_a_residual_block_adds_what_it_was_given_before_its_last_silu():
    block = ResidualBlock(nn.Conv2d, 8, 8, [3, 3], [1, 1])
    nn.init.zeros_(block.norm2.weight)
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(block(x), x * torch.sigmoid(x))
    assert isinstance(block.skip, nn.Identity)


@pytest.mark.parametrize(("features", "stride"), [(16, [1, 1]), (8, [2, 2])])
def test_the_skip_of_a_residual_block_is_projected_where_the_shape_changes(features, stride):
    block = ResidualBlock(nn.Conv2d, 8, features, [3, 3], stride)
    nn.init.zeros_(block.norm2.weight)
    x = torch.randn(1, 8, 4, 4)
    skip = block.skip(x)
    torch.testing.assert_close(block(x), skip * torch.sigmoid(skip))


def test_film_is_gain_times_norm_plus_shift_plus_input():
    norm = nn.GroupNorm(8, 16)
    h, gain, shift = torch.randn(2, 16, 3, 4, 5), torch.randn(2, 16), torch.randn(2, 16)
    groups = h.view(2, 8, -1)
    normalized = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    normalized = normalized.view_as(h)
    expected = gain.view(2, 16, 1, 1, 1) * normalized + shift.view(2, 16, 1, 1, 1) + h
    torch.testing.assert_close(film_residual(h, norm, gain, shift), expected, atol=1e-5, rtol=1e-5)


def test_a_film_block_begins_with_the_sum_of_input_and_norm_and_has_the_names_of_stored_weights():
    block = FiLMBlock(nn.Conv2d, 8, 8, [3, 3], [1, 1], code_size=4)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.norm2.weight)
    x, code = torch.randn(2, 8, 5, 5), torch.randn(2, 4)
    torch.testing.assert_close(block(x, code), x * torch.sigmoid(x))
    h = block.conv1(x)
    h = h + block.norm1(h)
    torch.testing.assert_close(block.conditioned(block.conv1(x), code), h * torch.sigmoid(h))
    parts = ("conv1", "norm1", "film", "conv2", "norm2")
    assert list(block.state_dict()) == [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]
