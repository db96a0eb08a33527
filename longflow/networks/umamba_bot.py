"""U-Mamba (Ma et al. 2024) with its state-space layer at the bottleneck, conditioned on time, in 2D and 3D.

As in its authors' public code it is a U-Net of residual blocks. At the bottleneck the positions, row by row, are a
sequence that passes layer normalisation and Mamba, without a skip around them. Differences: GroupNorm and SiLU as in
the other networks with time, the same number of blocks in all stages of the decoder, and the decoder of
:class:`~longflow.networks.timed_unet.TimedUNet`. The time enters as in TimeResNet, in every block of the encoder.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.networks.blocks import ResidualBlock
from longflow.networks.selective_scan import selective_scan
from longflow.networks.timed_unet import TimedUNet

#: numbers of Mamba's authors: size of a feature's state, kernel of the convolution, inner features over outer ones
STATES = 16
KERNEL = 4
EXPANSION = 2
#: outer features over the rank of the step sizes
PER_RANK = 16
#: least and largest step size of a fresh layer, drawn evenly on a logarithmic scale
STEP_SIZES = (0.001, 0.1)


class Mamba(nn.Module):
    """Causal convolution, selective scan and gate (Gu & Dao 2023, figure 3). Weights are named as in ``mamba_ssm``.

    :param features: of the sequence.
    """

    def __init__(self, features: int):
        super().__init__()
        inner, rank = EXPANSION * features, math.ceil(features / PER_RANK)
        self.split = [rank, STATES, STATES]
        self.in_proj = nn.Linear(features, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, KERNEL, groups=inner, padding=KERNEL - 1)
        self.x_proj = nn.Linear(inner, sum(self.split), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, STATES + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, features, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        steps = torch.empty(inner).uniform_(*map(math.log, STEP_SIZES)).exp()
        with torch.no_grad():
            # the inverse of softplus
            self.dt_proj.bias.copy_(steps + (-(-steps).expm1()).log())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        :param x: (batch, length, features).
        :returns: the same shape.
        """
        u, gate = self.in_proj(x).chunk(2, dim=2)
        u = F.silu(self.conv1d(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step, B, C = self.x_proj(u).split(self.split, dim=2)
        delta = F.softplus(self.dt_proj(step).float())
        y = selective_scan(u, delta, -self.A_log.float().exp(), B, C, self.D)
        return self.out_proj(y * F.silu(gate))


class MambaLayer(nn.Module):
    """Apply layer normalisation and Mamba to the positions of a map, in the order of the last axis first."""

    def __init__(self, features: int):
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.mamba = Mamba(features)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Apply the layer.

        :param x: (batch, features, *spatial).
        :param code: not used.
        :returns: the shape of ``x``.
        """
        sequence = x.flatten(2).transpose(1, 2)
        return self.mamba(self.norm(sequence)).transpose(1, 2).reshape(x.shape)


class UMambaBot(TimedUNet):
    """Map image and time to a velocity or an image.

    :param channels_in: of the image.
    :param channels_out: of the result.
    :param plan: features, strides, kernel sizes; blocks of each stage of the encoder, one where it does not say.
    """

    block = ResidualBlock

    def make_bottleneck(self, conv: type, features: int, kernel: list[int], code_size: int) -> list[nn.Module]:
        """Make the state-space layer."""
        return [MambaLayer(features)]
