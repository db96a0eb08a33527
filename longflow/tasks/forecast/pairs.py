"""Forecasts with their references and context scans; only sidecars, tables and headers are opened."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from longflow.data.covariates import Covariates
from longflow.data.dataset import DatasetDescription, is_name, sidecar_path
from longflow.errors import DataError, first_few
from longflow.evaluation.references import (
    Files,
    Library,
    Prediction,
    all_channels,
    joined_names,
    predicted_cases,
    read_sidecar,
)
from longflow.tasks.forecast.requests import sample_files
from longflow.tasks.forecast.task import TASK

SIDECAR_KEYS = ("case", "subject", "target_time", "horizon", "context")

#: end of the message for a scan on another grid
OWN_GRID = "A forecast can only be compared with scans on its own grid."


@dataclass(frozen=True, kw_only=True)
class ForecastPrediction(Prediction):
    """A forecast, as its sidecar describes it.

    :param target_time: time units.
    :param horizon: target time minus last context time, time units.
    :param context: cases that it was predicted from.
    :param context_times: their times; the last context image is the one with the latest.
    :param context_images: files of the context scans in order of time; empty until they are found.
    :param period: after which the subject's scans repeat, time units; None: not known.
    :param covariates: at the target time, by name; None where a value is not known.
    :param recurrence: weight of each context scan in the expected scan, by case; empty where scans do not repeat.
    :param protocol: of the test, with its settings; empty: none drew the target and its context.
    :param units: gain and offset of each channel, from the reference's file to the units in which the forecast is
        judged (:func:`longflow.tasks.forecast.units.with_units`); empty: those of the file.
    :param samples: files of the samples that the forecast is the mean of; empty: it is one forecast.
    """

    target_time: float
    horizon: float
    context: tuple[str, ...]
    context_times: tuple[float, ...]
    context_images: tuple[Files, ...] = ()
    period: float | None = None
    covariates: Covariates = field(default_factory=dict)
    recurrence: dict[str, float] = field(default_factory=dict)
    protocol: str = ""
    units: tuple[tuple[float, float], ...] = ()
    samples: tuple[Files, ...] = ()


def forecasts_of_folder(folder: Path, description: DatasetDescription) -> list[ForecastPrediction]:
    """List the forecasts of a folder, sorted by case.

    :raises DataError: the folder is missing or holds no forecast, a sidecar is missing or incomplete, a channel is.
    """
    return [_forecast(folder, case, description) for case in predicted_cases(folder, description, TASK.words)]


def _forecast(folder: Path, case: str, description: DatasetDescription) -> ForecastPrediction:
    path = sidecar_path(folder, case)
    purpose = "the context scans that LCI and the other baselines are computed from"
    sidecar = read_sidecar(path, SIDECAR_KEYS, TASK.words, purpose)
    context = sidecar["context"]
    if not context or not isinstance(context, list):
        raise DataError(f"{path} names no context scan, so there is no last context image to compare with.")
    if strange := [name for name in context if not isinstance(name, str) or not is_name(name)]:
        raise DataError(f"{path} names the context scan '{strange[0]}', expected a case: a name without slashes.")
    times = sidecar.get("context_times", list(range(len(context))))
    numbers = [sidecar["target_time"], sidecar["horizon"], *(times if isinstance(times, list) else [None])]
    if not all(map(_is_number, numbers)):
        raise DataError(f"{path}: target_time, horizon and context_times must be numbers.")
    if len(times) != len(context) or ("context_times" in sidecar and max(times) >= sidecar["target_time"]):
        raise DataError(f"{path}: context_times must hold a time for each scan of context, all before target_time.")
    period = sidecar.get("period")
    if period is not None and not (isinstance(period, int | float) and 0 < period < math.inf):
        raise DataError(f"{path}: period is {period!r}, expected a number above 0 or null.")
    covariates = sidecar.get("covariates", {})
    if not isinstance(covariates, dict) or not all(_is_known_or_null(value) for value in covariates.values()):
        raise DataError(f"{path}: covariates is {covariates!r}, expected a number or null by name.")
    recurrence = sidecar.get("recurrence", {"weights": {}})
    weights = recurrence.get("weights") if isinstance(recurrence, dict) else None
    if not (isinstance(weights, dict) and set(weights) <= set(context) and all(map(_is_number, weights.values()))):
        raise DataError(
            f"{path}: recurrence is {recurrence!r}, expected a weight for cases of 'context', in 'weights'."
        )
    return ForecastPrediction(
        case=case,
        subject=str(sidecar["subject"]),
        images=all_channels(folder, case, description, TASK.words),
        method=joined_names(sidecar.get("method", "forecast")),
        target_time=float(sidecar["target_time"]),
        horizon=float(sidecar["horizon"]),
        context=tuple(context),
        context_times=tuple(times),
        period=period,
        covariates=covariates,
        recurrence=weights,
        protocol=str(sidecar.get("test_protocol") or ""),
        samples=_samples(path, sidecar.get("samples"), case, description),
    )


def _samples(path: Path, record: object, case: str, description: DatasetDescription) -> tuple[Files, ...]:
    """Return the files of the samples that a sidecar names. :param record: ``samples`` of the sidecar."""
    if record is None:
        return ()
    number = record.get("number") if isinstance(record, dict) else None
    if not isinstance(number, int) or number < 2:
        raise DataError(f"{path}: samples is {record!r}, expected an object with 'number' of 2 or more, or null.")
    files = tuple(sample_files(path.parent, case, range(number), description))
    if missing := [str(file) for of_sample in files for file in of_sample if not file.is_file()]:
        raise DataError(
            f"{path} names {number} samples, but there is no {first_few(missing, most=1)}. Run longflow_predict again."
        )
    return files


def _is_known_or_null(value: object) -> bool:
    return value is None or _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def find_pairs(
    forecasts: Sequence[ForecastPrediction], folders: Sequence[Path], description: DatasetDescription
) -> tuple[list[ForecastPrediction], list[str]]:
    """Find the reference and the context scans of forecasts.

    A reference has the forecast's case, or else its subject and time (``{subject}_t{time}`` has no case of its own).

    :param folders: of acquired scans, searched in this order.
    :returns: the forecasts that have a reference, with their files; the cases of the others.
    :raises DataError: no forecast has a reference, or context scans of one that has are missing.
    """
    library = Library(tuple(Path(folder) for folder in folders), description)
    pairs, without = [], []
    for forecast in forecasts:
        reference = library.by_case(forecast.case) or library.by_time(forecast.subject, forecast.target_time)
        if reference is None or reference == forecast.images:
            without.append(forecast.case)
            continue
        in_order = sorted(zip(forecast.context_times, forecast.context, strict=False))
        context = tuple(library.by_case(case) for _, case in in_order)
        if missing := [case for (_, case), files in zip(in_order, context, strict=True) if files is None]:
            raise DataError(
                f"The context scans {', '.join(missing)} of the forecast {forecast.case} are in none of: {library}. "
                "LCI and the other baselines are made of them. Give the folder they were predicted from: -r FOLDER"
            )
        pairs.append(replace(forecast, reference=reference, context_images=context))
    if not pairs:
        raise DataError(
            f"None of the {len(forecasts)} forecasts has an acquired scan to be compared with. "
            f"Looked for {forecasts[0].case}{', ...' if len(forecasts) > 1 else ''} by name and by subject and time "
            f"in: {library}. Give the folder that holds the acquired scans: -r FOLDER"
        )
    return pairs, without
