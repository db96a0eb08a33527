"""Discrete CRONOS: scans on a regular grid, gaps filled by the last observation (eq. 8, 12-21, algorithm 2)."""

from torch import Tensor

from longflow.flow.grid import embed_on_grid, fill_forward, grid_slots
from longflow.flow.times import fourier_features, time_frequencies
from longflow.methods.forecasting._flow import FREQUENCIES, FlowMethod
from longflow.methods.method import Batch
from longflow.plans import Plans

#: flow steps this far apart are told apart
SMALLEST_STEP = 0.05


class CronosDiscrete(FlowMethod):
    """Discrete CRONOS.

    The network is told of the flow step tau alone; order and gaps of the scans are in their places on the grid, whose
    spacing and length were planned from the dataset.
    """

    summary = "discrete CRONOS: scans on a regular grid, gaps filled by the last observation"

    def __init__(self, plans: Plans, configuration: str):
        grid = plans.temporal.grid
        super().__init__(plans, configuration, scans=grid.length, code_size=2 * FREQUENCIES)
        self.grid_length = grid.length
        self.grid_spacing = grid.spacing / plans.temporal.time_scale
        self.register_buffer("frequencies", time_frequencies(SMALLEST_STEP, 1.0, FREQUENCIES))

    def stack(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """X_0 = LOCF(embed(scans)) (eq. 8); every slot counts."""
        slots = grid_slots(batch.context_times, batch.target_time, self.grid_spacing, self.grid_length)
        embedded, occupied = embed_on_grid(batch.context, slots, batch.context_mask, self.grid_length)
        return fill_forward(embedded, occupied), occupied.new_ones(occupied.shape)

    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """gamma(tau)."""
        return fourier_features(tau, self.frequencies)


METHOD = CronosDiscrete
