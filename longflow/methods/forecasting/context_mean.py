"""The mean of the context scans: the trivial forecast for cyclic motion."""

from torch import Tensor

from longflow.flow.reduction import reduce_scans
from longflow.methods.batches import Batch
from longflow.methods.method import Method


class ContextMean(Method):
    """The forecast is the voxel-wise mean over the context scans."""

    task = "forecast"
    summary = "mean of the context scans"
    trains = False

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Average the observed scans."""
        return {"forecast": reduce_scans(batch.context, batch.context_mask)["mean"]}


METHOD = ContextMean
