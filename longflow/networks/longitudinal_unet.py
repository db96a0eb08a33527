"""An nnU-Net U-Net that compares a scan with the subject's other scans, at every scale of its encoder.

The idea is LongiSeg's difference weighting: features of another scan enter as differences. The form is another one. Any
number of scans is compared, before and after the scan. The time between them enters by FiLM. The mean of what is found
is added to the features through a convolution that starts at zero. Without another scan nothing is added, so that the
network is exactly the U-Net.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.flow.times import fourier_features
from longflow.networks.blocks import CONVOLUTIONS, GROUPS, film_residual
from longflow.networks.precision import GroupNorm
from longflow.networks.unet import UNet
from longflow.plans import NetworkPlan

#: length of the code of a time
CODE_SIZE = 64


class LongitudinalUNet(UNet):
    """A U-Net whose encoder features are compared with those of other scans. ``self.unet`` is that of :class:`UNet`.

    :param in_channels: of the image.
    :param outputs: classes or regions.
    :param plan: features, strides, kernel sizes, encoder, blocks.
    :param frequencies: of the times of other scans, (count,), in turns per unit of time.
    """

    def __init__(self, in_channels: int, outputs: int, plan: NetworkPlan, frequencies: Tensor):
        super().__init__(in_channels, outputs, plan)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.code = nn.Sequential(nn.Linear(2 * len(frequencies), CODE_SIZE), nn.SiLU())
        conv = CONVOLUTIONS[plan.dimensions]
        self.comparisons = nn.ModuleList(Comparison(conv, features, CODE_SIZE) for features in plan.features_per_stage)

    def forward(
        self, image: Tensor, others: Tensor | None = None, times: Tensor | None = None, used: Tensor | None = None
    ) -> list[Tensor]:
        """Compute logits.

        :param image: (batch, in_channels, *spatial).
        :param others: (batch, scans, in_channels, *spatial), aligned with the image; None: there are none.
        :param times: (batch, scans), of the others since the image, negative before it.
        :param used: (batch, scans), False where a scan is missing or must not be looked at.
        :returns: (batch, outputs, *spatial of the scale), finest first, float32.
        """
        return self.logits(self.decode(self.compared(image, others, times, used)))

    def finest(
        self, image: Tensor, others: Tensor | None = None, times: Tensor | None = None, used: Tensor | None = None
    ) -> Tensor:
        """Compute the finest output alone: (batch, outputs, *spatial), float32; parameters as of :meth:`forward`."""
        return self.finest_of(self.decode(self.compared(image, others, times, used)))

    def compared(self, image: Tensor, others: Tensor | None, times: Tensor | None, used: Tensor | None) -> list[Tensor]:
        """Compute the output of every encoder stage, with what the other scans add to it."""
        own = self.encode(image)
        # in training all weights take part in each step, as distributed training needs it
        if others is None or not others.shape[1] or not (self.training or used.any()):
            return own
        weights = used.to(image.dtype) / used.sum(1, keepdim=True).clamp(min=1)
        codes = self.code(fourier_features(times.float(), self.frequencies))
        differences: list[Tensor | int] = [0] * len(own)
        for scan in range(others.shape[1]):
            weight = weights[:, scan].view(-1, *[1] * (image.ndim - 1))
            for stage, (comparison, mine, other) in enumerate(
                zip(self.comparisons, own, self.encode(others[:, scan]), strict=True)
            ):
                differences[stage] = differences[stage] + weight * comparison(mine, other, codes[:, scan])
        return [
            mine + comparison.added(difference)
            for comparison, mine, difference in zip(self.comparisons, own, differences, strict=True)
        ]


class Comparison(nn.Module):
    """Compare two feature maps of one place; the time between them enters by FiLM.

    :param conv: kind of convolution.
    :param features: of the maps, a multiple of 8.
    :param code_size: length of the code of the time.
    """

    def __init__(self, conv: type, features: int, code_size: int):
        super().__init__()
        self.both = conv(2 * features, features, 1)
        self.norm = GroupNorm(GROUPS, features)
        self.film = nn.Linear(code_size, 2 * features)
        self.added = conv(features, features, 1, bias=False)
        nn.init.zeros_(self.added.weight)

    def forward(self, own: Tensor, other: Tensor, code: Tensor) -> Tensor:
        """Compare.

        :param own: (batch, features, *spatial).
        :param other: likewise.
        :param code: (batch, code_size).
        :returns: the shape of ``own``, to be averaged over scans and given to ``added``.
        """
        h = self.both(torch.cat([own - other, other], 1))
        gain, shift = self.film(code).chunk(2, dim=1)
        return F.silu(film_residual(h, self.norm, 1 + gain, shift))
