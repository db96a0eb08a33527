"""What a folder asks for: which predictions, and from which scans; files are not opened."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from longflow.data.dataset import PHASE, DatasetDescription, Scan, Series, image_path, rows_of_folder, series_of_folder
from longflow.errors import ConfigurationError, DataError, first_few, unknown_name
from longflow.tasks.forecast.hidden_context import HiddenContext

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What is asked of every subject of a folder, beside what its table says.

    :param times: wanted times of forecasts, instead of the rows without an image. :param phase: wanted phase of
        translations; None: the other one. :param hidden: context scans that forecasts are not made from.
    """

    times: tuple[float, ...] = ()
    phase: str | None = None
    hidden: HiddenContext | None = None


NOTHING_ASKED = Asked()


class Item(Protocol):
    """One prediction to make, of whatever task.

    :param target: what is written, as it will stand in the output's scans.csv.
    """

    target: Scan

    def provenance(self) -> dict[str, Any]:
        """What is made from what, as it stands in a sidecar: a prediction made from other scans is made anew."""
        ...


@dataclass(frozen=True)
class ForecastRequest:
    """One forecast to make: the target's case, and the scans it is made from, in order of time.

    :param hidden: what was hidden; ``context`` is the rest.
    """

    target: Scan
    context: tuple[Scan, ...]
    hidden: HiddenContext | None = None

    @property
    def horizon(self) -> float:
        """Target time minus last context time, in time units."""
        return self.target.time - self.context[-1].time

    def provenance(self) -> dict[str, Any]:
        """What is forecast from what, as it stands in a sidecar."""
        return {
            "case": self.target.case,
            "subject": self.target.subject,
            "target_time": self.target.time,
            "horizon": self.horizon,
            "context": [scan.case for scan in self.context],
            "context_times": [scan.time for scan in self.context],
            "hide_context": str(self.hidden) if self.hidden else None,
        }


@dataclass(frozen=True)
class SegmentationRequest:
    """One scan to segment."""

    target: Scan

    def provenance(self) -> dict[str, Any]:
        """What is segmented, as it stands in a sidecar."""
        return {
            "case": self.target.case,
            "subject": self.target.subject,
            "time": self.target.time,
            "images": [path.name for path in self.target.images],
        }


@dataclass(frozen=True)
class TranslationRequest:
    """One scan to translate: the source as it is, and the target, the same subject and time in the other phase."""

    source: Scan
    target: Scan

    @classmethod
    def of(cls, source: Scan, phase: str) -> "TranslationRequest":
        """A scan that is wanted in another phase: case ``{source case}_{phase}``."""
        further = {**source.covariates, PHASE: phase}
        return cls(source, Scan(f"{source.case}_{phase}", source.subject, source.time, (), covariates=further))

    def provenance(self) -> dict[str, Any]:
        """What is translated into what, as it stands in a sidecar."""
        return {
            "case": self.target.case,
            "subject": self.target.subject,
            "time": self.target.time,
            "source": self.source.case,
            "source_phase": self.source.phase,
            "target_phase": self.target.phase,
            "images": [path.name for path in self.source.images],
        }


def segmentation_requests(folder: Path, description: DatasetDescription) -> list[SegmentationRequest]:
    """The scans of a folder that have images; rows without an image (wanted forecasts) are left out, and said so.

    :raises DataError: there is no scan; a scan lacks a channel or has one too many.
    """
    return [SegmentationRequest(scan) for scan in _scans_with_images(folder, description, "segment")]


def translation_requests(
    folder: Path, description: DatasetDescription, phases: Sequence[str], asked_phase: str | None
) -> list[TranslationRequest]:
    """The scans of a folder that are not in the wanted phase; the others are left out, and said so.

    The phase of each scan comes from the folder's table. Where none is asked for, it is the other one.

    :param phases: of the model, that at t = 0 first.
    :raises NotFoundError: the model does not know the phase that is asked for.
    :raises ConfigurationError: every scan is in that phase already; or none is asked for and both phases are there.
    :raises DataError: there is no scan; a scan has no phase or an unknown one, lacks a channel or has one too many.
    """
    if asked_phase is not None and asked_phase not in phases:
        raise unknown_name("phase", asked_phase, phases, hint="(--to, the phases that the model was trained with.)")
    scans = _scans_with_images(folder, description, "translate")
    _check_phases(folder, scans, phases)
    counts = {phase: sum(scan.phase == phase for scan in scans) for phase in phases}
    if asked_phase is None and all(counts.values()):
        raise ConfigurationError(
            f"{folder} holds scans of both phases ({', '.join(f'{counts[phase]} {phase}' for phase in phases)}). Say "
            f"which phase is wanted, with --to {phases[0]} or --to {phases[1]}."
        )
    first, second = phases
    wanted = asked_phase or (second if counts[first] else first)
    sources = [scan for scan in scans if scan.phase != wanted]
    if not sources:
        raise ConfigurationError(
            f"Every scan of {folder} is in the phase '{wanted}' already ({len(scans)} scans): there is nothing to "
            f"translate. The other phase is '{first if wanted == second else second}'."
        )
    if kept := [scan.case for scan in scans if scan.phase == wanted]:
        logger.info("Scans that are in the phase '%s' already are left out: %s.", wanted, first_few(kept))
    return [TranslationRequest.of(scan, wanted) for scan in sources]


def _check_phases(folder: Path, scans: Sequence[Scan], phases: Sequence[str]) -> None:
    """Every scan has a phase that the model knows."""
    lines = {row.case: row.line for row in rows_of_folder(folder)}
    expected = " or ".join(phases)
    if not any(scan.phase for scan in scans):
        raise DataError(
            f"The table of {folder} gives no phase: its column '{PHASE}' is missing or empty, from line "
            f"{lines[scans[0].case]} (case {scans[0].case}) on. Add it, with the phase in which each scan was "
            f"acquired: {expected}."
        )
    wrong = [
        f"  {scan.case} (line {lines[scan.case]}): "
        + (f"its phase is '{scan.phase}'" if scan.phase else "it has no phase")
        + f", expected {expected}."
        for scan in scans
        if scan.phase not in phases
    ]
    if wrong:
        raise DataError(
            f"{folder} cannot be translated. Correct the column '{PHASE}' of its table; capital letters count:\n"
            + "\n".join(wrong)
        )


def _scans_with_images(folder: Path, description: DatasetDescription, verb: str) -> list[Scan]:
    """Every scan that has images; rows without an image (wanted forecasts) are left out, and said so."""
    all_series = _series(folder, description)
    if problems := [line for series in all_series for line in _wrong_channels(series, description)]:
        raise DataError(f"{folder} cannot be {verb.removesuffix('e')}ed:\n" + "\n".join(problems))
    scans = [scan for series in all_series for scan in series.scans]
    found = [scan for scan in scans if scan.exists]
    if not found:
        raise DataError(
            f"{folder} has no scan to {verb}: its scans.csv has no row with an image. Expected for each row the file "
            f"{{case}}_0000{description.file_ending}."
        )
    if missing := [scan.case for scan in scans if not scan.exists]:
        logger.info("Rows without an image are left out: %s.", first_few(missing))
    return found


def forecast_requests(
    folder: Path,
    description: DatasetDescription,
    times: Sequence[float],
    context_length: int,
    hidden: HiddenContext | None = None,
) -> list[ForecastRequest]:
    """The forecasts that a folder asks for: its rows without an image, or ``times`` for every subject.

    :param context_length: a context is so many of the latest scans before its target at most.
    :param hidden: scans of each such context that are hidden; where it has too few, one scan is left, and that is said.
    :raises DataError: nothing is wanted; a scan lacks a channel; a target has no earlier scan.
    """
    if strange := [time for time in times if not math.isfinite(time)]:
        raise DataError(f"The wanted time {strange[0]} is not a finite number.")
    wanted, problems = [], []
    for series in _series(folder, description):
        problems += _wrong_channels(series, description)
        context = series.with_images().scans
        for target in _targets(series, times, folder, description):
            earlier = tuple(scan for scan in context if scan.time < target.time)[-context_length:]
            if earlier:
                wanted.append(ForecastRequest(target, earlier))
            else:
                first = f"its first scan is at {context[0].time:g}" if context else "it has no scan with an image"
                problems.append(
                    f"  {target.case}: subject {series.subject} is wanted at time {target.time:g}, but {first}. "
                    "A forecast needs at least one earlier scan."
                )
    if problems:
        raise DataError(f"{folder} cannot be forecast:\n" + "\n".join(problems))
    if not wanted:
        raise DataError(
            f"Nothing is wanted of {folder}: every row of its scans.csv has an image. Add a row (case,subject,time) "
            "without an image for each scan that should be forecast, or give times for every subject with -t."
        )
    return _with_hidden_scans(wanted, hidden) if hidden else wanted


def _with_hidden_scans(wanted: Sequence[ForecastRequest], hidden: HiddenContext) -> list[ForecastRequest]:
    """The same targets, forecast from what is left of their contexts."""
    if short := [item.target.case for item in wanted if hidden.is_too_many(item.context)]:
        logger.warning(
            "--hide_context %s: %d of %d targets have no more than %d context scans (%s). One scan is left to each.",
            *(hidden, len(short), len(wanted), hidden.count, first_few(short)),
        )
    return [replace(item, context=hidden.rest(item.context), hidden=hidden) for item in wanted]


def _series(folder: Path, description: DatasetDescription) -> list[Series]:
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist or is not a folder.")
    all_series = series_of_folder(folder, description)
    _check_any_image(all_series, folder)
    return all_series


def _check_any_image(all_series: list[Series], folder: Path) -> None:
    """Without a single image, the folder or the names are wrong: said once, not for every row."""
    expected = [path for series in all_series for scan in series.scans for path in scan.images]
    if expected and not any(path.is_file() for path in expected):
        held = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        raise DataError(
            f"{folder} has a table but none of its images. Looked for {expected[0].name} and so on; the folder holds "
            f"{first_few(held, most=4)}. Give the folder of the images, as imagesTs, and "
            "mind capital letters."
        )


def _targets(series: Series, times: Sequence[float], folder: Path, description: DatasetDescription) -> list[Scan]:
    if not times:
        return [scan for scan in series.scans if not any(path.is_file() for path in scan.images)]
    cases = [(f"{series.subject}_t{time:.15g}", time) for time in dict.fromkeys(times)]
    channels = range(len(description.channels))
    return [
        Scan(case, series.subject, time, tuple(image_path(folder, case, channel, description) for channel in channels))
        for case, time in cases
    ]


def _wrong_channels(series: Series, description: DatasetDescription) -> list[str]:
    """A line for each channel that a scan lacks, and for each scan with more channels than the model."""
    problems = []
    for scan in series.scans:
        if not any(path.is_file() for path in scan.images):
            continue
        problems += [
            f"  {scan.case}: the file {path.name} is missing, while other channels of the scan are there. Channels of "
            f"the model: {', '.join(description.channels)}."
            for path in scan.images
            if not path.is_file()
        ]
        further = image_path(scan.images[0].parent, scan.case, len(description.channels), description)
        if further.is_file():
            problems.append(
                f"  {scan.case}: {further.name} is one channel too many. Channels of the model: "
                f"{', '.join(description.channels)}."
            )
    return problems
