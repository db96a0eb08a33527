"""Convolutional LSTM (SHI et al. 2015) at a coarser scale, with its encoder and decoder, in 2D and 3D.

SHI et al. cut frames into cells of 2 x 2 or 4 x 4 pixels, whose pixels are channels. Here a convolution with the plan's
first stride does that, and the LSTM has the features of the stage that begins there. At full resolution it would keep
eight maps of its features for every scan until the backward pass: more than 20 GB for 32 features, 11 scans of 32 x 128
x 128 and a batch of 4. At half the resolution that is 4.4 GB in all (CRONOS table 8: 3.5). But where the first stride
keeps the slices, or scans are many, it is still more than a step of CRONOS, for which patches are planned. So each
scan's step is computed a second time in the backward pass (:func:`without_keeping`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longflow.networks.blocks import CONVOLUTIONS, INTERPOLATION
from longflow.networks.padding import same_padding
from longflow.networks.precision import channels_last
from longflow.plans import NetworkPlan

#: hidden state and cell, (batch, features, *spatial) each
State = tuple[Tensor, Tensor]


class ConvLSTMCell(nn.Module):
    """Compute one step of an LSTM whose products are convolutions (SHI et al., eq. 3).

    There are no weights by which gates see the cell itself ("peepholes"). They are one for every position, and would
    differ from place to place in images that are read as patches. The forget gate starts open, with a bias of 1.

    :param conv: kind of convolution.
    :param inputs: channels of the input.
    :param features: channels of the state.
    :param kernel: size along each axis.
    """

    def __init__(self, conv: type, inputs: int, features: int, kernel: list[int]):
        super().__init__()
        self.seen = conv(inputs, 4 * features, kernel, padding=same_padding(kernel))
        self.before = conv(features, 4 * features, kernel, padding=same_padding(kernel), bias=False)
        with torch.no_grad():
            self.seen.bias[features : 2 * features].fill_(1)

    def forward(self, x: Tensor, state: State) -> State:
        """Compute the state after a step.

        :param x: (batch, inputs, *spatial).
        :param state: before the step.
        :returns: the state after it.
        """
        hidden, cell = state
        enter, keep, show, new = (self.seen(x) + self.before(hidden)).chunk(4, dim=1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell


class ScanEncoder(nn.Module):
    """Encode scans as maps at the plan's second stage: a convolution with its stride, and SiLU.

    There is no normalisation: the overall brightness of a scan would be lost.

    :param channels: of a scan.
    :param plan: features, strides, kernel sizes.
    """

    def __init__(self, channels: int, plan: NetworkPlan):
        super().__init__()
        stage = recurrent_stage(plan)
        kernel = plan.kernel_sizes[stage]
        self.conv = CONVOLUTIONS[plan.dimensions](
            channels, plan.features_per_stage[stage], kernel, plan.strides[stage], same_padding(kernel)
        )

    def forward(self, scans: Tensor) -> Tensor:
        """Encode every scan.

        :param scans: (batch, scans, channels, *spatial).
        :returns: (batch, scans, features, *coarse).
        """
        x = scans.flatten(0, 1).contiguous(memory_format=channels_last(scans.ndim - 3))
        return F.silu(self.conv(x)).unflatten(0, scans.shape[:2])


class ScanDecoder(nn.Module):
    """Decode a state: linear interpolation by the stride, convolution to the first stage's features, SiLU, 1 x 1.

    :param channels: of a scan.
    :param plan: features, strides, kernel sizes.
    """

    def __init__(self, channels: int, plan: NetworkPlan):
        super().__init__()
        stage = recurrent_stage(plan)
        features, kernel = plan.features_per_stage, plan.kernel_sizes[0]
        conv = CONVOLUTIONS[plan.dimensions]
        self.mode = INTERPOLATION[plan.dimensions]
        self.scale = tuple(float(step) for step in plan.strides[stage])
        self.conv = conv(features[stage], features[0], kernel, padding=same_padding(kernel))
        self.readout = conv(features[0], channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Decode a hidden state.

        :param hidden: (batch, features, *coarse).
        :returns: (batch, channels, *spatial), float32.
        """
        x = F.interpolate(hidden, scale_factor=self.scale, mode=self.mode, align_corners=False)
        return self.readout(F.silu(self.conv(x))).float()


def recurrent_stage(plan: NetworkPlan) -> int:
    """Return the stage of the states: the second, where the first stride is; the first, where there is no other."""
    return min(1, len(plan.strides) - 1)


def fresh_state(like: Tensor) -> State:
    """Return the state before the first scan: zeros of the shape of ``like``."""
    return torch.zeros_like(like), torch.zeros_like(like)


def where_seen(seen: Tensor, after: State, before: State) -> State:
    """Return the state after a step for samples with a scan at this place, the state before it for the others.

    :param seen: (batch,), True where there is a scan.
    :param after: the state after the step.
    :param before: the state before the step.
    :returns: the state of every sample.
    """
    where = seen.view(-1, *[1] * (after[0].ndim - 1))
    return torch.where(where, after[0], before[0]), torch.where(where, after[1], before[1])


def without_keeping(step: Callable[..., State], *inputs: Tensor) -> State:
    """Compute ``step(*inputs)``; for the gradient only its inputs are kept, and the step is computed again.

    :param step: must not draw random numbers.
    :returns: the result of the step.
    """
    if not torch.is_grad_enabled():
        return step(*inputs)
    return checkpoint(step, *inputs, use_reentrant=False, preserve_rng_state=False)
