"""Interpolation over one period: the trivial forecast where scans repeat, as in a heart beat."""

import torch
from torch import Tensor

from longflow.data.periods import neighbours_in_period
from longflow.errors import ConfigurationError
from longflow.methods.batches import Batch
from longflow.methods.method import Method


class Periodic(Method):
    """Every voxel is interpolated linearly in time between the scans around the target, one or more periods back.

    A scan at t is taken to repeat at t + k * period for every whole number k. So the end of a beat is interpolated
    between the last given scan and the first scan of the beat, one period on.
    """

    task = "forecast"
    summary = "interpolation between scans one period back and on"
    trains = False

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Interpolate each sample between two of its scans.

        :raises ConfigurationError: the period of a sample is not known.
        """
        if batch.period is None or not torch.isfinite(batch.period).all():
            raise ConfigurationError(
                "The method 'periodic' needs the period after which the scans of a subject repeat, and it is not "
                'known. Write "period" into dataset.json and plan again: a number in the time unit, or the name of a '
                "column of scans.csv that has a value for every subject."
            )
        forecasts = []
        for scans, times, mask, target, period in zip(
            batch.context, batch.context_times, batch.context_mask, batch.target_time, batch.period, strict=True
        ):
            before, after, weight = neighbours_in_period(times[mask].tolist(), float(target), float(period))
            forecasts.append(torch.lerp(scans[mask][before], scans[mask][after], weight))
        return {"forecast": torch.stack(forecasts)}


METHOD = Periodic
