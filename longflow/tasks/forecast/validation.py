"""Validation of forecasts: whole volumes, by the same code as prediction, on the stored targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longflow.data.dataset import DatasetDescription, Scan, image_path, training_series
from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError, first_few
from longflow.files import write_json
from longflow.inference.windows import WindowSettings
from longflow.methods.method import Method
from longflow.paths import DatasetPaths, FoldPaths
from longflow.plans import Plans
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.series import PreparedSeries, load_prepared
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.predictor import restore_forecast
from longflow.tasks.forecast.requests import ForecastRequest
from longflow.tasks.forecast.windows import predict_forecast
from longflow.training.splits import Cohort, ForecastTarget, prepared_scans, read_or_draw_targets, read_or_make_splits
from longflow.training.validation import SIDE_BY_SIDE, Score


class ForecastValidation:
    """NRMSE on the stored targets of a fold, beside the baselines'."""

    def __init__(
        self,
        method: type[Method],
        dataset: DatasetPaths,
        plans: Plans,
        configuration: str,
        fold: int,
        cohort: Cohort,
        device: torch.device,
    ):
        scans = prepared_scans(cohort.folder, plans.task)
        splits = read_or_make_splits(dataset, scans, plans.task)
        self.targets = read_or_draw_targets(dataset, splits, scans)[fold]
        self.dataset, self.folder, self.device = dataset, cohort.folder, device

    def score(self, method: Method) -> Score:
        """The lowest NRMSE among the method's reductions."""
        found = validate(method, self.folder, self.targets, self.device)
        columns = {"nrmse": found.best, "lci_nrmse": found.lci, "context_mean_nrmse": found.context_mean}
        return Score(found.best, columns, f"NRMSE {found.best:.4f}, LCI {found.lci:.4f}")

    def finish(self, method: Method, paths: FoldPaths) -> None:
        """Write the out-of-fold forecasts."""
        description, series = training_series(self.dataset.raw)
        scans = {scan.case: scan for one in series for scan in one.scans}
        write_validation_forecasts(method, self.folder, self.targets, scans, description, paths, self.device)


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
    """Score a method on the validation targets of a fold, quickly: by patches that do not overlap.

    :param method: in evaluation mode on ``device``. :param folder: of the prepared subjects.
    """
    errors: dict[str, dict[str, list[float]]] = {}
    for target in targets:
        series = load_prepared(folder, target.subject)
        if is_constant(series, target):
            continue
        context, times = context_of(method, series, target)
        forecasts = forecast_target(method, context, times, series, target, device, SIDE_BY_SIDE)
        forecasts |= {"lci": context[-1], "context_mean": context.mean(0)}
        for name, forecast in forecasts.items():
            errors.setdefault(name, {}).setdefault(target.subject, []).append(prepared_nrmse(forecast, series, target))
    if not errors:
        raise DataError(
            f"Every validation target ({first_few(target.target for target in targets)}) is constant: there is "
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


def context_of(method: Method, series: PreparedSeries, target: ForecastTarget) -> tuple[np.ndarray, list[float]]:
    """The context scans that a method uses, (scans, channels, z, y, x), and their times in time units.

    They are the latest, as many as the method was planned for.
    """
    cases = series.properties.cases
    indices = [cases.index(case) for case in target.context[-method.plans.temporal.sequence_length :]]
    return np.stack([series.images[index] for index in indices]), [series.properties.times[index] for index in indices]


def forecast_target(
    method: Method,
    context: np.ndarray,
    times: Sequence[float],
    series: PreparedSeries,
    target: ForecastTarget,
    device: torch.device,
    tile_step_size: float,
) -> dict[str, np.ndarray]:
    """The forecast of a stored target from its context, on the prepared grid in the normal form."""
    target_time = series.properties.times[series.properties.cases.index(target.target)]
    return predict_forecast([method], context, times, target_time, WindowSettings(device, tile_step_size))


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
        wanted = ForecastRequest(scans[target.target], tuple(scans[case] for case in target.context))
        raw = read_scan(wanted.context[-1].images)
        context, times = context_of(method, series, target)
        step = method.plans.inference.tile_step_size
        forecasts = forecast_target(method, context, times, series, target, device, step)
        for reduction, forecast in forecasts.items():
            restored = restore_forecast(forecast, series, last, raw.array)
            out = paths.validation(reduction)
            for channel, array in enumerate(restored):
                write_volume(array, raw.geometry, raw.data_type, image_path(out, target.target, channel, description))
            sidecar = {**wanted.provenance(), "time_unit": description.time_unit, "reduction": reduction}
            write_json(sidecar, out / f"{target.target}.json")
