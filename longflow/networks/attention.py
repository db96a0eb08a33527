"""Windowed self-attention over spatial positions (CRONOS C.3: window 8, four heads of 64)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 8
HEADS = 4
HEAD_FEATURES = 64


class WindowAttention(nn.Module):
    """Attend to positions of the same window, at most 8 along each axis, and add the result to the input.

    The output projection starts at zero, so the block starts as the identity.

    :param features: channels of the feature map.
    """

    def __init__(self, features: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, features)
        self.to_qkv = nn.Linear(features, 3 * HEADS * HEAD_FEATURES)
        self.out = nn.Linear(HEADS * HEAD_FEATURES, features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        :param x: (batch, features, *spatial).
        :returns: the same shape.
        """
        windows, restore = split_windows(self.norm(x))
        batch, positions, _ = windows.shape
        qkv = self.to_qkv(windows).view(batch, positions, 3, HEADS, HEAD_FEATURES).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        return x + restore(self.out(attended))


def split_windows(x: Tensor):
    """Cut a feature map into equal windows of at most ``WINDOW`` positions along each axis.

    An axis is cut into the smallest number of equal parts that is at least its size divided by ``WINDOW``. Where no
    such division exists the axis stays whole. So no position is ever padded.

    :param x: (batch, features, *spatial).
    :returns: (batch * windows, positions, features), and the function that puts such a tensor back.
    """
    batch, features, *spatial = x.shape
    parts = [_parts(size) for size in spatial]
    edges = [size // count for size, count in zip(spatial, parts, strict=True)]
    axes = len(spatial)
    shape = [batch, features]
    for count, edge in zip(parts, edges, strict=True):
        shape += [count, edge]
    counts = [2 + 2 * axis for axis in range(axes)]
    order = [0, *counts, *(axis + 1 for axis in counts), 1]
    windows = x.reshape(shape).permute(order)
    split_shape = windows.shape
    inverse = [order.index(axis) for axis in range(len(order))]

    def restore(y: Tensor) -> Tensor:
        return y.reshape(split_shape).permute(inverse).reshape(x.shape)

    return windows.reshape(-1, torch.Size(edges).numel(), features), restore


def _parts(size: int) -> int:
    for count in range(-(-size // WINDOW), size):
        if size % count == 0 and size // count > WINDOW // 2:
            return count
    return 1
