"""Discrete CRONOS: scans on a regular grid, gaps filled by the last observation (eq. 8, 12-21, algorithm 2)."""

from torch import Tensor

from longflow.flow.times import fourier_features
from longflow.methods.batches import Batch
from longflow.methods.forecasting._flow import FREQUENCIES, GridFlowMethod, flow_step_frequencies
from longflow.methods.method import Options
from longflow.plans import Plans


class CronosDiscrete(GridFlowMethod):
    """Discrete CRONOS.

    The network is conditioned on the flow step tau alone. Order and gaps of the scans show in their places on the grid,
    whose spacing and length were planned from the dataset.
    """

    summary = "discrete CRONOS: scans on a regular grid, gaps filled by the last observation"

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None, network: str = ""):
        super().__init__(plans, configuration, 2 * FREQUENCIES, options, network)
        self.register_buffer("frequencies", flow_step_frequencies())

    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """Make gamma(tau)."""
        return fourier_features(tau, self.frequencies)


METHOD = CronosDiscrete
