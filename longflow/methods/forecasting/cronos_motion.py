"""CRONOS with a motion head: scans move to the target, and what motion cannot explain is added."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longflow.errors import ConfigurationError
from longflow.flow.interpolant import change_weights, joint_weights
from longflow.flow.times import fourier_features
from longflow.methods.batches import Batch
from longflow.methods.forecasting._flow import (
    FREQUENCIES,
    covariate_features,
    planned_frequencies,
    with_covariates,
)
from longflow.methods.method import Method, Options
from longflow.networks.displacement import jacobian_determinant, on_coarse_grid, roughness, warp
from longflow.networks.motion_unet import MotionUNet
from longflow.plans import Plans

#: voxels that an output of 1 moves at most: a wall moves by several voxels, and the outputs begin at zero
GAIN = 4.0


class Stack(NamedTuple):
    """The scans of a batch in the order in which the network sees them; the last one is the nearest before the target.

    :param scans: (batch, scans, channels, *spatial).
    :param offsets: (batch, scans), time of each scan minus that of the target, in units of the time scale. With a
        period the nearest repetition counts, so that they lie within half a period.
    :param mask: (batch, scans), True where a scan was observed.
    :param weights: (batch, scans), with which the scans make the forecast of an untrained network; they sum to 1.
    """

    scans: Tensor
    offsets: Tensor
    mask: Tensor
    weights: Tensor


class Transported(NamedTuple):
    """What a network makes of a batch.

    :param forecast: (batch, channels, *spatial).
    :param moved: the scans that move, at the target, (batch, moving scans, channels, *spatial).
    :param mask: which of these were observed, (batch, moving scans).
    :param velocity: of these, (batch * moving scans, axes, *coarse), in coarse voxels per unit of tau.
    :param displacement: (batch * moving scans, axes, *spatial), in voxels.
    """

    forecast: Tensor
    moved: Tensor
    mask: Tensor
    velocity: Tensor
    displacement: Tensor


class CronosMotion(Method):
    """Transport of the scans nearest to the target by motion, a weight for each scan at each voxel, and a residual.

    A flow of intensities must repaint every edge that moves, so it blurs. Here the path of a scan x_i is the warp along
    tau under a stationary velocity w_i, and intensities change only by a residual r:

        X_tau = x_i o exp(tau w_i),    dX_tau / dtau = w_i . grad X_tau

        forecast = sum_i (a_i + b_i) (x_i o exp(w_i)) + r,    sum_i a_i = 1,    sum_i b_i = 0 at every voxel

    The network predicts w_i, b_i and r at once from all scans and their times; all start at zero. So the forecast
    starts at sum_i a_i x_i: LCI; with a period in the table, the linear interpolation in time between the two scans
    which, shifted by whole periods, surround the target (``periodic``); where scans repeat after a period that is
    inferred, the expected scan (``recurrence``).

    The velocity target is that of CRONOS eq. 5, y - x_i, for the mean over tau of the velocity along this path:
    int_0^1 dX_tau/dtau dtau = X_1 - x_i, so its squared error is |X_1 - y|^2. That is the term ``transport``, averaged
    over the scans that move as eq. 6 is over the stack; the forecast's own squared error is added. w_i is constant
    along its path, so one evaluation is exact and no solver is needed.

    w_i is the network's output times d / (1 + |d|) with d = t_i - t_target, so that nothing moves in no time. It is
    averaged over the blocks of the network's second stage, and integrated there by scaling and squaring.

    ``options``:

    - ``moving``: how many scans move, those nearest to the target. The others, which the network sees, add by their
      weights alone: they are far from the target, and warps are most of the work of a step.
    - ``transport``, ``smoothness``: weights of the transport term, and of the mean squared differences of w between
      neighbouring blocks.
    - ``change_weight``: as of the flow methods, for both squared errors.
    - ``recurrence``: start at the expected scan where scans repeat after an inferred period.
    """

    task = "forecast"
    uses_covariates = True
    summary = "CRONOS with a motion head: scans are warped to the target, and a residual is added"
    options: ClassVar[Options] = {
        "moving": 2,
        "transport": 0.5,
        "smoothness": 0.05,
        "change_weight": 0.0,
        "recurrence": True,
    }

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        moving = self.options["moving"]
        if moving < 1 or min(self.options[name] for name in ("transport", "smoothness", "change_weight")) < 0:
            raise ConfigurationError(
                f"The options of cronos_motion are {self.options}, expected 'moving' of 1 or more, 'transport', "
                "'smoothness' and 'change_weight' of 0 or more."
            )
        self.scans = plans.temporal.sequence_length
        self.expects = self.options["recurrence"] and plans.temporal.period is None
        self.register_buffer("frequencies", planned_frequencies(plans.temporal))
        code_size = self.scans * (2 * FREQUENCIES + 1) + covariate_features(plans)
        self.network = MotionUNet(self.scans, moving, len(plans.channel_names), self.configuration.network, code_size)
        strides = self.configuration.network.strides
        self.block = strides[min(1, len(strides) - 1)]

    def training_step(self, batch: Batch) -> Tensor:
        """Compute the squared errors of the forecast and of each transported scan, and the velocity's roughness."""
        made = self.transport(batch)
        weight = made.mask.to(made.moved.dtype)
        voxels = change_weights(batch.target, batch.context[:, -1], self.options["change_weight"])
        voxels = joint_weights(voxels, batch.weights)
        squares = (made.moved - batch.target.unsqueeze(1)).square()
        errors = (squares if voxels is None else squares * voxels.unsqueeze(1)).flatten(2).mean(2)
        terms = {
            "forecast": F.mse_loss(made.forecast, batch.target, weight=voxels),
            "transport": self.options["transport"] * (errors * weight).sum() / weight.sum(),
            "smoothness": self.options["smoothness"] * roughness(made.velocity),
        }
        self.terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the forecast."""
        made = self.transport(batch)
        self.folded = max(self.folded, (jacobian_determinant(made.displacement) < 0).float().mean().item())
        return {"forecast": made.forecast}

    def transport(self, batch: Batch) -> Transported:
        """Move the scans to the target."""
        stack = stack_of(batch, self.expects)
        observed = _factors(stack.mask, stack.scans)
        velocity, change, residual = self.network(stack.scans * observed, with_covariates(self.code(stack), batch))
        moving = velocity.shape[1]
        near = stack.scans[:, -moving:]
        reach = GAIN * (stack.offsets / (1 + stack.offsets.abs()))[:, -moving:]
        displacement, coarse = on_coarse_grid((velocity * _factors(reach, velocity)).flatten(0, 1), self.block)
        moved = warp(near.flatten(0, 1), displacement).view_as(near)
        # the changes of the weights sum to zero over the observed scans
        change = (change - (change * observed).sum(1, keepdim=True) / observed.sum(1, keepdim=True)) * observed
        weights = _factors(stack.weights, change) + change
        forecast = (weights * torch.cat([stack.scans[:, :-moving], moved], dim=1)).sum(1) + residual
        return Transported(forecast, moved, stack.mask[:, -moving:], coarse, displacement)

    def code(self, stack: Stack) -> Tensor:
        """Make the code of all scans: gamma(t_i - t_target) and whether it was observed; absent first places are zero.

        :param stack: in the network's order.
        :returns: (batch, code size).
        """
        known = stack.mask.unsqueeze(2).to(stack.offsets.dtype)
        code = torch.cat([fourier_features(stack.offsets, self.frequencies) * known, known], dim=2)
        absent = code.new_zeros(code.shape[0], self.scans - code.shape[1], code.shape[2])
        return torch.cat([absent, code], dim=1).flatten(1)


def stack_of(batch: Batch, expected: bool = True) -> Stack:
    """Order the scans of a batch and give each its weight in the forecast of an untrained network.

    Without a period they stay in order of time, and the last one has all the weight (LCI). With one, the last place has
    the scan that, shifted by whole periods, is the nearest before the target, the place before it the nearest after.
    The target lies between both, and their weights interpolate linearly in time. The others are ordered by how near
    they are. Where the batch has the weights of the expected scan, they are the weights; the order stays.

    :param batch: with or without target.
    :param expected: whether these weights are used.
    """
    times, mask, target = batch.context_times.double(), batch.context_mask, batch.target_time.double()
    offsets = times - target.unsqueeze(1)
    order = torch.arange(times.shape[1], device=times.device).expand_as(times).double()
    last = torch.where(mask, order, -1).argmax(1, keepdim=True)
    weights = torch.zeros_like(offsets).scatter(1, last, 1.0)
    if batch.period is not None:
        known, period = batch.period.isfinite().unsqueeze(1), batch.period.double().nan_to_num(1.0).unsqueeze(1)
        of_period = _modulo_period(offsets, mask, period)
        offsets, weights, order = (
            torch.where(known, *both) for both in zip(of_period, (offsets, weights, order), strict=True)
        )
    if expected and batch.recurrence is not None:
        weights = batch.recurrence.to(weights)
    chosen = torch.where(mask, order, -torch.inf).argsort(dim=1, stable=True)
    scans = batch.context[torch.arange(len(chosen), device=chosen.device).unsqueeze(1), chosen]
    offsets, mask, weights = (values.gather(1, chosen) for values in (offsets, mask, weights))
    return Stack(scans, offsets.float() * mask, mask, weights.float())


def _modulo_period(offsets: Tensor, mask: Tensor, period: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute offsets of the nearest repetition, weights and the key of the order; each (batch, scans)."""
    since, until = (torch.where(mask, (sign * offsets) % period, torch.inf) for sign in (-1, 1))
    before, after = since.argmin(1, keepdim=True), until.argmin(1, keepdim=True)
    to_before, to_after = since.gather(1, before), until.gather(1, after)
    between = to_before + to_after
    share = torch.where(between > 0, to_before / between.clamp(min=1e-9), 0.0)
    weights = torch.zeros_like(offsets).scatter(1, after, share).scatter_add(1, before, 1 - share)
    nearest = torch.where(mask, torch.where(since <= until, -since, until), 0.0)
    order = (-nearest.abs()).scatter(1, after, 1.0).scatter(1, before, 2.0)
    return nearest, weights, order


def _factors(values: Tensor, like: Tensor) -> Tensor:
    """Give values (batch, scans) as many axes as a stack has, and its type."""
    return values.to(like.dtype).view(*values.shape, *[1] * (like.ndim - values.ndim))


METHOD = CronosMotion
