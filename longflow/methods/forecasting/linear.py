"""Linear extrapolation of every voxel through the last two scans: the trivial forecast that uses the times."""

import torch
from torch import Tensor

from longflow.methods.batches import Batch
from longflow.methods.method import Method


class Linear(Method):
    """Every voxel continues its change from the second last scan to the last: x(t) = x_T + (x_T - x_T-1) h / d.

    h is the horizon, d the interval between the two scans. A single scan has no trend: its forecast is that scan (LCI).

    Noise is amplified by h / d. Where both scans have noise of standard deviation sigma, the forecast has sigma sqrt((1
    + h / d)^2 + (h / d)^2), which is 2.2 sigma at a horizon as long as the interval. So it can be worse than LCI where
    change is small.
    """

    task = "forecast"
    summary = "linear extrapolation through the last two scans"
    trains = False

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Compute x_T + (x_T - x_T-1) h / d; x_T where the scan before was not observed."""
        last = batch.context[:, -1]
        if batch.context.shape[1] == 1:
            return {"forecast": last}
        times = batch.context_times
        interval, horizon = times[:, -1] - times[:, -2], batch.target_time - times[:, -1]
        observed = batch.context_mask[:, -2]
        # times of scans that were not observed are meaningless, and may be equal
        ratio = torch.where(observed, horizon / torch.where(observed, interval, 1), 0)
        slope = last - batch.context[:, -2]
        return {"forecast": last + slope * ratio.view(-1, *[1] * (slope.ndim - 1))}


METHOD = Linear
