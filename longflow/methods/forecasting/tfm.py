"""Temporal Flow Matching (TFM, sections 2.3 and 2.4, algorithm 1)."""

import math

import torch
from torch import Tensor

from longflow.flow.grid import embed_on_grid, fill_forward, grid_slots
from longflow.methods.forecasting._flow import FlowMethod
from longflow.methods.method import Batch
from longflow.plans import Plans

CODE_SIZE = 64
LONGEST_PERIOD = 10_000
STEPS_OF_TAU = 1000


class TemporalFlowMatching(FlowMethod):
    """TFM: the context padded to a set length, every missing place filled with the nearest earlier scan.

    Places before the first scan take the earliest one (section 2.4). Places are the slots of the planned grid, the
    "time axis" in which irregular sampling leaves holes. The paper uses TorchCFM's U-Net, where cross-attention joins
    time and features, and finds that a lighter network does as well (table 3); here it is the FiLM U-Net of CRONOS
    with the sinusoidal embedding of tau that diffusion U-Nets have.
    """

    summary = "Temporal Flow Matching: filled sequence of a set length"

    def __init__(self, plans: Plans, configuration: str):
        grid = plans.temporal.grid
        super().__init__(plans, configuration, scans=grid.length, code_size=CODE_SIZE)
        self.grid_length = grid.length
        self.grid_spacing = grid.spacing / plans.temporal.time_scale

    def stack(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """X_0 with every hole filled; every place counts."""
        slots = grid_slots(batch.context_times, batch.target_time, self.grid_spacing, self.grid_length)
        embedded, occupied = embed_on_grid(batch.context, slots, batch.context_mask, self.grid_length)
        return fill_forward(embedded, occupied), occupied.new_ones(occupied.shape)

    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """The sinusoidal embedding of tau, which counts as steps of a thousandth."""
        return sinusoidal_embedding(tau * STEPS_OF_TAU, CODE_SIZE)


def sinusoidal_embedding(values: Tensor, size: int) -> Tensor:
    """[cos(w_i v), sin(w_i v)] with w_i falling geometrically from 1 to about 1 / 10000 (Vaswani et al. 2017).

    :param values: (batch,). :param size: even. :returns: (batch, size).
    """
    half = size // 2
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=values.device) / half)
    angles = values.unsqueeze(1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


METHOD = TemporalFlowMatching
