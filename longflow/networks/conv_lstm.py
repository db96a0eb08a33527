"""Convolutional LSTM (SHI et al. 2015) in layers of growing scale, with encoder and decoder, in 2D and 3D.

SHI et al. cut frames into cells of 2 x 2 or 4 x 4 pixels, whose pixels are channels. Here a convolution with the plan's
first stride does that, and the first layer has the features of the stage that begins there. At full resolution it would
keep eight maps of its features for every scan until the backward pass: more than 20 GB for 32 features, 11 scans of 32
x 128 x 128 and a batch of 4. There is one layer for every stage of the plan from there on, so that the network has
about as many weights as the U-Net of CRONOS. Each layer sees the hidden state of the finer one, divided by the stride
of its stage (SHI et al. 2017, section 3.1). Where the first stride keeps the slices, or scans are many, the layers
would take more memory than a step of CRONOS, for which patches are planned. So each scan's step is computed a second
time in the backward pass (:func:`without_keeping`).
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

#: hidden state and cell of each layer, finest first, (batch, features, *spatial) each
States = tuple[Tensor, ...]


class ConvLSTMCell(nn.Module):
    """Compute one step of an LSTM whose products are convolutions (SHI et al., eq. 3).

    There are no weights by which gates see the cell itself ("peepholes"). They are one for every position, and would
    differ from place to place in images that are read as patches. The forget gate starts open, with a bias of 1.

    :param conv: kind of convolution.
    :param inputs: channels of the input.
    :param features: channels of the state.
    :param kernel: size along each axis.
    :param stride: by which the input is divided; None: it has the size of the state.
    """

    def __init__(self, conv: type, inputs: int, features: int, kernel: list[int], stride: list[int] | None = None):
        super().__init__()
        self.seen = conv(inputs, 4 * features, kernel, stride or 1, same_padding(kernel))
        self.before = conv(features, 4 * features, kernel, padding=same_padding(kernel), bias=False)
        with torch.no_grad():
            self.seen.bias[features : 2 * features].fill_(1)

    def forward(self, x: Tensor, state: States) -> States:
        """Compute the state after a step.

        :param x: (batch, inputs, *spatial).
        :param state: hidden state and cell before the step.
        :returns: both after it.
        """
        hidden, cell = state
        enter, keep, show, new = (self.seen(x) + self.before(hidden)).chunk(4, dim=1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell


class ConvLSTMLayers(nn.Module):
    """Compute one step of the layers: one for each stage from :func:`recurrent_stage` on.

    :param plan: features, strides, kernel sizes.
    """

    def __init__(self, plan: NetworkPlan):
        super().__init__()
        conv, first = CONVOLUTIONS[plan.dimensions], recurrent_stage(plan)
        features, kernels = plan.features_per_stage, plan.kernel_sizes
        self.features, self.strides = features[first:], plan.strides[first + 1 :]
        self.cells = nn.ModuleList([ConvLSTMCell(conv, features[first], features[first], kernels[first])])
        for stage in range(first + 1, len(features)):
            cell = ConvLSTMCell(conv, features[stage - 1], features[stage], kernels[stage], plan.strides[stage])
            self.cells.append(cell)

    def fresh_states(self, like: Tensor) -> States:
        """Return the states before the first scan, zeros.

        :param like: what the first layer sees, (batch, features, *spatial).
        :returns: the states.
        """
        size, states = like.shape[2:], []
        for features, stride in zip(self.features, [[1] * len(size), *self.strides], strict=True):
            size = [-(-length // step) for length, step in zip(size, stride, strict=True)]
            states += [like.new_zeros(len(like), features, *size), like.new_zeros(len(like), features, *size)]
        return tuple(states)

    def forward(self, x: Tensor, states: States) -> States:
        """Compute the states after a step.

        :param x: an encoded scan, (batch, features, *spatial).
        :param states: before the step.
        :returns: the states after it.
        """
        after: list[Tensor] = []
        for cell, hidden, memory in zip(self.cells, states[::2], states[1::2], strict=True):
            x, memory = cell(x, (hidden, memory))
            after += [x, memory]
        return tuple(after)


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


class StateDecoder(nn.Module):
    """Decode the hidden states: from the coarsest on, each is enlarged, concatenated with the finer one and convolved.

    :param channels: of a scan.
    :param plan: features, strides, kernel sizes.
    """

    def __init__(self, channels: int, plan: NetworkPlan):
        super().__init__()
        conv, first = CONVOLUTIONS[plan.dimensions], recurrent_stage(plan)
        self.mode = INTERPOLATION[plan.dimensions]
        self.scales = [tuple(float(step) for step in stride) for stride in plan.strides[first + 1 :]]
        self.joins = nn.ModuleList()
        for stage in range(first, len(plan.strides) - 1):
            above, below = plan.features_per_stage[stage : stage + 2]
            kernel = plan.kernel_sizes[stage]
            self.joins.append(conv(above + below, above, kernel, padding=same_padding(kernel)))
        self.scan = ScanDecoder(channels, plan)

    def forward(self, states: States) -> Tensor:
        """Decode the states.

        :param states: of all layers.
        :returns: (batch, channels, *spatial), float32.
        """
        *finer, x = states[::2]
        for join, scale, hidden in zip(reversed(self.joins), reversed(self.scales), reversed(finer), strict=True):
            x = F.interpolate(x, scale_factor=scale, mode=self.mode, align_corners=False)
            x = F.silu(join(torch.cat([hidden, x], dim=1)))
        return self.scan(x)


def recurrent_stage(plan: NetworkPlan) -> int:
    """Return the stage of the first layer: the second, where the first stride is; the first, if there is no other."""
    return min(1, len(plan.strides) - 1)


def where_seen(seen: Tensor, after: States, before: States) -> States:
    """Return the states after a step for samples with a scan at this place, those before it for the others.

    :param seen: (batch,), True where there is a scan.
    :param after: the states after the step.
    :param before: the states before the step.
    :returns: the states of every sample.
    """
    where = seen.view(-1, *[1] * (after[0].ndim - 1))
    return tuple(torch.where(where, one, other) for one, other in zip(after, before, strict=True))


def without_keeping(step: Callable[..., States], *inputs: Tensor) -> States:
    """Compute ``step(*inputs)``; for the gradient only its inputs are kept, and the step is computed again.

    :param step: must not draw random numbers.
    :returns: the result of the step.
    """
    if not torch.is_grad_enabled():
        return step(*inputs)
    return checkpoint(step, *inputs, use_reentrant=False, preserve_rng_state=False)
