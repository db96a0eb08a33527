"""The FiLM U-Net of CRONOS (appendix C.3), in 2D and 3D, with nnU-Net's topology.

Where the text leaves room, this was decided:

- Strides, kernel sizes and the number of scales come from the plan instead of four scales with stride 2, so that thin
  volumes keep their slices.
- The text speaks of one residual block per scale, and of a "two-ResBlock pattern" that the decoder mirrors. Here it is
  one block per scale on both sides, and two at the bottleneck.
- The text's head has one output channel, while the velocity of equations 5-7 has one volume per context scan. Here the
  head has as many outputs as the stack has channels.
- Blocks end with the sum of both branches and SiLU, as usual for residual blocks whose convolution comes first.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.networks.attention import WindowAttention
from longflow.networks.blocks import CONVOLUTIONS, INTERPOLATION, FiLMBlock
from longflow.networks.padding import same_padding
from longflow.networks.precision import bf16_gradient_is_wrong, channels_last
from longflow.plans import NetworkPlan


class FiLMUNet(nn.Module):
    """Predict a velocity for every channel of a stack of scans, given a conditioning code.

    With fewer scans than the network was built for, only the weights of the *last* places are used. A shorter context
    is neither padded nor paid for.

    :param in_channels: most channels of a stack: scans x image channels.
    :param plan: features, strides, kernel sizes, attention.
    :param code_size: length of the conditioning code.
    :cvar last_places: parameters that belong to the channels of a stack, and along which of their axes.
    """

    last_places: ClassVar[dict[str, int]] = {"stem.weight": 1, "velocity.weight": 0, "velocity.bias": 0}

    def __init__(self, in_channels: int, plan: NetworkPlan, code_size: int):
        super().__init__()
        self.in_channels = in_channels
        self.conv = CONVOLUTIONS[plan.dimensions]
        features, strides, kernels = plan.features_per_stage, plan.strides, plan.kernel_sizes
        self.strides, self.kernels = strides, kernels
        self.code = nn.Sequential(nn.Linear(code_size, 4 * features[0]), nn.SiLU())
        code_size = 4 * features[0]
        unit = [1] * plan.dimensions

        self.stem = self.conv(in_channels, features[0], 1)
        self.encoder = nn.ModuleList([FiLMBlock(self.conv, features[0], features[0], kernels[0], unit, code_size)])
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for stage, (above, below) in enumerate(pairwise(features), start=1):
            self.down.append(self.conv(above, below, kernels[stage], strides[stage], same_padding(kernels[stage])))
            self.encoder.append(FiLMBlock(self.conv, below, below, kernels[stage], unit, code_size))
            self.up.append(Upsample(self.conv, below, above, kernels[stage - 1], strides[stage]))
            self.decoder.append(FiLMBlock(self.conv, above, above, kernels[stage - 1], unit, code_size))
        self.attention = WindowAttention(features[-1]) if plan.attention else nn.Identity()
        self.bottleneck = FiLMBlock(self.conv, features[-1], features[-1], kernels[-1], unit, code_size)
        self.head = self.conv(features[0], features[0], kernels[0], padding=same_padding(kernels[0]))
        self.velocity = self.conv(features[0], in_channels, 1)
        nn.init.zeros_(self.velocity.weight)
        nn.init.zeros_(self.velocity.bias)

    def forward(self, stack: Tensor, code: Tensor) -> Tensor:
        """Compute the velocity of a stack.

        :param stack: (batch, channels, *spatial) with channels <= ``in_channels``.
        :param code: (batch, code_size).
        :returns: (batch, channels, *spatial), float32.
        """
        if stack.device.type == "cpu" and self._needs_float32(stack.shape[2:]):
            with torch.autocast("cpu", enabled=False):
                return self._velocity(stack.float(), code.float())
        return self._velocity(stack, code)

    def _needs_float32(self, spatial: torch.Size) -> bool:
        """Check whether a convolution of some stage meets a size whose gradient is wrong in bf16."""
        depth = spatial[0]
        for stride, kernel in zip(self.strides, self.kernels, strict=True):
            depth //= stride[0]
            if bf16_gradient_is_wrong((depth, *spatial[1:]), kernel):
                return True
        return False

    def _velocity(self, stack: Tensor, code: Tensor) -> Tensor:
        channels = stack.shape[1]
        features = self.features(stack, code)
        weight, bias = self.velocity.weight, self.velocity.bias
        convolve = {4: F.conv2d, 5: F.conv3d}[stack.ndim]
        return convolve(features, weight[self.in_channels - channels :], bias[self.in_channels - channels :]).float()

    def features(self, stack: Tensor, code: Tensor) -> Tensor:
        """Compute what the last convolution sees: (batch, features of the first stage, *spatial)."""
        channels = stack.shape[1]
        stack = stack.contiguous(memory_format=channels_last(stack.ndim - 2))
        convolve = {4: F.conv2d, 5: F.conv3d}[stack.ndim]
        code = self.code(code)
        x = convolve(stack, self.stem.weight[:, self.in_channels - channels :], self.stem.bias)
        skips = []
        for stage, block in enumerate(self.encoder):
            x = block(self.down[stage - 1](x) if stage else x, code)
            skips.append(x)
        x = self.bottleneck(self.attention(skips.pop()), code)
        for up, block, skip in zip(reversed(self.up), reversed(self.decoder), reversed(skips), strict=True):
            x = block(up(x, skip), code)
        return F.silu(self.head(x))


class Upsample(nn.Module):
    """Interpolate by the stride, convolve, concatenate with the skip, convolve 1 x 1 x 1."""

    def __init__(self, conv: type, below: int, above: int, kernel: list[int], stride: list[int]):
        super().__init__()
        self.scale = tuple(float(step) for step in stride)
        self.mode = INTERPOLATION[len(stride)]
        self.conv = conv(below, above, kernel, padding=same_padding(kernel))
        self.align = conv(2 * above, above, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Enlarge a map.

        :param x: (batch, below, *coarse).
        :param skip: (batch, above, *fine).
        :returns: (batch, above, *fine).
        """
        x = F.interpolate(x, scale_factor=self.scale, mode=self.mode, align_corners=False)
        convolve = {4: F.conv2d, 5: F.conv3d}[x.ndim]
        # the 1 x 1 x 1 convolution of the concatenation, without one: both convolutions of the map are one
        of_map, of_skip = self.align.weight.chunk(2, dim=1)
        weight = (of_map.flatten(1) @ self.conv.weight.flatten(1)).view_as(self.conv.weight)
        bias = of_map.flatten(1) @ self.conv.bias + self.align.bias
        return convolve(x, weight, bias, padding=self.conv.padding).add_(convolve(skip, of_skip))
