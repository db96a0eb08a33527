"""SimVP (Gao et al. 2022): convolutions alone, time folded into channels (TFM section 3, CRONOS table 2)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from longflow.methods.batches import Batch
from longflow.methods.forecasting._direct import DirectMethod, scans_on_grid
from longflow.networks.padding import same_padding
from longflow.networks.precision import GroupNorm, channels_last, guard_convolutions
from longflow.plans import NetworkPlan, Plans

#: numbers of SimVP's authors: kernels and groups of an Inception module, groups elsewhere, slope of the activation
KERNELS, GROUPS, NORM_GROUPS, SLOPE = (3, 5, 7, 11), 8, 2, 0.2
#: Inception modules of each half of the translator; its authors' code has eight in all, in 2D
DEPTH = 4
#: features of all scans together at full resolution, over those of the plan's first stage
WIDTH = 4
#: fewest features of a scan
FEWEST = 4


class SimVP(DirectMethod):
    """Encoder of single scans, translator of all scans at once, decoder of the target.

    The network sees the planned grid with zeros in empty slots (:func:`scans_on_grid`), and no times.
    """

    summary = "SimVP: convolutions over scans on a regular grid, time folded into channels"

    def __init__(self, plans: Plans, configuration: str):
        super().__init__(plans, configuration)
        plan = self.configuration
        self.network = SimVPNetwork(plans.temporal.grid.length, len(plans.channel_names), plan.network, plan.patch_size)

    def forecast(self, batch: Batch) -> Tensor:
        """Predict the target from the scans on the grid."""
        return self.network(scans_on_grid(batch, self.plans)[0])


class SimVPNetwork(nn.Module):
    """Map a stack of scans to one image.

    Blocks and translator are those of the authors' code; TFM "extends to 3D" their 2D. Where it and CRONOS leave room,
    this was decided:

    - There is one target, and not as many frames as were given. The translator ends in the features of one image. The
      first layer's features of all scans, which each frame's decoder sees in the original, all reach the one decoder.
    - Strides, kernels and number of scales are the plan's, as are features from the translator on. A scan's own
    features grow with the plan's from a number that keeps all scans together at ``WIDTH`` times the plan's first
    stage. At full resolution, which takes most of the memory, many scans cannot each have the 16 features of the
    authors' 2D frames.
    - An Inception module has no kernel wider than the map that it sees. The translator has half of the authors' depth,
      because a kernel of 11 has eleven times the weights in 3D.

    :param scans: of a stack.
    :param channels: of an image.
    :param plan: features, strides, kernel sizes.
    :param patch_size: of the images, divisible by the strides.
    """

    def __init__(self, scans: int, channels: int, plan: NetworkPlan, patch_size: Sequence[int]):
        super().__init__()
        features, strides, kernels = plan.features_per_stage, plan.strides, plan.kernel_sizes
        conv, transposed = {2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}[plan.dimensions]
        narrow = scan_features(scans, features)

        self.encoder = nn.ModuleList()
        for (above, below), kernel, stride in zip(pairwise([channels, *narrow]), kernels, strides, strict=True):
            self.encoder.append(_normalized(conv(above, below, kernel, stride, same_padding(kernel)), NORM_GROUPS))
        coarse = [size // math.prod(steps) for size, *steps in zip(patch_size, *strides, strict=True)]
        self.translator = SpatiotemporalTranslator(conv, scans * narrow[-1], features[-1], coarse)
        self.decoder = nn.ModuleList()
        for (below, above), kernel, stride in zip(
            pairwise(features[::-1]), kernels[:0:-1], strides[:0:-1], strict=True
        ):
            # an axis that keeps its size needs no kernel, whose gradient can be wrong in bf16 on a CPU
            kernel = [size if step > 1 else 1 for size, step in zip(kernel, stride, strict=True)]
            lost = [step - 1 for step in stride]  # voxels that a stride cuts off at the end of a map
            layer = transposed(below, above, kernel, stride, same_padding(kernel), lost)
            self.decoder.append(_normalized(layer, NORM_GROUPS))
        both = conv(features[0] + scans * narrow[0], features[0], kernels[0], padding=same_padding(kernels[0]))
        self.last = _normalized(both, NORM_GROUPS)
        self.readout = conv(features[0], channels, 1)
        guard_convolutions(self)

    def forward(self, stack: Tensor) -> Tensor:
        """Predict the image.

        :param stack: (batch, scans, channels, *spatial).
        :returns: (batch, channels, *spatial), float32.
        """
        x = stack.flatten(0, 1).contiguous(memory_format=channels_last(stack.ndim - 3))
        maps = []
        for layer in self.encoder:
            x = layer(x)
            maps.append(x)
        x = self.translator(torch.cat(_of_each_scan(maps[-1], len(stack)), dim=1))
        for layer in self.decoder:
            x = layer(x)
        x = self.last(torch.cat([x, *_of_each_scan(maps[0], len(stack))], dim=1))
        return self.readout(x).float()


class SpatiotemporalTranslator(nn.Module):
    """Apply Inception modules one after the other; those of the second half also see outputs of the first half.

    :param inputs: channels of all scans.
    :param features: of every module.
    :param size: of the map.
    """

    def __init__(self, conv: type, inputs: int, features: int, size: Sequence[int]):
        super().__init__()
        self.inward = nn.ModuleList(
            Inception(conv, features if module else inputs, features, size) for module in range(DEPTH)
        )
        self.outward = nn.ModuleList(
            Inception(conv, 2 * features if module else features, features, size) for module in range(DEPTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Translate a map.

        :param x: (batch, inputs, *spatial).
        :returns: (batch, features, *spatial).
        """
        skips = []
        for module in self.inward:
            x = module(x)
            skips.append(x)
        x = self.outward[0](skips.pop())
        for module in self.outward[1:]:
            x = module(torch.cat([x, skips.pop()], dim=1))
        return x


class Inception(nn.Module):
    """Convolve single voxels to half of the features, then add up grouped convolutions with several kernels.

    :param size: of the map; kernels that would all be cut to the same one become one.
    """

    def __init__(self, conv: type, inputs: int, features: int, size: Sequence[int]):
        super().__init__()
        inner = max(1, features // 2)
        groups = math.gcd(GROUPS, inner, features)
        self.squeeze = conv(inputs, inner, 1)
        self.branches = nn.ModuleList(
            _normalized(conv(inner, features, kernel, padding=same_padding(kernel), groups=groups), groups)
            for kernel in inception_kernels(size)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the module.

        :param x: (batch, inputs, *spatial).
        :returns: (batch, features, *spatial).
        """
        x = self.squeeze(x)
        return sum(branch(x) for branch in self.branches)


def scan_features(scans: int, features: Sequence[int]) -> list[int]:
    """Choose a scan's features at each stage: even, and for all scans at most ``WIDTH`` times those of the first stage.

    >>> scan_features(8, [16, 16, 32, 64]), scan_features(2, [16, 16, 32, 64]), scan_features(40, [16, 16, 32, 64])
    ([8, 8, 16, 32], [16, 16, 32, 64], [4, 4, 8, 16])
    """
    finest = max(FEWEST, min(features[0], WIDTH * features[0] // scans) // 2 * 2)
    return [finest * stage // features[0] // 2 * 2 for stage in features]


def inception_kernels(size: Sequence[int]) -> list[tuple[int, ...]]:
    """Cut the authors' kernels to the map along each axis, without repetitions.

    Along two voxels a kernel has three. Wider ones would see nothing more, and on a CPU their gradients can be wrong in
    bf16, where a map has fewer slices than a kernel.

    >>> inception_kernels([4, 12])
    [(3, 3), (3, 5), (3, 7), (3, 11)]

    :param size: of the map.
    """
    widest = [edge if edge % 2 else max(3, edge - 1) for edge in size]
    return list(dict.fromkeys(tuple(min(kernel, edge) for edge in widest) for kernel in KERNELS))


def _normalized(convolution: nn.Module, groups: int) -> nn.Sequential:
    """Append GroupNorm and leaky ReLU to a convolution."""
    features = convolution.out_channels
    return nn.Sequential(
        convolution, GroupNorm(math.gcd(groups, features), features), nn.LeakyReLU(SLOPE, inplace=True)
    )


def _of_each_scan(maps: Tensor, batch: int) -> tuple[Tensor, ...]:
    """Split (batch * scans, features, *spatial) into (batch, features, *spatial) of each scan."""
    return maps.unflatten(0, (batch, -1)).unbind(1)


METHOD = SimVP
