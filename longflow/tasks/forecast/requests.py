"""The forecasts that a folder requests, and the scans that are given for each."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longflow.data.dataset import DatasetDescription, Scan, Series, image_path
from longflow.errors import DataError, first_few
from longflow.inference.requests import input_series
from longflow.tasks.forecast.hidden_context import HiddenContext
from longflow.tasks.forecast.protocol import TestProtocol, protocol_of_folder

if TYPE_CHECKING:
    from longflow.tasks.forecast.sampling import Sampling

logger = logging.getLogger(__name__)

#: folder of the samples in the output folder, with a folder for each case; the map of standard deviations is among them
SAMPLES = "samples"
DEVIATION = "std"


@dataclass(frozen=True)
class ForecastRequest:
    """One forecast to make.

    :param target: the requested scan.
    :param context: all scans that are given, those before the target, in order of time; a model takes some of them.
    :param hidden: the rule by which context scans were hidden; ``context`` holds the rest.
    :param protocol: of the test that drew target and context; empty: all scans before the target are given.
    :param conditions: ``period`` and ``covariates``, where the model has them, as in the sidecar
        (:func:`longflow.tasks.forecast.conditions.with_conditions`).
    :param sampling: how several samples are drawn; None: one forecast.
    """

    target: Scan
    context: tuple[Scan, ...]
    hidden: HiddenContext | None = None
    protocol: str = ""
    conditions: dict[str, Any] = field(default_factory=dict, hash=False)
    sampling: "Sampling | None" = None

    @property
    def horizon(self) -> float:
        """Return target time minus last context time, in time units."""
        return self.target.time - self.context[-1].time

    def provenance(self) -> dict[str, Any]:
        """Return the fields of the sidecar that say what is requested and given."""
        return {
            "case": self.target.case,
            "subject": self.target.subject,
            "target_time": self.target.time,
            "horizon": self.horizon,
            "context": [scan.case for scan in self.context],
            "context_times": [scan.time for scan in self.context],
            "hide_context": str(self.hidden) if self.hidden else None,
            "test_protocol": self.protocol or None,
            **self.conditions,
            **({"samples": self.sampling.record()} if self.sampling else {}),
        }


def forecast_requests(
    folder: Path,
    description: DatasetDescription,
    times: Sequence[float],
    hidden: HiddenContext | None = None,
) -> list[ForecastRequest]:
    """List the forecasts that a folder requests: its rows without an image, or ``times`` for every subject.

    Without ``times``, the stored test protocol of a folder ``imagesTs`` decides: it has the targets, which may be scans
    with images, and the scans that are given for each (:mod:`longflow.tasks.forecast.protocol`).

    :param times: in time units; empty: the rows without an image.
    :param hidden: hides scans of each such context. Where it would hide all, one scan is kept, and the log says so.
    :returns: the requests, by subject and time.
    :raises DataError: nothing is requested; a scan lacks a channel; a target has no earlier scan.
    """
    if infinite := [time for time in times if not math.isfinite(time)]:
        raise DataError(f"The requested time {infinite[0]} is not a finite number.")
    all_series, problems = input_series(folder, description)
    protocol = None if times or problems else protocol_of_folder(folder, all_series)
    requests = _of_protocol(protocol, all_series) if protocol else []
    for series in () if protocol else all_series:
        context = series.with_images().scans
        for target in _targets(series, times, folder, description):
            earlier = tuple(scan for scan in context if scan.time < target.time)
            if earlier:
                requests.append(ForecastRequest(target, earlier))
            else:
                first = f"its first scan is at {context[0].time:g}" if context else "it has no scan with an image"
                problems.append(
                    f"  {target.case}: subject {series.subject} is requested at time {target.time:g}, but {first}. "
                    "A forecast needs at least one earlier scan."
                )
    if problems:
        raise DataError(f"{folder} cannot be forecast:\n" + "\n".join(problems))
    if not requests:
        raise DataError(
            f"{folder} requests no forecast: every row of its scans.csv has an image. Add a row (case,subject,time) "
            "without an image for each scan to forecast, or give times for every subject with -t. To test on scans of "
            "imagesTs themselves, draw a protocol with longflow_verify --test_protocol."
        )
    return _with_hidden_scans(requests, hidden) if hidden else requests


def forecast_images(item: ForecastRequest, folder: Path, description: DatasetDescription) -> list[Path]:
    """Return ``{case}_{channel:04d}{file_ending}`` of each channel of a forecast, as for every scan."""
    channels = range(len(description.channels))
    return [image_path(folder, item.target.case, channel, description) for channel in channels]


def sample_files(
    folder: Path, case: str, names: Iterable[int | str], description: DatasetDescription
) -> list[tuple[Path, ...]]:
    """Return the files of samples: ``samples/{case}/{case}_s00_{channel:04d}{file_ending}``.

    :param folder: of the forecasts.
    :param names: numbers of samples, or ``DEVIATION``.
    :param description: of the dataset.
    :returns: for each name the file of each channel.
    """
    cases = [f"{case}_{name}" if isinstance(name, str) else f"{case}_s{name:02d}" for name in names]
    channels = range(len(description.channels))
    return [
        tuple(image_path(folder / SAMPLES / case, one, channel, description) for channel in channels) for one in cases
    ]


def _of_protocol(protocol: TestProtocol, all_series: Sequence[Series]) -> list[ForecastRequest]:
    """List the targets of a protocol, each with the context scans that it gives."""
    scans = {scan.case: scan for series in all_series for scan in series.scans}
    logger.info("Targets and context scans are those of the test protocol: %s.", protocol.settings)
    return [
        ForecastRequest(scans[one.target], tuple(scans[case] for case in one.context), protocol=str(protocol.settings))
        for one in protocol.targets
    ]


def _with_hidden_scans(requests: Sequence[ForecastRequest], hidden: HiddenContext) -> list[ForecastRequest]:
    """Return the same targets, forecast from the rest of their contexts."""
    if short := [item.target.case for item in requests if hidden.is_too_many(item.context)]:
        logger.warning(
            "--hide_context %s: %d of %d targets have no more than %d context scans (%s). One scan is kept for each.",
            *(hidden, len(short), len(requests), hidden.count, first_few(short)),
        )
    return [replace(item, context=hidden.rest(item.context), hidden=hidden) for item in requests]


def _targets(series: Series, times: Sequence[float], folder: Path, description: DatasetDescription) -> list[Scan]:
    if not times:
        return [scan for scan in series.scans if not any(path.is_file() for path in scan.images)]
    cases = [(f"{series.subject}_t{time:.15g}", time) for time in dict.fromkeys(times)]
    channels = range(len(description.channels))
    return [
        Scan(case, series.subject, time, tuple(image_path(folder, case, channel, description) for channel in channels))
        for case, time in cases
    ]
