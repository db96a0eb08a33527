"""TimeResNet (MFM section 3.2, figures 4, 5 and 11, D.1), in 2D and 3D.

The text names the parts: a residual encoder with the time in every block, self-convolution attention with GroupNorm
between the bottleneck layers, a decoder. Where it leaves room, this was decided:

- Features, blocks and scales: five scales from 64 features, doubled at each, two blocks at each. With them an image of
  512 x 512 has 32 x 32 positions at the bottleneck, and the network has 125.8 million parameters (the paper's: 124.7,
  table 3).
- The block: convolution, GroupNorm, SiLU, h -> A h + B, convolution, GroupNorm, the skip, SiLU. The first block of a
  scale has the stride.
- The bottleneck: residual block, attention, residual block; both blocks are conditioned on time.
- The decoder: 1 x 1 convolution, linear interpolation, concatenation with the skip, one residual block for each scale.
  It is not conditioned on time.
- Self-convolution attention is "inspired by Yang et al. (2019)", who restrict attention to neighbours and let heads
  interact. MFM found attention that is limited to patches to be of no use. So queries, keys and values come from a
  convolution, which sees neighbours and the features of all heads, and attention covers all positions.
- Its cost: at more than 1024 positions (32 x 32, the paper's) keys and values are averaged over cells until there are
  no more than that. So the cost grows in proportion to the image.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.networks.blocks import GROUPS, ResidualBlock
from longflow.networks.padding import same_padding
from longflow.networks.precision import GroupNorm
from longflow.networks.timed_unet import TimedUNet

#: 125.8 million parameters in 2D
PAPER_FEATURES = (64, 128, 256, 512, 1024)
PAPER_BLOCKS = (2, 2, 2, 2, 2)

HEADS = 8
MOST_KEYS = 1024


class SelfConvolutionAttention(nn.Module):
    """Attend to all positions, with queries, keys and values from one convolution, and add the result to the input.

    GroupNorm comes first. The output projection starts at zero, so the block starts as the identity.

    :param conv: kind of convolution.
    :param features: a multiple of 8.
    :param kernel: of the convolution.
    """

    def __init__(self, conv: type, features: int, kernel: list[int]):
        super().__init__()
        self.norm = GroupNorm(GROUPS, features)
        self.to_qkv = conv(features, 3 * features, kernel, padding=same_padding(kernel))
        self.out = conv(features, features, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Apply the block.

        :param x: (batch, features, *spatial).
        :param code: not used.
        :returns: the shape of ``x``.
        """
        query, key, value = self.to_qkv(self.norm(x)).chunk(3, dim=1)
        attended = F.scaled_dot_product_attention(_heads(query), _heads(_fewer(key)), _heads(_fewer(value)))
        # (batch, positions, features) as a map, which is channels-last without a copy of it
        attended = attended.transpose(1, 2).flatten(2).transpose(1, 2).reshape(x.shape)
        return x + self.out(attended)


def _heads(x: Tensor) -> Tensor:
    """Turn (batch, features, *spatial) into (batch, heads, positions, features of a head)."""
    return x.flatten(2).unflatten(1, (HEADS, -1)).transpose(2, 3)


def _fewer(x: Tensor) -> Tensor:
    """Average over cells, so that at most ``MOST_KEYS`` positions remain."""
    cell = cell_size(x.shape[2:])
    if cell == 1:
        return x
    pool = {4: F.avg_pool2d, 5: F.avg_pool3d}[x.ndim]
    return pool(x, cell, ceil_mode=True, count_include_pad=False)


def cell_size(spatial: torch.Size) -> int:
    """Return the edge of the smallest cells of which a map has at most ``MOST_KEYS``."""
    cell = 1
    while math.prod(-(-size // cell) for size in spatial) > MOST_KEYS:
        cell += 1
    return cell


class TimeResNet(TimedUNet):
    """Map image and time to a velocity, as MFM's authors do.

    :param channels_in: of the image.
    :param channels_out: of the velocity.
    :param plan: features, strides, kernel sizes; blocks of each stage of the encoder, one where it does not say.
    """

    block = ResidualBlock

    def make_bottleneck(self, conv: type, features: int, kernel: list[int], code_size: int) -> list[nn.Module]:
        """Make residual block, attention, residual block."""
        unit = [1] * len(kernel)
        first, last = (ResidualBlock(conv, features, features, kernel, unit, code_size) for _ in range(2))
        return [first, SelfConvolutionAttention(conv, features, kernel), last]


class TimeResNetWithoutAttention(TimeResNet):
    """TimeResNet with two residual blocks alone at the bottleneck: what its attention contributes (MFM section 3.2).

    At the paper's size it has 96.4 million parameters.
    """

    def make_bottleneck(self, conv: type, features: int, kernel: list[int], code_size: int) -> list[nn.Module]:
        """Make the residual blocks."""
        first, _, last = super().make_bottleneck(conv, features, kernel, code_size)
        return [first, last]
