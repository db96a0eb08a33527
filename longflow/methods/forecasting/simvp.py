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
#: Inception modules on the way in, and as many on the way out; its authors' code has eight, in 2D
DEPTH = 4
#: features that all scans together have at full resolution, over those of the plan's first stage
WIDTH = 4
#: a scan has no fewer
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
        """The target from the scans on the grid."""
        return self.network(scans_on_grid(batch, self.plans)[0])


class SimVPNetwork(nn.Module):
    """A stack of scans to one image.

    Blocks and translator are those of the authors' code; TFM "extends to 3D" what is 2D there. What it and CRONOS
    leave open, and how it was closed:

    - One target is wanted, and not as many frames as were given: the translator ends in the features of one image, and
      the first layer's features of all scans, which each frame's decoder sees there, all reach the one decoder.
    - Strides, kernels and number of scales are the plan's, as are features from the translator on. A scan's own
      features grow with the plan's from a number that keeps all scans together at ``WIDTH`` times the plan's first
      stage: at full resolution, where all the memory is, no scan of many can have the 16 of the authors' 2D frames.
    - An Inception module has no kernel wider than the map that it sees. The translator has half of the authors' depth,
      because a kernel of 11 has eleven times the weights in 3D.

    :param scans: that a stack holds. :param channels: of an image. :param plan: features, strides, kernel sizes.
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
        self.translator = Translator(conv, scans * narrow[-1], features[-1], coarse)
        self.decoder = nn.ModuleList()
        for (below, above), kernel, stride in zip(
            pairwise(features[::-1]), kernels[:0:-1], strides[:0:-1], strict=True
        ):
            # along an axis that keeps its size there is nothing to do, and on a CPU its gradient can be wrong in bf16
            kernel = [size if step > 1 else 1 for size, step in zip(kernel, stride, strict=True)]
            lost = [step - 1 for step in stride]  # what a stride cuts off at the end of a map
            layer = transposed(below, above, kernel, stride, same_padding(kernel), lost)
            self.decoder.append(_normalized(layer, NORM_GROUPS))
        both = conv(features[0] + scans * narrow[0], features[0], kernels[0], padding=same_padding(kernels[0]))
        self.last = _normalized(both, NORM_GROUPS)
        self.readout = conv(features[0], channels, 1)
        guard_convolutions(self)

    def forward(self, stack: Tensor) -> Tensor:
        """(batch, scans, channels, *spatial) to (batch, channels, *spatial), float32."""
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


class Translator(nn.Module):
    """Inception modules one after the other; each of the second half also sees what one of the first half made.

    :param inputs: channels, of all scans. :param features: of all that follows. :param size: of the map.
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
        """(batch, inputs, *spatial) to (batch, features, *spatial)."""
        skips = []
        for module in self.inward:
            x = module(x)
            skips.append(x)
        x = self.outward[0](skips.pop())
        for module in self.outward[1:]:
            x = module(torch.cat([x, skips.pop()], dim=1))
        return x


class Inception(nn.Module):
    """A convolution of single voxels to half of the features, then the sum of grouped ones with several kernels.

    :param size: of the map; kernels that would all be cut to the same one are one.
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
        """(batch, inputs, *spatial) to (batch, features, *spatial)."""
        x = self.squeeze(x)
        return sum(branch(x) for branch in self.branches)


def scan_features(scans: int, features: Sequence[int]) -> list[int]:
    """Features of a scan at each stage: even, and of all scans ``WIDTH`` times those of the first stage at most.

    >>> scan_features(8, [16, 16, 32, 64]), scan_features(2, [16, 16, 32, 64]), scan_features(40, [16, 16, 32, 64])
    ([8, 8, 16, 32], [16, 16, 32, 64], [4, 4, 8, 16])
    """
    finest = max(FEWEST, min(features[0], WIDTH * features[0] // scans) // 2 * 2)
    return [finest * stage // features[0] // 2 * 2 for stage in features]


def inception_kernels(size: Sequence[int]) -> list[tuple[int, ...]]:
    """The authors' kernels, cut to the map along each axis, without repetitions.

    Along two voxels a kernel has three. Wider ones would see nothing more, and on a CPU their gradients can be wrong in
    bf16, where a map has fewer slices than a kernel.

    >>> inception_kernels([4, 12])
    [(3, 3), (3, 5), (3, 7), (3, 11)]

    :param size: of the map.
    """
    widest = [edge if edge % 2 else max(3, edge - 1) for edge in size]
    return list(dict.fromkeys(tuple(min(kernel, edge) for edge in widest) for kernel in KERNELS))


def _normalized(convolution: nn.Module, groups: int) -> nn.Sequential:
    """Convolution, GroupNorm, leaky ReLU."""
    features = convolution.out_channels
    return nn.Sequential(
        convolution, GroupNorm(math.gcd(groups, features), features), nn.LeakyReLU(SLOPE, inplace=True)
    )


def _of_each_scan(maps: Tensor, batch: int) -> tuple[Tensor, ...]:
    """(batch * scans, features, *spatial) to (batch, features, *spatial) of each scan."""
    return maps.unflatten(0, (batch, -1)).unbind(1)


METHOD = SimVP
