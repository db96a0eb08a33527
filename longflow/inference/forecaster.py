"""The Python interface: scans and times in, a forecast out, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import SimpleITK as sitk
import torch

from longflow.data.images import Geometry, Volume, as_type
from longflow.errors import ConfigurationError, DataError, unknown_name
from longflow.inference.selection import Member, Selection, select
from longflow.inference.sliding_window import predict_volume
from longflow.methods.method import Method, build_method, method_class
from longflow.methods.weights import load_method
from longflow.networks.precision import default_device
from longflow.plans import Plans, Solver, read_plans
from longflow.preprocessing.series import PreparedSeries, export_forecast, prepare_volumes


@dataclass
class LoadedMember:
    """A model of the ensemble with its folds on the device."""

    member: Member
    plans: Plans
    methods: list[Method]

    @property
    def configuration(self) -> str:
        return self.member.model.configuration


@dataclass
class Forecaster:
    """A trained model, ready to forecast.

    >>> forecaster = Forecaster.load(dataset=101)                                    # doctest: +SKIP
    >>> forecast = forecaster.predict([scan_a, scan_b], times=[0, 210], target=400)  # doctest: +SKIP

    :param selection: which models, folds, reduction and shrinkage.
    """

    selection: Selection
    device: torch.device
    members: list[LoadedMember] = field(default_factory=list)
    tile_step_size: float | None = None
    mirror: bool = False

    @classmethod
    def load(
        cls,
        dataset: str | int | None = None,
        configuration: str | None = None,
        method: str | None = None,
        folds: Sequence[int] | None = None,
        device: str | None = None,
        solver: str | None = None,
        steps: int | None = None,
        mirror: bool = False,
    ) -> "Forecaster":
        """Load a trained model; what is not given is found as ``longflow_predict`` finds it.

        :param device: "cpu", "cuda", "cuda:1", "mps"; by default a GPU where there is one.
        :param solver: as in the plans; by default the plan's. :param steps: of the solver.
        :raises LongflowError: nothing trained fits, or several models do.
        """
        if solver is not None and solver not in get_args(Solver):
            raise unknown_name("solver", solver, get_args(Solver))
        name = None if dataset is None else str(dataset)
        chosen = select(name, configuration, method, None if folds is None else tuple(folds))
        forecaster = cls(chosen, torch.device(device) if device else default_device(), mirror=mirror)
        for member in chosen.members:
            forecaster.members.append(_load(member, forecaster.device, solver, steps))
        if chosen.reduction is not None:
            for member in forecaster.members:
                _known_reduction(member, chosen.reduction)
        return forecaster

    @property
    def plans(self) -> Plans:
        """The plans of the first member: all members share channels and time unit."""
        return self.members[0].plans

    def predict(
        self,
        scans: Sequence[np.ndarray | sitk.Image],
        times: Sequence[float],
        target: float,
        spacing: Sequence[float] | None = None,
    ) -> np.ndarray | sitk.Image:
        """Forecast the scan at time ``target``.

        :param scans: earlier scans of one subject on one grid: SimpleITK images, or arrays (z, y, x) or, with several
            channels, (channels, z, y, x).
        :param times: time of each scan, in the time unit of the dataset that was trained on.
        :param target: the wanted time, after the last scan.
        :param spacing: mm, (z, y, x); needed for arrays, taken from the image otherwise.
        :returns: an image or array like the given ones, in their units.
        :raises DataError: scans and times do not fit each other, or the target is not after the last scan.
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
        volumes = [_volume(scans[index], spacing) for index in order]
        forecast = self.forecast("subject", [float(times[index]) for index in order], volumes, float(target))
        last = volumes[-1]
        forecast = as_type(forecast, last.data_type)
        if not isinstance(scans[0], sitk.Image):
            return forecast.reshape(np.shape(scans[0]))
        images = [sitk.GetImageFromArray(channel) for channel in forecast]
        image = images[0] if len(images) == 1 else sitk.Compose(images)
        image.CopyInformation(scans[order[-1]])
        return image

    def forecast(self, subject: str, times: Sequence[float], volumes: Sequence[Volume], target: float) -> np.ndarray:
        """The forecast (channels, z, y, x), float32, on the grid and in the units of the last volume.

        :param times: of the volumes, ascending. :param target: after the last of them.
        """
        channels = len(self.plans.channel_names)
        for volume in volumes:
            if volume.array.shape[0] != channels:
                raise DataError(
                    f"A scan of {subject} has {volume.array.shape[0]} channels, but the model has {channels}: "
                    f"{', '.join(self.plans.channel_names)}."
                )
        if not target > times[-1]:
            raise DataError(
                f"The wanted time {target:g} of {subject} is not after its last context scan ({times[-1]:g} "
                f"{self.plans.temporal.time_unit}). Forecasts lie in the future of the scans they are made from."
            )
        last = volumes[-1].array
        total = np.zeros_like(last, dtype=np.float32)
        for member in self.members:
            total += self._member_forecast(member, subject, times, volumes, target)
        return last + self.selection.shrinkage * (total / len(self.members) - last)

    def context_length(self) -> int:
        """How many of the latest scans are used at most."""
        return max(member.plans.temporal.sequence_length for member in self.members)

    def _member_forecast(
        self, member: LoadedMember, subject: str, times: Sequence[float], volumes: Sequence[Volume], target: float
    ) -> np.ndarray:
        length = member.plans.temporal.sequence_length
        times, volumes = list(times[-length:]), list(volumes[-length:])
        cases = [f"{subject}_{position}" for position in range(len(times))]
        prepared = prepare_volumes(subject, cases, times, volumes, member.plans, member.configuration)
        tile_step = self.tile_step_size or member.plans.inference.tile_step_size
        context = np.asarray(prepared.images[...], dtype=np.float32)
        forecasts = predict_volume(member.methods, context, times, target, self.device, tile_step, self.mirror)
        reduction = self.selection.reduction or member.methods[0].reductions[0]
        return restore(forecasts[reduction], prepared, len(times) - 1, volumes[-1].array)


def restore(forecast: np.ndarray, prepared: PreparedSeries, last: int, raw: np.ndarray) -> np.ndarray:
    """A forecast in the normal form to the grid and units of the last context scan (index ``last``)."""
    last_context = np.asarray(prepared.images[last], dtype=np.float32)
    return export_forecast(forecast, last_context, raw, prepared.properties, last)


def _load(member: Member, device: torch.device, solver: str | None, steps: int | None) -> LoadedMember:
    """The methods of a member: one for each fold, or one without weights where there is nothing to train."""
    model = member.model
    plans = read_plans(model.plans)
    if method_class(model.method).trains:
        files = [model.fold(fold).final for fold in member.folds]
        methods = [load_method(file, model.method, plans, model.configuration) for file in files]
    else:
        methods = [build_method(model.method, plans, model.configuration).eval()]
    for method in methods:
        method.to(device)
        method.solver = solver or method.solver
        method.steps = steps or method.steps
    return LoadedMember(member, plans, methods)


def _known_reduction(member: LoadedMember, reduction: str) -> None:
    known = member.methods[0].reductions
    if reduction not in known:
        raise ConfigurationError(
            f"The reduction '{reduction}' is not one of {member.member.model.method}: {', '.join(known)}."
        )


def _volume(scan: np.ndarray | sitk.Image, spacing: Sequence[float] | None) -> Volume:
    if isinstance(scan, sitk.Image):
        array = sitk.GetArrayFromImage(scan)
        array = np.moveaxis(array, -1, 0) if scan.GetNumberOfComponentsPerPixel() > 1 else array[None]
        return Volume(array.astype(np.float32), Geometry.of(scan), array.dtype.name)
    array = np.asarray(scan)
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or spacing is None or len(spacing) != 3:
        raise DataError(
            f"Arrays need the shape (z, y, x) or (channels, z, y, x) and a spacing of three numbers in mm, "
            f"found shape {np.shape(scan)} and spacing {spacing}."
        )
    geometry = Geometry(
        size=array.shape[:0:-1],
        spacing=tuple(float(value) for value in reversed(spacing)),
        origin=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    return Volume(array.astype(np.float32), geometry, array.dtype.name)
