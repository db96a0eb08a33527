"""Validation during training and at its end: whole volumes, by the same code as prediction, on the stored targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longflow.data.dataset import DatasetDescription, Scan, image_path
from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError, some
from longflow.evaluation.metrics import nrmse
from longflow.files import write_json
from longflow.inference.sliding_window import predict_volume
from longflow.methods.forecasting.context_mean import ContextMean
from longflow.methods.forecasting.lci import LastContextImage
from longflow.methods.method import Method
from longflow.paths import FoldPaths
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.series import PreparedSeries, export_forecast, load_prepared
from longflow.training.splits import ForecastTarget


@dataclass(frozen=True)
class ValidationScore:
    """Mean NRMSE over subjects on the prepared grid, in the files' units.

    :param nrmse: of each reduction of the method. :param lci: of the last context image.
    :param context_mean: of the mean of the context.
    """

    nrmse: dict[str, float]
    lci: float
    context_mean: float

    @property
    def best(self) -> float:
        return min(self.nrmse.values())


def validate(method: Method, folder: Path, targets: Sequence[ForecastTarget], device: torch.device) -> ValidationScore:
    """Score a method on the validation targets of a fold.

    :param method: in evaluation mode on ``device``. :param folder: of the prepared subjects.
    """
    baselines = [kind(method.plans, name_of(method)).to(device) for kind in (LastContextImage, ContextMean)]
    errors: dict[str, dict[str, list[float]]] = {}
    for target in targets:
        series = load_prepared(folder, target.subject)
        if is_constant(series, target):
            continue
        forecasts = forecast_target(method, series, target, device)
        for name, baseline in zip(("lci", "context_mean"), baselines, strict=True):
            forecasts[name] = forecast_target(baseline, series, target, device)["forecast"]
        for name, forecast in forecasts.items():
            errors.setdefault(name, {}).setdefault(target.subject, []).append(prepared_nrmse(forecast, series, target))
    if not errors:
        raise DataError(
            f"Every validation target ({some(target.target for target in targets)}) is constant: there is "
            "nothing to score. Look at the images (longflow_verify), or give other splits."
        )
    means = {
        name: float(np.mean([np.mean(values) for values in subjects.values()])) for name, subjects in errors.items()
    }
    return ValidationScore({name: means[name] for name in method.reductions}, means["lci"], means["context_mean"])


def is_constant(series: PreparedSeries, target: ForecastTarget) -> bool:
    """Whether the target has no range in any channel, so that there is no NRMSE of it."""
    wanted = series.images[series.properties.cases.index(target.target)]
    return all(np.ptp(channel) == 0 for channel in wanted)


def forecast_target(
    method: Method, series: PreparedSeries, target: ForecastTarget, device: torch.device
) -> dict[str, np.ndarray]:
    """The forecast of a stored target, on the prepared grid in the normal form.

    Of the context the latest scans are used, as many as the method was planned for.
    """
    position = {case: index for index, case in enumerate(series.properties.cases)}
    indices = [position[case] for case in target.context[-method.plans.temporal.sequence_length :]]
    times = [series.properties.times[index] for index in indices]
    context = np.stack([series.images[index] for index in indices])
    target_time = series.properties.times[position[target.target]]
    step = method.plans.inference.tile_step_size
    return predict_volume([method], context, times, target_time, device, step)


def prepared_nrmse(forecast: np.ndarray, series: PreparedSeries, target: ForecastTarget) -> float:
    """RMSE over the target's range, in the files' units on the prepared grid; the mean over channels.

    The forecast is mapped back with the last context scan's intensity map, the truth with its own.
    """
    properties = series.properties
    last, truth = properties.cases.index(target.context[-1]), properties.cases.index(target.target)
    found = from_normal(forecast, properties.offset[last], properties.scale[last])
    true = from_normal(series.images[truth], properties.offset[truth], properties.scale[truth])
    error = nrmse(found, true)
    return float("nan") if error is None else error


def write_validation_forecasts(
    method: Method,
    folder: Path,
    targets: Sequence[ForecastTarget],
    scans: dict[str, Scan],
    description: DatasetDescription,
    paths: FoldPaths,
    device: torch.device,
) -> None:
    """Write the out-of-fold forecasts of a fold under every reduction, as ``longflow_predict`` would write them.

    :param scans: of the raw dataset, by case.
    """
    for target in targets:
        series = load_prepared(folder, target.subject)
        last = series.properties.cases.index(target.context[-1])
        raw = read_scan(scans[target.context[-1]].images)
        forecasts = forecast_target(method, series, target, device)
        for reduction, forecast in forecasts.items():
            restored = export_forecast(forecast, np.asarray(series.images[last]), raw.array, series.properties, last)
            out = paths.validation(reduction)
            for channel, array in enumerate(restored):
                write_volume(array, raw.geometry, raw.data_type, image_path(out, target.target, channel, description))
            write_json(_sidecar(target, scans, reduction, description), out / f"{target.target}.json")


def _sidecar(target: ForecastTarget, scans: dict[str, Scan], reduction: str, description: DatasetDescription) -> dict:
    times = [scans[case].time for case in target.context]
    return {
        "case": target.target,
        "subject": target.subject,
        "target_time": scans[target.target].time,
        "time_unit": description.time_unit,
        "horizon": scans[target.target].time - times[-1],
        "context": list(target.context),
        "context_times": times,
        "reduction": reduction,
    }


def name_of(method: Method) -> str:
    """The name of the configuration that a method was built for."""
    return next(name for name, plan in method.plans.configurations.items() if plan is method.configuration)
