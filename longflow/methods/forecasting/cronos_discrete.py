"""Discrete CRONOS: scans on a regular grid, gaps filled by the last observation (eq. 8, 12-21, algorithm 2)."""

from torch import Tensor

from longflow.flow.times import fourier_features, time_frequencies
from longflow.methods.forecasting._flow import FREQUENCIES, GridFlowMethod
from longflow.methods.method import Batch
from longflow.plans import Plans

#: flow steps this far apart are told apart
SMALLEST_STEP = 0.05


class CronosDiscrete(GridFlowMethod):
    """Discrete CRONOS.

    The network is told of the flow step tau alone; order and gaps of the scans are in their places on the grid, whose
    spacing and length were planned from the dataset.
    """

    summary = "discrete CRONOS: scans on a regular grid, gaps filled by the last observation"

    def __init__(self, plans: Plans, configuration: str):
        super().__init__(plans, configuration, code_size=2 * FREQUENCIES)
        self.register_buffer("frequencies", time_frequencies(SMALLEST_STEP, 1.0, FREQUENCIES))

    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """gamma(tau)."""
        return fourier_features(tau, self.frequencies)


METHOD = CronosDiscrete
