"""A forecast of a whole volume from overlapping patches."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from longflow.inference.windows import WindowSettings, predict_changed
from longflow.methods.batches import Batch
from longflow.methods.method import Method


def predict_forecast(
    methods: Sequence[Method],
    context: np.ndarray,
    context_times: Sequence[float],
    target_time: float,
    settings: WindowSettings,
) -> dict[str, np.ndarray]:
    """Forecast a volume with the mean of several folds of one method (``inference.windows.predict_changed``).

    The ODE of a flow is integrated for each patch.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``settings.device``.
    :param context: (scans, channels, z, y, x), in order of time, in the normal form.
    :param context_times: (scans,), in the plan's time unit.
    :param target_time: requested time, in the plan's time unit.
    :param settings: how the volume is cut and averaged.
    :returns: one volume (channels, z, y, x), float32, for each wanted reduction.
    """
    times, horizon = times_for_network(context_times, target_time, methods[0].plans.temporal.time_scale)

    def make_batch(scans: Tensor, noise: Tensor | None) -> Batch:
        tiles, count = scans.shape[:2]
        return Batch(
            context=scans,
            context_times=torch.tensor(times, dtype=torch.float32).expand(tiles, count),
            context_mask=torch.ones(tiles, count, dtype=torch.bool),
            target_time=torch.full((tiles,), horizon, dtype=torch.float32),
            noise=noise,
        )

    return predict_changed(methods, context, make_batch, settings)


def times_for_network(times: Sequence[float], target_time: float, time_scale: float) -> tuple[list[float], float]:
    """Convert context times and target time to time since the last context scan, in units of the time scale."""
    return [(time - times[-1]) / time_scale for time in times], (target_time - times[-1]) / time_scale
