"""The base of the papers' baselines: they predict the target directly; some see the scans on the planned grid."""

from abc import abstractmethod

from torch import Tensor
from torch.nn import functional as F

from longflow.flow.grid import embed_on_grid, grid_slots
from longflow.methods.batches import Batch
from longflow.methods.method import Method
from longflow.plans import Plans


class DirectMethod(Method):
    """A network whose output is the target ("directly predict the target given the context", TFM section 3)."""

    task = "forecast"

    @abstractmethod
    def forecast(self, batch: Batch) -> Tensor:
        """Predict the target.

        :param batch: with or without target.
        :returns: (batch, channels, *spatial), float32.
        """

    def training_step(self, batch: Batch) -> Tensor:
        """Compute the mean squared error of the target (TFM section 3, baseline training), by the batch's weights."""
        return F.mse_loss(self.forecast(batch), batch.target, weight=batch.weights)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the network's output."""
        return {"forecast": self.forecast(batch)}


def scans_on_grid(batch: Batch, plans: Plans) -> tuple[Tensor, Tensor]:
    """Put the scans into the slots of the planned grid, empty slots zero (CRONOS eq. 12-18).

    So the papers' baselines see a series: frames on a regular axis that ends right before the target, missing ones zero
    (CRONOS section 4.1; TFM sections 3 and 3.1). They are given no times. The empty slots show the gaps, and the number
    of those at the end shows the horizon. Filling them (LOCF) is what CRONOS and TFM add; with it a baseline could not
    distinguish a gap from a scan in which nothing has changed.

    :param batch: scans and times.
    :param plans: with the grid.
    :returns: stack (batch, K, channels, *spatial), and which slots hold a scan, (batch, K).
    """
    grid = plans.temporal.grid
    slots = grid_slots(batch.context_times, batch.target_time, grid.spacing / plans.temporal.time_scale, grid.length)
    return embed_on_grid(batch.context, slots, batch.context_mask, grid.length)
