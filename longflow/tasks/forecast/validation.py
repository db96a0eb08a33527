"""Validate forecasts: whole volumes, by the same code as prediction, on the stored targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longflow.data.dataset import DatasetDescription, image_path, training_series
from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError, first_few
from longflow.inference.models import solver_settings
from longflow.inference.output import write_sidecar, write_table
from longflow.inference.windows import WindowSettings
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.series import PreparedSeries, load_prepared
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.predictor import horizon_fields, restore_forecast
from longflow.tasks.forecast.requests import ForecastRequest
from longflow.tasks.forecast.targets import ForecastTarget, read_or_draw_targets
from longflow.tasks.forecast.windows import predict_forecast
from longflow.training.clock import in_time
from longflow.training.progress import ProgressColumns
from longflow.training.splits import Cohort, prepared_scans, read_or_make_splits
from longflow.training.validation import WITHOUT_OVERLAP, Score, out_of_fold_digests, out_of_fold_settings


class ForecastValidation:
    """NRMSE on the stored targets of a fold, next to that of the baselines.

    :param job: the fold.
    :param cohort: the subjects that validate it.
    :param device: that the method works on.
    """

    progress = ProgressColumns(
        "NRMSE", baselines={"lci_nrmse": "last context image (LCI)", "context_mean_nrmse": "context mean"}
    )

    def __init__(self, job: FoldJob, cohort: Cohort, device: torch.device):
        scans = prepared_scans(cohort.folder, job.task)
        splits = read_or_make_splits(job.dataset, scans, job.task)
        self.targets = read_or_draw_targets(job.dataset, splits, scans)[job.fold]
        self.job, self.folder, self.device = job, cohort.folder, device

    def score(self, method: Method) -> Score:
        """Return the lowest NRMSE among the method's reductions.

        :param method: in evaluation mode.
        :returns: the score, with the baselines' NRMSE.
        """
        errors = validate(method, self.folder, self.targets, self.device)
        columns = {"nrmse": errors.best, "lci_nrmse": errors.lci, "context_mean_nrmse": errors.context_mean}
        return Score(errors.best, columns, f"NRMSE {errors.best:.4f}, LCI {errors.lci:.4f}")

    def finish(self, method: Method) -> None:
        """Write the out-of-fold forecasts under every reduction, as ``longflow_predict`` would.

        ``context`` in a sidecar is the stored context of the target, the same for all methods. A model that takes fewer
        scans uses the latest of them.

        :param method: in evaluation mode, with the weights that are kept.
        """
        description, series = training_series(self.job.dataset.raw)
        scans = {scan.case: scan for one in series for scan in one.scans}
        items = []
        for target in in_time(self.targets):
            items.append(ForecastRequest(scans[target.target], tuple(scans[case] for case in target.context)))
            self._write(method, items[-1], target, description)
        for reduction in method.reductions:
            write_table(items, self.job.paths.validation(reduction), description)

    def _write(
        self, method: Method, item: ForecastRequest, target: ForecastTarget, description: DatasetDescription
    ) -> None:
        """Write the forecast of a target under every reduction."""
        series = load_prepared(self.folder, target.subject)
        last = series.properties.cases.index(target.context[-1])
        raw = read_scan(item.context[-1].images)
        windows = WindowSettings(self.device, self.job.plans.inference.tile_step_size)
        forecasts = forecast_target(method, series, target, windows)
        for reduction in method.reductions:
            folder = self.job.paths.validation(reduction)
            restored = restore_forecast(forecasts[reduction], series, last, raw.array)
            for channel, array in enumerate(restored):
                path = image_path(folder, target.target, channel, description)
                write_volume(array, raw.geometry, raw.data_type, path)
            content = {
                **out_of_fold_settings(self.job, method),
                "reduction": reduction,
                "shrinkage": 1.0,
                **solver_settings(method),
                **horizon_fields(item, self.job.plans),
                "digests": out_of_fold_digests(self.job, [path for scan in item.context for path in scan.images]),
            }
            write_sidecar(item, folder, content)


@dataclass(frozen=True)
class ValidationScore:
    """Mean NRMSE over subjects on the prepared grid, in the files' units.

    :param nrmse: of each reduction of the method.
    :param lci: of the last context image.
    :param context_mean: of the mean of the context.
    """

    nrmse: dict[str, float]
    lci: float
    context_mean: float

    @property
    def best(self) -> float:
        """The lowest among the reductions."""
        return min(self.nrmse.values())


def validate(method: Method, folder: Path, targets: Sequence[ForecastTarget], device: torch.device) -> ValidationScore:
    """Score a method on the validation targets of a fold, quickly: by patches that do not overlap.

    :param method: in evaluation mode on ``device``.
    :param folder: of the prepared subjects.
    :param targets: of the fold.
    :param device: that the method works on.
    :returns: mean NRMSE of the method and of the baselines.
    :raises DataError: every target is constant.
    """
    errors: dict[str, dict[str, list[float]]] = {}
    for target in in_time(targets):
        series = load_prepared(folder, target.subject)
        if is_constant(series, target):
            continue
        forecasts = forecast_target(method, series, target, WindowSettings(device, WITHOUT_OVERLAP))
        context, _ = context_of(method, series, target)
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
    """Tell whether the target has no range in any channel, so that its NRMSE is undefined.

    :param series: of the subject.
    :param target: of the subject.
    :returns: True for a constant target.
    """
    reference = series.images[series.properties.cases.index(target.target)]
    return all(np.ptp(channel) == 0 for channel in reference)


def context_of(method: Method, series: PreparedSeries, target: ForecastTarget) -> tuple[np.ndarray, list[float]]:
    """Read the context scans that a method uses: the latest, as many as it was planned for.

    :param method: with its plans.
    :param series: of the subject.
    :param target: with the stored context.
    :returns: (scans, channels, z, y, x) in the normal form, and their times in time units.
    """
    cases = series.properties.cases
    indices = [cases.index(case) for case in target.context[-method.plans.temporal.sequence_length :]]
    return np.stack([series.images[index] for index in indices]), [series.properties.times[index] for index in indices]


def forecast_target(
    method: Method, series: PreparedSeries, target: ForecastTarget, windows: WindowSettings
) -> dict[str, np.ndarray]:
    """Forecast a stored target from its context.

    :param method: in evaluation mode on ``windows.device``.
    :param series: of the subject.
    :param target: to forecast.
    :param windows: how the volume is cut and averaged.
    :returns: (channels, z, y, x) for each reduction, on the prepared grid in the normal form.
    """
    context, times = context_of(method, series, target)
    target_time = series.properties.times[series.properties.cases.index(target.target)]
    return predict_forecast([method], context, times, target_time, windows)


def prepared_nrmse(forecast: np.ndarray, series: PreparedSeries, target: ForecastTarget) -> float:
    """Compute RMSE over the reference's range, in the files' units on the prepared grid; the mean over channels.

    The forecast is mapped back with the last context scan's intensity map, the reference with its own.

    :param forecast: (channels, z, y, x), in the normal form.
    :param series: of the subject.
    :param target: that was forecast.
    :returns: NRMSE; NaN where it is undefined.
    """
    properties = series.properties
    last, scan = properties.cases.index(target.context[-1]), properties.cases.index(target.target)
    prediction = from_normal(forecast, properties.offset[last], properties.scale[last])
    reference = from_normal(series.images[scan], properties.offset[scan], properties.scale[scan])
    error = nrmse(prediction, reference)
    return float("nan") if error is None else error
