"""4D NIfTI files, one per subject with time as the fourth dimension; every frame becomes a 3D scan."""

import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, get_args

from longflow.data.dataset import parse_time
from longflow.errors import ConfigurationError, DataError, FileError, first_few
from longflow.importers.patterns import SUBJECT, fitting_files
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import ImportedDataset, ImportedScan
from longflow.plans import TimeUnit
from longflow.reading import read_json, read_table

if TYPE_CHECKING:
    import nibabel

logger = logging.getLogger(__name__)

PLACE = "{subject}"
TIME_COLUMNS = ("subject", "frame", "time")

#: seconds of the unit, by bits 3-5 of NIfTI's xyzt_units
NIFTI_TIME_UNITS = {8: 1.0, 16: 1e-3, 24: 1e-6}
SECONDS = {"s": 1.0, "ms": 1e-3}


@dataclass(frozen=True)
class Options:
    """Flags of the layout. Patterns are relative to the source.

    :param images: file name with ``{subject}`` in it.
    :param labels: the same for 4D label masks on the grid of the images; only frames with a label are written.
    :param times: "header" (pixdim[4] and its unit), "frames" (number of the frame), a table ``*.csv`` with the columns
        subject,frame,time, or a pattern ``{subject}.json``.
    :param key: of the json, with the list of one time per frame.
    :param time_unit: of a table or json; for the header, "s" or "ms" (None: that of the first header).
    :param period: after which frames repeat: "cycle" (the frames of a file are one whole cycle), a number in time
        units, or a table ``*.csv`` with the columns subject,period; None: not known.
    :param channel: name of the channel.
    :param label_names: names of the labels 1, 2, ...
    """

    images: str = field(
        default="{subject}.nii.gz",
        metadata=flag("names of the images, 4D (default: {subject}.nii.gz)", metavar="PATTERN"),
    )
    labels: str | None = field(
        default=None,
        metadata=flag("names of the 4D label masks; only frames with a label are written", metavar="PATTERN"),
    )
    label_names: Sequence[str] = field(
        default=(), metadata=flag("names of the labels 1, 2, ...", nargs="+", metavar="NAME")
    )
    channel: str = field(default="image", metadata=flag("content of the images, as T1 or CT (CT keeps its HU)"))
    times: str = field(
        default="header",
        metadata=flag(
            "header (default), frames, TABLE.csv (subject,frame,time; frames from 0) or a pattern {subject}.json",
            metavar="WHERE",
        ),
    )
    key: str | None = field(default=None, metadata=flag("name of the list of times in the json"))
    time_unit: str | None = field(
        default=None,
        metadata=flag("unit of the times (default for the header: its own unit)", choices=get_args(TimeUnit)),
    )
    period: str | None = field(
        default=None,
        metadata=flag(
            "where scans repeat, as heart beats do: cycle (the frames of each file are one whole cycle), a number in "
            "the unit of the times, or TABLE.csv (subject,period)",
            metavar="PERIOD",
        ),
    )


def read(source: Path, options: Options) -> ImportedDataset:
    """Find every 4D file of a folder; frames count from 0 and become cases ``{subject}_frame{number:03d}``.

    :param source: the folder.
    :param options: flags of the layout.
    :returns: the dataset.
    :raises LongflowError: an option is invalid, no file fits, or times are missing.
    """
    labels = options.labels
    files = subjects_of_folder(source, options.images)
    frames = {subject: frames_of_header(path) for subject, path in files.items()}
    unit, moments = _times(source, files, frames, options)
    periods = None if options.period is None else periods_of(options.period, moments)
    scans = []
    for subject, path in files.items():
        mask = source / labels.replace(PLACE, subject) if labels else None
        scans += _scans_of_subject(subject, path, mask if mask and mask.is_file() else None, moments[subject])
    if labels and not any(scan.label for scan in scans):
        raise DataError(f"No file of {source} has a name as --labels {labels}, with a subject for {PLACE}.")
    if isinstance(periods, dict):
        scans = [replace(scan, covariates={"period": repr(periods[scan.subject])}) for scan in scans]
    return ImportedDataset(
        scans,
        time_unit=unit,
        channel=options.channel,
        label_names=options.label_names,
        settings={
            "images": options.images,
            "labels": labels,
            "times": moments,
            "time_unit": unit,
            "channel": options.channel,
            "label_names": list(options.label_names),
            **({} if periods is None else {"period": periods}),
        },
        about={} if periods is None else {"period": "period" if isinstance(periods, dict) else periods},
    )


def periods_of(period: str, moments: dict[str, list[float]]) -> float | dict[str, float]:
    """Return the period of all subjects, or that of each.

    :param period: "cycle", a number, or a table.
    :param moments: times of each subject, one per frame.
    :returns: in time units.
    :raises ConfigurationError: it is none of the three, or not above 0.
    :raises DataError: the table lacks a subject, or a cell of it is not a number above 0; a subject has one frame.
    """
    if period == "cycle":
        return {subject: _whole_cycle(subject, sorted(times)) for subject, times in moments.items()}
    if period.endswith(".csv"):
        return periods_of_table(Path(period), moments)
    number = parse_time(period)
    if number is None or number <= 0:
        raise ConfigurationError(f"--period {period}: expected cycle, a number above 0, or a table.csv.")
    return number


def _whole_cycle(subject: str, times: list[float]) -> float:
    """Return the time from the first frame to one interval after the last, when the next cycle begins."""
    if len(times) < 2:
        raise DataError(f"--period cycle: subject {subject} has one frame, which is no cycle.")
    return float(f"{times[-1] - times[0] + median(after - before for before, after in pairwise(times)):.12g}")


def periods_of_table(path: Path, subjects: Iterable[str]) -> dict[str, float]:
    """Read periods from a CSV with the columns subject,period.

    :param path: the table.
    :param subjects: that need a line.
    :returns: the period of each subject.
    :raises DataError: a line is missing, double or invalid.
    """
    found: dict[str, float] = {}
    for line in read_table(path, "subject", "period"):
        subject, value = line.cells["subject"], parse_time(line.cells["period"])
        if value is None or value <= 0:
            shown = line.cells["period"][:80]
            raise DataError(f"{path}, line {line.number}: period '{shown}' must be a number above 0.")
        if subject in found:
            raise DataError(f"{path}, line {line.number}: subject {subject} has two lines, expected one.")
        found[subject] = value
    if missing := [subject for subject in subjects if subject not in found]:
        raise DataError(f"{path} has no line for {first_few(missing)}. Each subject needs a period.")
    return {subject: found[subject] for subject in subjects}


def _scans_of_subject(subject: str, path: Path, mask: Path | None, times: list[float]) -> list[ImportedScan]:
    """Return a scan for each frame of a 4D file."""
    return [
        ImportedScan(
            case=f"{subject}_frame{frame:03d}",
            subject=subject,
            time=time,
            image=path,
            frame=frame,
            label=mask,
            label_frame=frame,
        )
        for frame, time in enumerate(times)
    ]


def subjects_of_folder(source: Path, pattern: str) -> dict[str, Path]:
    """List the files whose path below ``source`` fits the pattern, by subject, sorted."""
    files = fitting_files(source, pattern, {"subject": SUBJECT}, f"{PLACE}_cine.nii.gz")
    return {places["subject"]: path for places, path in files}


def frames_of_header(path: Path) -> int:
    """Read the number of frames of a 4D file.

    :param path: the file.
    :returns: size of the last axis.
    :raises DataError: it is not NIfTI, or not 4D.
    """
    from longflow.data.images import by_axis

    shape = _header(path).get_data_shape()
    if len(shape) != 4:
        raise DataError(
            f"{path} has {len(shape)} dimensions ({by_axis(shape)}), expected 4: the last one is time. "
            "Check that --images fits no other files, such as masks."
        )
    return shape[3]


def _header(path: Path) -> "nibabel.Nifti1Header":
    """Read the header as it is stored; that of SimpleITK would have a time step of 1 where none is given."""
    import nibabel

    from longflow.data.images import read_header

    try:
        header = read_header(path)[2]
    except FileError as error:
        if error.field != "file":
            raise
        raise DataError(f"{path} is not NIfTI, or damaged. {error.advice}") from error
    if not isinstance(header, nibabel.Nifti1Header):
        raise DataError(f"{path} is not NIfTI. Expected 4D NIfTI files, as {PLACE}.nii.gz.")
    return header


def _times(
    source: Path, files: dict[str, Path], frames: dict[str, int], options: Options
) -> tuple[str, dict[str, list[float]]]:
    """Return the time unit and each subject's times, one per frame, all distinct."""
    times, unit = options.times, options.time_unit
    if times == "frames":
        unit, moments = "frames", {subject: [float(frame) for frame in range(frames[subject])] for subject in frames}
    elif times == "header":
        unit, moments = times_of_headers(files, frames, unit)
    elif unit is None:
        raise ConfigurationError(f"--times {times}: give the unit of these times, as in --time_unit ms.")
    elif times.endswith(".csv"):
        moments = times_of_table(Path(times), frames)
    elif times.endswith(".json") and PLACE in times:
        moments = {
            subject: times_of_json(source / times.replace(PLACE, subject), options.key, count)
            for subject, count in frames.items()
        }
    else:
        raise ConfigurationError(
            f"--times '{times}': expected header, frames, a table.csv, or a pattern as {PLACE}.json."
        )
    for subject, values in moments.items():
        if len(set(values)) < len(values):
            double = next(value for value in values if values.count(value) > 1)
            raise DataError(f"Subject {subject} has two frames at time {double:g} (from --times {times}).")
    return unit, moments


def times_of_headers(
    files: dict[str, Path], frames: dict[str, int], unit: str | None
) -> tuple[str, dict[str, list[float]]]:
    """Compute toffset + frame x pixdim[4].

    :param files: 4D file of each subject.
    :param frames: number of frames of each subject.
    :param unit: "s" or "ms"; None: the unit of the first header.
    :returns: the unit; times of each subject, one per frame.
    :raises DataError: a header has no time.
    """
    if unit not in (None, *SECONDS):
        raise ConfigurationError(f"--time_unit {unit}: times of a header are in s or ms.")
    moments: dict[str, list[float]] = {}
    doubtful: dict[str, list[str]] = {}
    for subject, path in files.items():
        header = _header(path)
        if not has_times(path):
            known = "known" if _unit_of_time(header) else "not given"
            raise DataError(
                f"{path}: its header has no usable time between frames (pixdim[4] is {float(header['pixdim'][4]):g}, "
                f"its unit {known}, toffset {float(header['toffset']):g}), expected finite numbers, pixdim[4] above 0, "
                "and a unit. Give the times with --times: frames, a table or a json."
            )
        seconds = _unit_of_time(header)
        step, start = float(header["pixdim"][4]), float(header["toffset"])
        unit = unit or ("s" if seconds == 1 else "ms")
        factor = seconds / SECONDS[unit]
        # four decimals of a millisecond: the 32-bit numbers of the header have no more
        digits = 4 if unit == "ms" else 7
        moments[subject] = [round((start + frame * step) * factor, digits) for frame in range(frames[subject])]
        if likely := _likely_unit(step * seconds, frames[subject]):
            found = f"{path.name} ({frames[subject]} frames, {step * seconds:g} s apart)"
            doubtful.setdefault(likely, []).append(found)
    for likely, names in doubtful.items():
        logger.warning(
            "The unit of time in the header may be wrong: %s. If that is no such series, the step is probably in %s: "
            "give the times with --times (a table or a json) and --time_unit %s.",
            first_few(names, most=3),
            likely,
            likely,
        )
    return unit, moments


def _likely_unit(step: float, frames: int) -> str | None:
    """Tell the unit that a step is likely in, where it is not the unit of the header.

    A heart cine has 10 to 100 ms between frames and lasts a heartbeat or two; no scanner is faster than 1 ms.

    :param step: time between frames, s, by the header.
    :returns: "ms" or "s"; None: there is no doubt.
    """
    if 10 <= step <= 100 and step * frames <= 2000:
        return "ms"
    return "s" if step < 1e-3 else None


def has_times(path: Path) -> bool:
    """Tell whether the header of a 4D file has finite times: a step above zero, a start, and their unit."""
    header = _header(path)
    step, start = float(header["pixdim"][4]), float(header["toffset"])
    return _unit_of_time(header) is not None and 0 < step < math.inf and math.isfinite(start)


def _unit_of_time(header: "nibabel.Nifti1Header") -> float | None:
    """Return the seconds of the unit in the header; None where it has none."""
    return NIFTI_TIME_UNITS.get(int(header["xyzt_units"]) & 0b111000)


def times_of_table(path: Path, frames: dict[str, int]) -> dict[str, list[float]]:
    """Read times from a CSV with the columns subject,frame,time; frames count from 0, and each needs a line.

    :param path: the table.
    :param frames: number of frames of each subject.
    :returns: times of each subject, one per frame.
    :raises DataError: a line is missing, double or invalid.
    """
    found: dict[str, dict[int, float]] = {subject: {} for subject in frames}
    for line in read_table(path, *TIME_COLUMNS):
        subject, frame, time = (line.cells[name] for name in TIME_COLUMNS)
        if parse_time(time) is None or not re.fullmatch("[0-9]{1,9}", frame):
            raise DataError(
                f"{path}, line {line.number}: frame '{frame}' and time '{time}' must be numbers, a frame from 0 on."
            )
        if int(frame) in found.setdefault(subject, {}):
            raise DataError(
                f"{path}, line {line.number}: frame {frame} of subject {subject} has two lines, expected one."
            )
        found[subject][int(frame)] = parse_time(time)
    for subject, count in frames.items():
        if sorted(found[subject]) != list(range(count)):
            given = sorted(found[subject])
            raise DataError(
                f"{path}: subject {subject} has {count} frames, 0 to {count - 1}, and each needs a line. Found "
                f"{f'{len(given)}, from {given[0]} to {given[-1]}' if given else 'none'}."
            )
    return {subject: [found[subject][frame] for frame in range(count)] for subject, count in frames.items()}


def times_of_json(path: Path, key: str | None, frames: int) -> list[float]:
    """Read one time per frame from a list in a json.

    :param path: the file.
    :param key: of the list.
    :param frames: number of frames.
    :returns: the times.
    :raises DataError: there is no such list.
    """
    content = read_json(path)
    if key is None or not isinstance(content, dict) or key not in content:
        known = ", ".join(content) if isinstance(content, dict) else "a list"
        raise DataError(f"{path} has no key '{key}'. Found: {known}. Name the list of times with --key.")
    values = content[key]
    if not isinstance(values, list) or any(
        isinstance(value, bool) or parse_time(str(value)) is None for value in values
    ):
        raise DataError(f"{path}: '{key}' is {str(values)[:60]}, expected a list of numbers, one per frame.")
    if len(values) != frames:
        raise DataError(f"{path}: '{key}' has {len(values)} times, but the image has {frames} frames.")
    return [float(value) for value in values]


IMPORTER = Importer(
    "nifti4d",
    read,
    Options,
    example="""
longflow_import nifti4d cine -d 102 -n Sunnybrook --images "{subject}_cine.nii.gz"
longflow_import nifti4d cine -d 102 -n Sunnybrook --times "{subject}.json" --key trigger_times --time_unit ms
longflow_import nifti4d cine -d 103 -n Beats --times frames --period cycle
""",
)
