"""Validate forecasts: whole volumes, by the same code as prediction, on the stored targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from longflow.plans import ChannelPlan
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.series import PreparedSeries
from longflow.tasks.forecast.conditions import covariates_at_target, with_conditions
from longflow.tasks.forecast.context import DEFAULT_RULE, choose_contexts
from longflow.tasks.forecast.folds import report_folds
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.predictor import context_fields, horizon_fields, recurrence_fields, restore_forecast
from longflow.tasks.forecast.requests import ForecastRequest
from longflow.tasks.forecast.targets import ForecastTarget, read_or_draw_targets
from longflow.tasks.forecast.units import numbers_of_reference
from longflow.tasks.forecast.windows import Times, context_recurrence, predict_from_contexts
from longflow.training.clock import results_in_time, writes_tables
from longflow.training.open_series import OpenSeries
from longflow.training.progress import ProgressColumns
from longflow.training.splits import Cohort, prepared_scans, read_or_make_splits
from longflow.training.validation import (
    WITHOUT_OVERLAP,
    Score,
    finished_before,
    out_of_fold_digests,
    out_of_fold_settings,
    sampled,
)

#: NRMSE of each baseline on each target
Baselines = dict[ForecastTarget, dict[str, float]]


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
        self.series = OpenSeries(cohort.folder)
        self.baselines: Baselines = {}

    def score(self, method: Method) -> Score:
        """Return the lowest NRMSE among the method's reductions.

        :param method: in evaluation mode.
        :returns: the score, with the baselines' NRMSE.
        """
        found = validate(method, self.folder, self.targets, self.device, self.baselines)
        columns = {"nrmse": found.best, "lci_nrmse": found.lci, "context_mean_nrmse": found.context_mean}
        note = f"NRMSE {found.best:.4f}, LCI {found.lci:.4f}"
        return Score(found.best, columns, note, found.lci, found.errors, found.changes, found.reduction)

    def finish(self, method: Method) -> None:
        """Write the out-of-fold forecasts under every reduction, as ``longflow_predict`` would.

        ``context`` in a sidecar is the stored context of the target, the same for all methods; ``context_used`` are the
        scans of it that the model takes.

        :param method: in evaluation mode, with the weights that are kept.
        """
        description, series = training_series(self.job.dataset.raw)
        scans = {scan.case: scan for one in series for scan in one.scans}

        def written(target: ForecastTarget) -> tuple[ForecastRequest, tuple[str, float]]:
            item = ForecastRequest(scans[target.target], tuple(scans[case] for case in target.context))
            item = with_conditions(item, self.job.plans)
            method.folded = 0.0
            self._write(method, item, target, description)
            return item, (target.subject, method.folded)

        done = results_in_time(written, self.targets)
        if writes_tables():
            report_folds([folded for _, folded in done])
            for reduction in method.reductions:
                write_table([item for item, _ in done], self.job.paths.validation(reduction), description)

    def _write(
        self, method: Method, item: ForecastRequest, target: ForecastTarget, description: DatasetDescription
    ) -> None:
        """Write the forecast of a target under every reduction."""
        series = self.series[target.subject]
        last = series.properties.cases.index(target.context[-1])
        contexts, given = contexts_of(method, series, target), given_times(series, target)
        taken = sorted(set().union(*contexts))
        used = [scan for scan in item.context if series.properties.cases.index(scan.case) in taken]
        times = replace(given, context=[given.context[position] for position in taken])
        recurrence = context_recurrence(times, series.coarse[taken], self.job.plans.temporal)
        content = {
            **out_of_fold_settings(self.job, method),
            "reduction": None,  # of each folder
            "shrinkage": 1.0,
            **context_fields(used, DEFAULT_RULE),
            **recurrence_fields(recurrence, used),
            **solver_settings(method),
            **horizon_fields(item, self.job.plans),
            "digests": out_of_fold_digests(self.job, [path for scan in used for path in scan.images]),
        }
        folders = {reduction: self.job.paths.validation(reduction) for reduction in method.reductions}
        files = {
            reduction: [
                image_path(folder, target.target, channel, description) for channel in range(len(description.channels))
            ]
            for reduction, folder in folders.items()
        }
        if all(finished_before(item, folders[one], files[one], {**content, "reduction": one}) for one in folders):
            return
        raw = read_scan(item.context[-1].images)
        windows = WindowSettings(self.device, self.job.plans.inference.tile_step_size)
        forecasts = predict_from_contexts([method], series.images, given, contexts, windows)
        for reduction, folder in folders.items():
            restored = restore_forecast(forecasts[reduction], series, last, raw.array)
            for array, path in zip(restored, files[reduction], strict=True):
                write_volume(array, raw.geometry, raw.data_type, path)
            write_sidecar(item, folder, {**content, "reduction": reduction})


@dataclass(frozen=True)
class ValidationScore:
    """Mean NRMSE over subjects on the prepared grid, in the files' units.

    :param nrmse: of each reduction of the method.
    :param lci: of the last context image.
    :param context_mean: of the mean of the context.
    :param errors: (targets, reductions), NRMSE.
    :param changes: of each of these forecasts, a sample of forecast - last context image in the normal form.
    """

    nrmse: dict[str, float]
    lci: float
    context_mean: float
    errors: list[list[float]] = field(default_factory=list, compare=False)
    changes: list[np.ndarray] = field(default_factory=list, compare=False)

    @property
    def reduction(self) -> str:
        """The best of the reductions."""
        return min(self.nrmse, key=lambda name: self.nrmse[name])

    @property
    def best(self) -> float:
        """The lowest among the reductions."""
        return self.nrmse[self.reduction]


@dataclass(frozen=True)
class TargetScore:
    """The score of one target.

    :param subject: of the target.
    :param errors: NRMSE of each reduction and baseline.
    :param changes: of each reduction, as those of :class:`ValidationScore`.
    """

    subject: str
    errors: dict[str, float]
    changes: list[np.ndarray]


def validate(
    method: Method,
    folder: Path,
    targets: Sequence[ForecastTarget],
    device: torch.device,
    baselines: Baselines | None = None,
) -> ValidationScore:
    """Score a method on the validation targets of a fold, quickly: by patches that do not overlap.

    :param method: in evaluation mode on ``device``.
    :param folder: of the prepared subjects.
    :param targets: of the fold.
    :param device: that the method works on.
    :param baselines: NRMSE of the baselines from earlier validations on the same targets; new ones are added.
    :returns: mean NRMSE of the method and of the baselines.
    :raises DataError: every target is constant.
    """
    opened, windows = OpenSeries(folder), WindowSettings(device, WITHOUT_OVERLAP)
    baselines, channels = {} if baselines is None else baselines, method.plans.channels

    def score(target: ForecastTarget) -> TargetScore | None:
        series = opened[target.subject]
        if is_constant(series, target):
            return None
        contexts, given = contexts_of(method, series, target), given_times(series, target)
        forecasts = predict_from_contexts([method], series.images, given, contexts, windows)
        last = series.images[series.properties.cases.index(target.context[-1])]
        changes = [sampled(forecasts[name] - last) for name in method.reductions]
        if target not in baselines:
            baselines[target] = {
                "lci": prepared_nrmse(last, series, target, channels),
                "context_mean": prepared_nrmse(context_mean(series, target), series, target, channels),
            }
        found = {name: prepared_nrmse(forecast, series, target, channels) for name, forecast in forecasts.items()}
        return TargetScore(target.subject, found | baselines[target], changes)

    scores = [one for one in results_in_time(score, targets) if one is not None]
    errors: dict[str, dict[str, list[float]]] = {}
    for one in scores:
        for name, value in one.errors.items():
            errors.setdefault(name, {}).setdefault(one.subject, []).append(value)
    if not errors:
        raise DataError(
            f"Every validation target ({first_few(target.target for target in targets)}) is constant: there is "
            "nothing to score. Look at the images (longflow_verify), or give other splits."
        )
    means = {
        name: float(np.mean([np.mean(values) for values in subjects.values()])) for name, subjects in errors.items()
    }
    nrmses = {name: means[name] for name in method.reductions}
    of_reductions = [[one.errors[name] for name in method.reductions] for one in scores]
    changes = [change for one in scores for change in one.changes]
    return ValidationScore(nrmses, means["lci"], means["context_mean"], of_reductions, changes)


def is_constant(series: PreparedSeries, target: ForecastTarget) -> bool:
    """Tell whether the target has no range in any channel, so that its NRMSE is undefined.

    :param series: of the subject.
    :param target: of the subject.
    :returns: True for a constant target.
    """
    reference = series.images[series.properties.cases.index(target.target)]
    return all(np.ptp(channel) == 0 for channel in reference)


def given_times(series: PreparedSeries, target: ForecastTarget) -> Times:
    """Return the times of a series up to the last scan that is given, and of the target.

    Positions in them are those in the series; not every one is given.

    :param series: of the subject.
    :param target: with the stored context.
    """
    properties = series.properties
    last = properties.cases.index(target.context[-1])
    covariates = covariates_at_target(properties, last, properties.cases.index(target.target))
    return Times(properties.times[: last + 1], time_of(target, series), properties.period, covariates)


def contexts_of(method: Method, series: PreparedSeries, target: ForecastTarget) -> list[list[int]]:
    """Choose the context scans that a method takes, by the default rule.

    :param method: with its plans.
    :param series: of the subject.
    :param target: with the stored context.
    :returns: positions in the series, for each forecast to average.
    """
    given = [series.properties.cases.index(case) for case in target.context]
    every = given_times(series, target)
    times = replace(every, context=[every.context[position] for position in given])
    chosen = choose_contexts(DEFAULT_RULE, times, method.plans.temporal.sequence_length)
    return [[given[position] for position in context] for context in chosen]


def context_mean(series: PreparedSeries, target: ForecastTarget) -> np.ndarray:
    """Average all scans that are given, one at a time.

    :param series: of the subject.
    :param target: with the stored context.
    :returns: (channels, z, y, x) in the normal form.
    """
    positions = [series.properties.cases.index(case) for case in target.context]
    total = np.array(series.images[positions[0]], dtype=np.float32)
    for position in positions[1:]:
        total += series.images[position]
    return total / len(positions)


def time_of(target: ForecastTarget, series: PreparedSeries) -> float:
    """Return the time of a target, in time units.

    :param target: to forecast.
    :param series: of the subject.
    """
    return series.properties.times[series.properties.cases.index(target.target)]


def prepared_nrmse(
    forecast: np.ndarray, series: PreparedSeries, target: ForecastTarget, channels: Sequence[ChannelPlan]
) -> float:
    """Compute RMSE over the reference's range, in the files' units on the prepared grid; the mean over channels.

    The forecast is mapped back with the last context scan's intensity map, the reference into the units in which
    forecasts are judged (:mod:`longflow.tasks.forecast.units`).

    :param forecast: (channels, z, y, x), in the normal form.
    :param series: of the subject.
    :param target: that was forecast.
    :param channels: the plan of each channel.
    :returns: NRMSE; NaN where it is undefined.
    """
    properties = series.properties
    last, scan = properties.cases.index(target.context[-1]), properties.cases.index(target.target)
    prediction = from_normal(forecast, properties.offset[last], properties.scale[last])
    reference = from_normal(series.images[scan], *numbers_of_reference(properties, scan, last, channels))
    error = nrmse(prediction, reference)
    return float("nan") if error is None else error
