"""A U-Net that is conditioned on time in every block of its encoder, in 2D and 3D; the base of further ones.

MFM compares a "UNet" of 104.3 million parameters (table 1) and says nothing else about it. Here it has nnU-Net's plain
topology: two convolutions for each block, the stride in the first of them, concatenated skips. The decoder enlarges by
a 1 x 1 convolution and linear interpolation, which leaves no checkerboard in the image. The time enters as in
TimeResNet, so that a comparison is one of networks and not of time encodings.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.networks.blocks import CONVOLUTIONS, INTERPOLATION, PlainBlock
from longflow.networks.padding import crop_to, pad_to_multiples
from longflow.networks.precision import channels_last
from longflow.networks.time_embedding import TimeEmbedding
from longflow.plans import NetworkPlan


class TimedUNet(nn.Module):
    """Map image and time to a velocity or an image.

    Subclasses may set :attr:`block`, the kind of blocks of encoder and decoder, and :meth:`make_bottleneck`. The
    decoder is not conditioned on time (MFM D.1: "into every block of the encoder").

    :param channels_in: of the image.
    :param channels_out: of the result.
    :param plan: features, strides, kernel sizes; blocks of each stage of the encoder, one where it does not say.
    """

    block: type[PlainBlock] = PlainBlock

    def __init__(self, channels_in: int, channels_out: int, plan: NetworkPlan):
        super().__init__()
        conv = CONVOLUTIONS[plan.dimensions]
        features, strides, kernels = plan.features_per_stage, plan.strides, plan.kernel_sizes
        unit = [1] * plan.dimensions
        code_size = 4 * features[0]
        self.multiples = [math.prod(steps) for steps in zip(*strides, strict=True)]
        self.time = TimeEmbedding(code_size)

        self.encoder = nn.ModuleList()
        blocks = plan.blocks_per_stage or [1] * len(features)
        inputs = channels_in
        for outputs, kernel, stride, count in zip(features, kernels, strides, blocks, strict=True):
            stage = [self.block(conv, inputs, outputs, kernel, stride, code_size)]
            stage += [self.block(conv, outputs, outputs, kernel, unit, code_size) for _ in range(count - 1)]
            self.encoder.append(nn.ModuleList(stage))
            inputs = outputs
        self.bottleneck = nn.ModuleList(self.make_bottleneck(conv, features[-1], kernels[-1], code_size))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for (above, below), kernel in zip(pairwise(features), kernels, strict=False):
            self.up.append(conv(below, above, 1))
            self.decoder.append(self.block(conv, 2 * above, above, kernel, unit))
        self.head = conv(features[0], channels_out, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def make_bottleneck(self, conv: type, features: int, kernel: list[int], code_size: int) -> list[nn.Module]:
        """Make the modules between encoder and decoder; each maps (x, code) to the shape of x. Here there are none."""
        return []

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        """Compute the velocity or image; zero when fresh.

        :param image: (batch, channels_in, *spatial) of any size.
        :param time: (batch,) in [0, 1].
        :returns: (batch, channels_out, *spatial), float32.
        """
        dimensions = image.ndim - 2
        x = pad_to_multiples(image, self.multiples).contiguous(memory_format=channels_last(dimensions))
        code = self.time(time)
        skips = []
        for stage in self.encoder:
            for block in stage:
                x = block(x, code)
            skips.append(x)
        x = skips.pop()
        for module in self.bottleneck:
            x = module(x, code)
        for up, block, skip in zip(reversed(self.up), reversed(self.decoder), reversed(skips), strict=True):
            x = F.interpolate(up(x), skip.shape[2:], mode=INTERPOLATION[dimensions], align_corners=False)
            x = block(torch.cat([x, skip], dim=1))
        return crop_to(self.head(x), image.shape[2:]).float()
