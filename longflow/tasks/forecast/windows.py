"""A forecast of a whole volume from overlapping patches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from longflow.data.coarse import block_means, coarse_block
from longflow.data.covariates import Covariates
from longflow.data.recurrence import Kernel, Recurrence, infer_recurrence, scan_similarity
from longflow.inference.windows import WindowSettings, predict_changed
from longflow.methods.batches import Batch
from longflow.methods.method import Method
from longflow.plans import Plans, TemporalPlan


@dataclass(frozen=True)
class Times:
    """The times of a forecast, in the plan's time unit.

    :param context: (scans,), ascending.
    :param target: requested time.
    :param period: after which the subject's scans repeat; None where it is not known.
    :param covariates: of the subject at the target time, by name; None where a value is not known.
    """

    context: Sequence[float]
    target: float
    period: float | None = None
    covariates: Covariates = field(default_factory=dict)


def predict_forecast(
    methods: Sequence[Method], context: np.ndarray, times: Times, settings: WindowSettings
) -> dict[str, np.ndarray]:
    """Forecast a volume with the mean of several folds of one method (``inference.windows.predict_changed``).

    The ODE of a flow is integrated for each patch.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``settings.device``.
    :param context: (scans, channels, z, y, x), in order of time, in the normal form.
    :param times: of the scans and the forecast.
    :param settings: how the volume is cut and averaged.
    :returns: one volume (channels, z, y, x), float32, for each wanted reduction.
    """
    expected = expected_recurrence(methods[0], context, times)

    def make_batch(scans: Tensor, noise: Tensor | None) -> Batch:
        return batch_of_patches(scans, times, methods[0].plans, expected, noise)

    return predict_changed(methods, context, make_batch, settings)


def expected_recurrence(method: Method, context: np.ndarray, times: Times) -> Recurrence | None:
    """Find how the context scans of a forecast repeat; None where scans are not taken to repeat.

    :param method: with its plans.
    :param context: (scans, channels, z, y, x), whole scans in order of time, in the normal form.
    :param times: of the scans and the forecast.
    """
    temporal = method.plans.temporal
    if temporal.recurrence is None:
        return None
    return context_recurrence(times, block_means(context, coarse_block(method.configuration.spacing)), temporal)


def batch_of_patches(
    scans: Tensor, times: Times, plans: Plans, expected: Recurrence | None = None, noise: Tensor | None = None
) -> Batch:
    """Make the batch of a forecast.

    :param scans: (patches, scans, channels, *spatial), in order of time, in the normal form.
    :param times: of the scans and the forecast.
    :param plans: of the method.
    :param expected: how the scans repeat, of the whole scans.
    :param noise: (patches, channels, *spatial), for methods that begin with it.
    :returns: a batch without target.
    """
    patches, count = scans.shape[:2]
    relative, horizon = times_for_network(times.context, times.target, plans.temporal.time_scale)
    return Batch(
        context=scans,
        context_times=torch.tensor(relative, dtype=torch.float32).expand(patches, count),
        context_mask=torch.ones(patches, count, dtype=torch.bool),
        target_time=torch.full((patches,), horizon, dtype=torch.float32),
        period=periods_for_network([times.period if expected is None else expected.period] * patches, plans.temporal),
        recurrence=recurrence_for_network([expected] * patches),
        covariates=covariates_for_network([times.covariates] * patches, plans),
        noise=noise,
    )


def predict_from_contexts(
    methods: Sequence[Method],
    images: Sequence[np.ndarray] | np.ndarray,
    given: Times,
    contexts: Sequence[Sequence[int]],
    settings: WindowSettings,
) -> dict[str, np.ndarray]:
    """Average the forecasts of a volume from several contexts; with one, this is :func:`predict_forecast`.

    :param images: (scans, channels, z, y, x), in order of time, in the normal form; only those of a context are read.
    :param given: times of all these scans and the forecast.
    :param contexts: positions in ``images`` for each forecast, ascending; all end with the same scan.
    :returns: one volume (channels, z, y, x), float32, for each wanted reduction.
    """
    total: dict[str, np.ndarray] = {}
    for context in contexts:
        scans = np.stack([np.asarray(images[position], dtype=np.float32) for position in context])
        times = replace(given, context=[given.context[position] for position in context])
        for name, volume in predict_forecast(methods, scans, times, settings).items():
            total[name] = total[name] + volume if name in total else volume
    if len(contexts) > 1:
        for volume in total.values():
            volume /= len(contexts)
    return total


def times_for_network(times: Sequence[float], target_time: float, time_scale: float) -> tuple[list[float], float]:
    """Convert context times and target time to time since the last context scan, in units of the time scale."""
    return [(time - times[-1]) / time_scale for time in times], (target_time - times[-1]) / time_scale


def context_recurrence(times: Times, coarse: np.ndarray, temporal: TemporalPlan) -> Recurrence | None:
    """Infer how the scans of a context repeat; None where the plan does not take them to repeat.

    :param times: of the context and the forecast; its period, if it is known, is the only one.
    :param coarse: (scans, channels, z', y', x'), means of the context scans over coarse blocks.
    :param temporal: with what is known of all subjects.
    """
    plan = temporal.recurrence
    if plan is None:
        return None
    known = times.period is not None
    periods, probabilities = ([times.period], [1.0]) if known else (plan.periods, plan.probabilities)
    kernel = Kernel(plan.length, plan.noise)
    similarity = scan_similarity(coarse)
    return infer_recurrence(times.context, times.target, similarity, np.array(periods), np.array(probabilities), kernel)


def recurrence_for_network(found: Sequence[Recurrence | None]) -> Tensor | None:
    """Stack the weights of samples with equally many scans, (batch, scans); None where scans do not repeat."""
    weights = [one.weights for one in found if one is not None]
    return torch.tensor(np.array(weights), dtype=torch.float32) if weights else None


def periods_for_network(periods: Sequence[float | None], temporal: TemporalPlan) -> Tensor | None:
    """Convert periods, in time units, to units of the time scale; None where scans do not repeat."""
    if not temporal.repeats:
        return None
    return torch.tensor([(period or math.nan) / temporal.time_scale for period in periods], dtype=torch.float32)


def covariates_for_network(covariates: Sequence[Covariates], plans: Plans) -> Tensor | None:
    """Scale covariates; None where the plans have none.

    :param covariates: of each sample at its target time.
    :param plans: with the scaling.
    :returns: (batch, 2 n): of the n covariates of the plans the values, 0 where one is not known; then 1 where it is.
    """
    if not plans.covariates:
        return None
    rows = [[one.get(plan.name) for plan in plans.covariates] for one in covariates]
    values = np.array(rows, dtype=np.float64)  # NaN where a value is None
    scaling = np.array([[plan.mean, plan.standard_deviation] for plan in plans.covariates])
    scaled = np.nan_to_num((values - scaling[:, 0]) / scaling[:, 1])
    return torch.from_numpy(np.concatenate([scaled, ~np.isnan(values)], axis=1)).float()
