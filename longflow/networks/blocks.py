"""Blocks of two convolutions, conditioned on a code in between, for U-Nets in 2D and 3D."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.networks.padding import same_padding
from longflow.networks.precision import GroupNorm, GuardedConv3d, group_norm
from longflow.networks.time_embedding import TimeModulation

CONVOLUTIONS = {2: nn.Conv2d, 3: GuardedConv3d}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}
GROUPS = 8


class PlainBlock(nn.Module):
    """Twice convolution, GroupNorm and SiLU. A code modulates the first SiLU's output: h -> A h + B (MFM D.1).

    :param conv: kind of convolution.
    :param inputs: channels of the input.
    :param features: channels of the output, a multiple of 8.
    :param kernel: size along each axis.
    :param stride: of the first convolution, along each axis.
    :param code_size: length of the code; 0: the block has no condition.
    """

    def __init__(
        self, conv: type, inputs: int, features: int, kernel: list[int], stride: list[int], code_size: int = 0
    ):
        super().__init__()
        padding = same_padding(kernel)
        self.conv1 = conv(inputs, features, kernel, stride, padding)
        self.norm1 = GroupNorm(GROUPS, features)
        self.make_condition(code_size, features)
        self.conv2 = conv(features, features, kernel, padding=padding)
        self.norm2 = GroupNorm(GROUPS, features)

    def make_condition(self, code_size: int, features: int) -> None:
        """Make the layer through which the code enters."""
        self.time = TimeModulation(code_size, features) if code_size else None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Apply the block.

        :param x: (batch, inputs, *spatial).
        :param code: (batch, code_size).
        :returns: (batch, features, *spatial divided by the stride).
        """
        return F.silu(self.residual(x, code))

    def residual(self, x: Tensor, code: Tensor | None) -> Tensor:
        """Apply everything but the last SiLU."""
        return self.norm2(self.conv2(self.conditioned(self.conv1(x), code)))

    def conditioned(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Normalise, activate and modulate the first convolution's output."""
        h = F.silu(self.norm1(h))
        return h if self.time is None else self.time(h, code)


class ResidualBlock(PlainBlock):
    """A plain block with a skip before the last SiLU (He et al. 2016); the skip is 1 x 1 where shapes differ."""

    def __init__(
        self, conv: type, inputs: int, features: int, kernel: list[int], stride: list[int], code_size: int = 0
    ):
        super().__init__(conv, inputs, features, kernel, stride, code_size)
        same = inputs == features and all(step == 1 for step in stride)
        self.skip = nn.Identity() if same else conv(inputs, features, 1, stride)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Apply the block; shapes as in :class:`PlainBlock`."""
        return F.silu(self.residual(x, code).add_(self.skip(x)))


class FiLMBlock(ResidualBlock):
    """The residual block of CRONOS (C.3): the code enters by FiLM, before the first SiLU."""

    def make_condition(self, code_size: int, features: int) -> None:
        """Make the linear layer of gain and shift, which starts at zero."""
        self.film = nn.Linear(code_size, 2 * features)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def conditioned(self, h: Tensor, code: Tensor) -> Tensor:
        """Apply FiLM and SiLU to the first convolution's output."""
        gain, shift = self.film(code).chunk(2, dim=1)
        return F.silu(film_residual(h, self.norm1, 1 + gain, shift))


def film_residual(h: Tensor, norm: nn.GroupNorm, gain: Tensor, shift: Tensor) -> Tensor:
    """Compute gain * GN(h) + shift + h (CRONOS C.3).

    :param h: (batch, features, *spatial).
    :param norm: GroupNorm of the features.
    :param gain: (batch, features).
    :param shift: (batch, features).
    :returns: the shape of ``h``.
    """
    # gain and shift are those of the norm, so that no map is made for them
    weights, biases = gain * norm.weight, gain * norm.bias + shift
    maps = [
        group_norm(one, norm.num_groups, weight, bias, norm.eps)
        for one, weight, bias in zip(h.split(1), weights, biases, strict=True)
    ]
    return (torch.cat(maps) if len(maps) > 1 else maps[0]).add_(h)
