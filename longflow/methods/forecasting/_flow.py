"""What the flow methods share: transport of a stack of context scans to the broadcast target."""

from abc import abstractmethod

import torch
from torch import Tensor

from longflow.flow.grid import embed_on_grid, fill_forward, grid_slots
from longflow.flow.interpolant import broadcast_target, interpolate, velocity, velocity_loss
from longflow.flow.masks import as_weights
from longflow.flow.reduction import REDUCTIONS, reduce_scans
from longflow.flow.solvers import integrate
from longflow.methods.method import Batch, Method
from longflow.networks.film_unet import FiLMUNet
from longflow.plans import Plans

FREQUENCIES = 16


class FlowMethod(Method):
    """Flow matching from the context to the target of the same subject (CRONOS algorithms 1 and 2; TFM algorithm 1).

    The coupling is paired: every stack is transported to its own subject's target. Subclasses say how a stack is made
    of a batch (:meth:`stack`) and what the network is told of time (:meth:`code`).

    :param scans: most scans that a stack holds. :param code_size: length of the conditioning code.
    """

    task = "forecast"
    reductions = REDUCTIONS
    integrates = True

    def __init__(self, plans: Plans, configuration: str, scans: int, code_size: int):
        super().__init__(plans, configuration)
        channels = scans * len(plans.channel_names)
        self.network = FiLMUNet(channels, self.configuration.network, code_size)

    @abstractmethod
    def stack(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """X_0, (batch, scans, channels, *spatial), and which of its scans count, (batch, scans)."""

    @abstractmethod
    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """The conditioning code at flow steps ``tau`` (batch,): (batch, code_size)."""

    def velocity(self, batch: Batch, stack: Tensor, mask: Tensor, tau: Tensor) -> Tensor:
        """v_theta(X_tau), of the shape of ``stack``; the network sees zeros where ``mask`` is False."""
        observed = stack * as_weights(mask, stack)
        return self.network(observed.flatten(1, 2), self.code(batch, tau)).view_as(stack)

    def training_step(self, batch: Batch) -> Tensor:
        """One draw of tau per sample; the mean squared error of the velocity (CRONOS eq. 4-6, sigma = 0)."""
        start, mask = self.stack(batch)
        end = broadcast_target(batch.target, start.shape[1])
        tau = torch.rand(start.shape[0]).to(start.device)
        predicted = self.velocity(batch, interpolate(start, end, tau), mask, tau)
        return velocity_loss(predicted, velocity(start, end), mask)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """The stack integrated to tau = 1 (CRONOS eq. 10), under both reductions."""
        start, mask = self.stack(batch)

        def field(tau: Tensor, stack: Tensor) -> Tensor:
            return self.velocity(batch, stack, mask, tau.expand(stack.shape[0]))

        return reduce_scans(integrate(field, start, self.solver, self.steps), mask)


class GridFlowMethod(FlowMethod):
    """A flow whose stack is the planned temporal grid, every empty slot filled with the nearest earlier scan.

    :param code_size: length of the conditioning code.
    """

    def __init__(self, plans: Plans, configuration: str, code_size: int):
        grid = plans.temporal.grid
        super().__init__(plans, configuration, scans=grid.length, code_size=code_size)
        self.grid_length = grid.length
        self.grid_spacing = grid.spacing / plans.temporal.time_scale

    def stack(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """X_0 = LOCF(embed(scans)) (CRONOS eq. 8; TFM section 2.4); every slot counts."""
        slots = grid_slots(batch.context_times, batch.target_time, self.grid_spacing, self.grid_length)
        embedded, occupied = embed_on_grid(batch.context, slots, batch.context_mask, self.grid_length)
        return fill_forward(embedded, occupied), torch.ones_like(occupied)
