"""Forecast a scan from earlier scans and their times: in memory (the Python interface) and for folders."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow.data.covariates import Covariates
from longflow.data.dataset import DatasetDescription, Scan
from longflow.data.images import Geometry, Volume, as_type, check_same_grid, read_scan, write_volume
from longflow.data.recurrence import Recurrence
from longflow.errors import ConfigurationError, DataError
from longflow.fitness.looks import Look
from longflow.fitness.verdict import Verdict
from longflow.inference.fitness import judge_series, look_at
from longflow.inference.in_memory import image_like, volume_of
from longflow.inference.models import LoadedMember, Models, solver_settings
from longflow.inference.predictor import Predictor, input_warnings
from longflow.integrity.problems import REGISTER
from longflow.methods.method import Method
from longflow.plans import Plans
from longflow.preprocessing.prepared import PreparedSeries, RawSeries
from longflow.preprocessing.restore import export_forecast
from longflow.preprocessing.series import prepare_volumes
from longflow.tasks.forecast.conditions import covariate_warnings, given_covariates, with_conditions
from longflow.tasks.forecast.context import DEFAULT_RULE, RULES, Rule, choose_contexts
from longflow.tasks.forecast.folds import fold_warning, report_folds
from longflow.tasks.forecast.hidden_context import HiddenContext
from longflow.tasks.forecast.requests import (
    DEVIATION,
    ForecastRequest,
    forecast_images,
    forecast_requests,
    sample_files,
)
from longflow.tasks.forecast.sampling import Draw, Sampling, TakenScans, collect_samples
from longflow.tasks.forecast.windows import Times, context_recurrence, predict_from_contexts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContextChoice:
    """The scans that the members of a model take of those that are given.

    :param given: times of all scans that are given and of the target, in time units.
    :param contexts: for each member, for each forecast to average: positions in ``given.context``.
    """

    given: Times
    contexts: list[list[list[int]]]

    @property
    def taken(self) -> list[int]:
        """The scans that any member takes: ascending positions in ``given.context``."""
        return sorted(set(chain.from_iterable(chain.from_iterable(self.contexts))))


@dataclass(frozen=True)
class Context:
    """The scans that a forecast is made from, read and prepared.

    :param given: times of all scans that are given and of the target, in time units.
    :param last: the last of them, as read.
    :param members: what each member takes.
    :param warnings: of reading them.
    :param looks: of the scans that are taken, for the fitness gate.
    """

    subject: str
    given: Times
    last: Volume
    members: list[TakenScans]
    warnings: list[str] = field(default_factory=list)
    looks: list[Look | None] = field(default_factory=list)


@dataclass(frozen=True)
class Forecast:
    """A forecast, to be written on the grid of the last context scan.

    :param array: (channels, z, y, x), float32, in the units of the last context scan.
    :param data_type: of the last context scan.
    :param warnings: of reading the context, and of motion that folds.
    :param recurrence: of the scans that the first member takes; None where scans are not taken to repeat.
    :param deviation: standard deviation of the samples that ``array`` is the mean of, likewise; None: there are none.
    """

    array: np.ndarray
    geometry: Geometry
    data_type: str
    warnings: list[str]
    recurrence: Recurrence | None = None
    deviation: np.ndarray | None = None


class Forecaster(Predictor[ForecastRequest]):
    """A trained model, ready to forecast.

    >>> forecaster = Forecaster.load(dataset=101)                                    # doctest: +SKIP
    >>> forecast = forecaster.predict([scan_a, scan_b], times=[0, 210], target=400)  # doctest: +SKIP
    """

    task = "forecast"

    def __init__(self, models: Models):
        super().__init__(models)
        reduction = models.selection.reduction
        for member in models.members if reduction is not None else ():
            _known_reduction(member, reduction)
        #: which of the given scans the models take
        self.rule = _known_rule(models.selection.context_rule or DEFAULT_RULE)
        #: files of scans to the scans, their warnings and looks, as read for the request before
        self._volumes: dict[tuple[Path, ...], tuple[Volume, list[str], Look | None]] = {}
        self._context: tuple[tuple[Scan, ...], list[list[list[int]]], Context] | None = None
        #: of each request of a folder, by its case
        self._choices: dict[str, ContextChoice] = {}
        #: of each forecast since the last report: subject, and share of voxels at which its motion folds
        self._folds: list[tuple[str, float]] = []

    def predict(
        self,
        scans: Sequence[np.ndarray | sitk.Image],
        times: Sequence[float],
        target: float,
        spacing: Sequence[float] | None = None,
        period: float | None = None,
        covariates: Covariates | None = None,
    ) -> np.ndarray | sitk.Image:
        """Forecast the scan at time ``target``.

        :param scans: earlier scans of one subject on one grid: SimpleITK images, or arrays (z, y, x) or, with several
            channels, (channels, z, y, x).
        :param times: (scans,), in the time unit of the training dataset.
        :param target: requested time, after the last scan.
        :param spacing: (z, y, x), mm; needed for arrays, taken from the image otherwise.
        :param period: after which the subject's scans repeat, in the time unit; None: that of the plans, if it has one.
        :param covariates: at the target time, by the names in dataset.json; those that are not given are not known.
        :returns: an image or array like the given ones, in their units.
        :raises DataError: the numbers of scans and times differ, or the target is not after the last scan.
        :raises NotFoundError: the dataset of the model has no such covariate.
        """
        if len(scans) != len(times) or not scans:
            raise DataError(
                f"There are {len(scans)} scans and {len(times)} times; expected one time for each scan, at least one."
            )
        if not np.isfinite([*times, target]).all() or len(set(times)) < len(times):
            raise DataError(
                f"The times {', '.join(f'{time:g}' for time in times)} and the target {target:g} must be different "
                "finite numbers."
            )
        order = np.argsort(times, kind="stable")
        planned = self.models.plans.temporal.period
        period = planned if period is None and not isinstance(planned, str) else period
        known = given_covariates(covariates or {}, self.models.plans)
        given = Times([float(times[index]) for index in order], float(target), period, known)
        choice = self.choose(given)
        volumes = {position: volume_of(scans[order[position]], spacing) for position in choice.taken}
        forecast = self.forecast_from(self.prepare("subject", choice, volumes))
        report_folds([("subject", self.folded)])
        last = volumes[len(scans) - 1]
        forecast = as_type(forecast, last.data_type)
        if not isinstance(scans[0], sitk.Image):
            return forecast.reshape(np.shape(scans[0]))
        return image_like(forecast, scans[order[-1]])

    def choose(self, given: Times) -> ContextChoice:
        """Choose the scans that each member takes. A method without training was planned for no number: it takes all.

        :param given: times of all scans that are given and of the target.
        :returns: the choice; each member takes the last scan.
        """
        of_members = [choose_contexts(self.rule, given, member.methods[0].most_scans) for member in self.models.members]
        return ContextChoice(given, of_members)

    def prepare(
        self,
        subject: str,
        choice: ContextChoice,
        volumes: Mapping[int, Volume],
        sources: Mapping[int, str] | None = None,
    ) -> Context:
        """Prepare the scans of a forecast.

        :param choice: of :meth:`choose`.
        :param volumes: at least those that are taken, by their positions in ``given.context``.
        :param sources: their files, for messages.
        :returns: what :meth:`forecast_from` needs.
        :raises DataError: a scan has another number of channels than the model, or the scans do not fit each other.
        """
        plans, given = self.models.plans, choice.given
        for volume in volumes.values():
            if volume.array.shape[0] != len(plans.channel_names):
                raise DataError(
                    f"A scan of {subject} has {volume.array.shape[0]} channels, but the model has "
                    f"{len(plans.channel_names)}: {', '.join(plans.channel_names)}."
                )
        members = []
        for member, contexts in zip(self.models.members, choice.contexts, strict=True):
            taken = sorted(set(chain.from_iterable(contexts)))
            raw = RawSeries(
                subject,
                [f"{subject}_{place}" for place in range(len(taken))],
                [given.context[position] for position in taken],
                [volumes[position] for position in taken],
                sources=[sources[position] for position in taken] if sources else [],
                period=given.period,
            )
            prepared = prepare_volumes(raw, member.plans, member.configuration)
            places = [[taken.index(position) for position in context] for context in contexts]
            members.append(TakenScans(prepared, places))
        return Context(subject, given, volumes[len(given.context) - 1], members)

    def forecast_from(self, context: Context, draw: Draw | None = None) -> np.ndarray:
        """Forecast a volume from prepared scans.

        :param context: of :meth:`prepare`.
        :param draw: what a sample is made with; None: the ordinary forecast.
        :returns: (channels, z, y, x), float32, on the grid and in the units of the last scan.
        """
        given, last = context.given, context.last.array
        if not given.target > given.context[-1]:
            raise DataError(
                f"The requested time {given.target:g} of {context.subject} is not after its last context scan "
                f"({given.context[-1]:g} {self.models.plans.temporal.time_unit}). Forecasts lie in the future of the "
                "scans they are made from."
            )
        for method in self._methods:
            method.folded = 0.0
        shrinkage = self.models.selection.shrinkage
        if shrinkage == 0:  # the LCI, as longflow 0.1 recorded it; no network is needed
            return last.astype(np.float32)
        total, draw = np.zeros_like(last, dtype=np.float32), draw or Draw()
        members, scans = zip(*draw.members(self.models.members, context.members), strict=True)
        for member, taken in zip(self.models.in_turn(members), scans, strict=True):
            total += self._member_forecast(member, taken, given, last, draw)
        return last + shrinkage * (total / len(members) - last)

    @property
    def folded(self) -> float:
        """Largest share of voxels at which the motion of the latest forecast folds."""
        return max(method.folded for method in self._methods)

    @property
    def _methods(self) -> list[Method]:
        return [method for member in self.models.members for method in member.methods]

    def _member_forecast(
        self, member: LoadedMember, taken: TakenScans, given: Times, last: np.ndarray, draw: Draw
    ) -> np.ndarray:
        properties = taken.prepared.properties
        images = np.asarray(taken.prepared.images[...], dtype=np.float32)
        method = member.methods[0]
        # a rung of the ladder in an ensemble has one reduction, whatever that of the trained members
        reduction = (self.models.selection.reduction if method.trains else None) or method.reduction
        windows = draw.windows(replace(self.models.windows(member), reductions=(reduction,)), member)
        times = replace(given, context=properties.times, period=properties.period)
        forecasts = predict_from_contexts(member.methods, images, times, taken.contexts, windows)
        return restore_forecast(forecasts[reduction], taken.prepared, len(properties.times) - 1, last)

    def requests(
        self,
        folder: Path,
        description: DatasetDescription,
        times: Sequence[float] = (),
        hide_context: str | None = None,
        samples: int | None = None,
        spread: Sequence[str] | None = None,
        seed: int = 0,
    ) -> list[ForecastRequest]:
        """List the rows without an image, or the requested times for every subject.

        :param times: requested times, in time units.
        :param hide_context: ``first:K`` or ``last:K``: forecast without these context scans.
        :param samples: of each forecast, which is then their mean; None: one forecast.
        :param spread: what samples differ by; None: all that the model has.
        :param seed: of the samples.
        """
        hidden = None if hide_context is None else HiddenContext.of(hide_context)
        if samples is None and (spread or seed):
            raise ConfigurationError("--spread and --seed are for several samples. Give their number: --samples 20.")
        sampling = None if samples is None else Sampling.of(self.models, samples, spread, seed)
        self.forget()  # the files may have changed since
        requests = forecast_requests(folder, description, times, hidden)
        if sampling:
            logger.info("%s.", sampling)
        return [replace(with_conditions(item, self.models.plans), sampling=sampling) for item in requests]

    def conditions(self, item: ForecastRequest) -> dict[str, Any]:
        """Return the hidden context, the test protocol and the samples, which all forecasts of a folder share."""
        return {
            "hide_context": str(item.hidden) if item.hidden else None,
            "test_protocol": item.protocol or None,
            "samples": item.sampling.record() if item.sampling else None,
        }

    def files(self, item: ForecastRequest, folder: Path, description: DatasetDescription) -> list[Path]:
        """Return the images of :func:`forecast_images`, and those of the samples with their standard deviation."""
        names = [DEVIATION, *range(item.sampling.number)] if item.sampling else []
        further = sample_files(folder, item.target.case, names, description)
        return [*forecast_images(item, folder, description), *chain.from_iterable(further)]

    def inputs(self, item: ForecastRequest) -> list[Path]:
        """Return the images of the context scans that are taken."""
        return [path for scan in self._taken_scans(item) for path in scan.images]

    def read(self, item: ForecastRequest) -> Context:
        """Read and prepare the taken scans. Scans of the request before are kept: mostly they are the same.

        Where other scans are taken, as for targets between the scans of a subject, they are prepared for each target,
        since crop and normal form depend on all of them; only the new ones are read.
        """
        choice, scans = self._choice(item), self._taken_scans(item)
        if self._context is None or self._context[:2] != (item.context, choice.contexts):
            self._context = None  # frees the memory first
            known = {scan.images: self._volumes[scan.images] for scan in scans if scan.images in self._volumes}
            self._volumes = known
            for scan in scans:
                if scan.images not in known:
                    volume = read_scan(scan.images)
                    plans = self.models.plans
                    known[scan.images] = volume, input_warnings(volume, scan, plans), look_at(volume, plans)
            self._context = item.context, choice.contexts, self._prepared(item, scans, choice)
        return replace(self._context[-1], given=choice.given)

    def verdict(self, item: ForecastRequest, scans: Context) -> Verdict:
        """Judge the scans that are taken, their times and the horizon."""
        cases = [scan.case for scan in self._taken_scans(item)]
        return judge_series(scans.looks, scans.given.context, item.horizon, self.models.plans, cases)

    def make(self, item: ForecastRequest, scans: Context) -> Forecast:
        """Forecast the target, in the units of the last context scan."""
        return self._made(scans, self.forecast_from(scans), self.folded)

    def make_into(
        self, item: ForecastRequest, scans: Context, folder: Path, description: DatasetDescription
    ) -> Forecast:
        """Forecast the target; of several samples, write each as it comes and return their mean."""
        sampling = item.sampling
        if sampling is None:
            return self.make(item, scans)
        warnings, folded = sampling.check(scans.members, scans.subject), 0.0

        def make(number: int) -> np.ndarray:
            nonlocal folded
            sample = self.forecast_from(scans, sampling.draw(number))
            folded = max(folded, self.folded)
            return sample

        files = sample_files(folder, item.target.case, range(sampling.number), description)
        mean, deviation = collect_samples(make, scans.last, files)
        made = self._made(scans, mean, folded)
        return replace(made, deviation=deviation, warnings=[*made.warnings, *warnings])

    def _made(self, scans: Context, array: np.ndarray, folded: float) -> Forecast:
        """Return a forecast with what is said about it. :param folded: largest share of voxels that fold."""
        member = scans.members[0]
        self._folds.append((scans.subject, folded))
        warnings = [*scans.warnings, *fold_warning(folded)]
        temporal = self.models.members[0].plans.temporal
        times = replace(scans.given, context=member.prepared.properties.times)
        found = context_recurrence(times, member.prepared.coarse, temporal)
        return Forecast(array, scans.last.geometry, scans.last.data_type, warnings, found)

    def write(
        self, item: ForecastRequest, made: Forecast, folder: Path, description: DatasetDescription
    ) -> dict[str, Any]:
        """Write the forecast; warn of a horizon longer than any trained on."""
        for array, path in zip(made.array, forecast_images(item, folder, description), strict=True):
            write_volume(array, made.geometry, made.data_type, path)
        if made.deviation is not None:
            (files,) = sample_files(folder, item.target.case, [DEVIATION], description)
            for array, path in zip(made.deviation, files, strict=True):
                write_volume(array, made.geometry, "float32", path)
        of_first_member = sorted(set(chain.from_iterable(self._choice(item).contexts[0])))
        return {
            **context_fields(self._taken_scans(item), self.rule),
            **recurrence_fields(made.recurrence, [item.context[position] for position in of_first_member]),
            **horizon_fields(item, self.models.plans),
            "warnings_of_input": made.warnings,
        }

    def finish(self, folder: Path) -> None:
        """Report motion that folds, and free the memory of the last subject's scans; there are no further tables."""
        report_folds(self._folds)
        self.forget()

    def forget(self) -> None:
        """Free the memory of the scans that were read last, and of the folder's requests."""
        self._volumes, self._context, self._choices, self._folds = {}, None, {}, []

    def settings(self) -> dict[str, Any]:
        """Return what a forecast depends on apart from its scans."""
        selection, method = self.models.selection, self.models.members[0].methods[0]
        return {
            **super().settings(),
            "reduction": selection.reduction or method.reduction,
            "shrinkage": selection.shrinkage,
            "context_rule": self.rule,
            **solver_settings(method),
        }

    def _choice(self, item: ForecastRequest) -> ContextChoice:
        """Choose the scans of a request, once for each case of a folder."""
        case = item.target.case
        if case not in self._choices:
            times, covariates = [scan.time for scan in item.context], item.conditions.get("covariates", {})
            given = Times(times, item.target.time, item.conditions.get("period"), covariates)
            self._choices[case] = self.choose(given)
        return self._choices[case]

    def _taken_scans(self, item: ForecastRequest) -> list[Scan]:
        """List the context scans that any member takes, in order of time."""
        return [item.context[position] for position in self._choice(item).taken]

    def _prepared(self, item: ForecastRequest, scans: Sequence[Scan], choice: ContextChoice) -> Context:
        """Prepare scans that were read; check that they share a grid."""
        volumes, warnings, looks = zip(*(self._volumes[scan.images] for scan in scans), strict=True)
        first = f"{scans[0].images[0]} of the same subject"
        for scan, volume in zip(scans, volumes, strict=True):
            check_same_grid(volume.geometry, scan.images[0], volumes[0].geometry, first, REGISTER)
        sources = {position: str(scan.images[0]) for position, scan in zip(choice.taken, scans, strict=True)}
        by_position = dict(zip(choice.taken, volumes, strict=True))
        context = self.prepare(scans[0].subject, choice, by_position, sources)
        return replace(context, warnings=[sentence for some in warnings for sentence in some], looks=list(looks))


def context_fields(used: Sequence[Scan], rule: Rule) -> dict[str, Any]:
    """Say which of the given scans a forecast was made from, for the sidecar.

    :param used: those that the models take, in order of time.
    :param rule: by which they were chosen.
    :returns: ``context_rule`` and ``context_used``.
    """
    return {"context_rule": rule, "context_used": [scan.case for scan in used]}


def recurrence_fields(found: Recurrence | None, scans: Sequence[Scan]) -> dict[str, Any]:
    """Say how the scans repeat, for the sidecar: evaluation makes the rung ``recurrence`` of it.

    :param found: period and weights; None where scans are not taken to repeat.
    :param scans: the scans that the weights belong to, in order of time.
    :returns: ``recurrence``, with ``period`` in time units and ``weights`` by case; nothing for None.
    """
    if found is None:
        return {}
    weights = {scan.case: float(weight) for scan, weight in zip(scans, found.weights, strict=True)}
    return {"recurrence": {"period": found.period, "weights": weights}}


def horizon_fields(item: ForecastRequest, plans: Plans) -> dict[str, Any]:
    """Compare horizon and covariates with those that were trained on, for the sidecar.

    :param item: the requested forecast.
    :param plans: with the longest horizon of training, and, if known, the shortest.
    :returns: ``horizon_outside_training`` and ``warnings``.
    """
    unit, longest = plans.temporal.time_unit, plans.temporal.longest_horizon
    shortest = (plans.training_data and plans.training_data.shortest_interval) or 0.0
    limit = None
    if item.horizon > longest:
        limit = f"longer than any that the model was trained on ({longest:g}): an extrapolation."
    elif item.horizon < shortest * (1 - 1e-9):
        limit = f"shorter than any that the model was trained on ({shortest:g})."
    warnings = [f"The horizon of {item.horizon:g} {unit} is {limit}"] if limit else []
    warnings += covariate_warnings(item.conditions.get("covariates", {}), plans)
    return {"horizon_outside_training": limit is not None, "warnings": warnings}


def restore_forecast(forecast: np.ndarray, prepared: PreparedSeries, last: int, raw: np.ndarray) -> np.ndarray:
    """Convert a forecast from the normal form to the grid and units of the last context scan.

    :param forecast: (channels, z, y, x), on the prepared grid.
    :param last: index of the last context scan in ``prepared``.
    :param raw: (channels, z, y, x), the last context scan as it was read.
    :returns: (channels, z, y, x), on the grid of ``raw``.
    """
    last_context = np.asarray(prepared.images[last], dtype=np.float32)
    return export_forecast(forecast, last_context, raw, prepared.properties, last)


def _known_rule(rule: str) -> Rule:
    if rule not in RULES:
        raise ConfigurationError(
            f"The context rule '{rule}' of best.json is not one of: {', '.join(RULES)}. Run longflow_find_best again."
        )
    return rule


def _known_reduction(member: LoadedMember, reduction: str) -> None:
    known = member.methods[0].reductions
    if member.methods[0].trains and reduction not in known:
        raise ConfigurationError(
            f"The reduction '{reduction}' is not one of {member.member.model.method}: {', '.join(known)}."
        )
