"""Which forecast belongs to which truth and which context: files only, nothing is opened but sidecars and tables."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from longflow.data.dataset import PHASE, DatasetDescription, image_path, is_name, parse_time, rows_of_folder
from longflow.data.images import Volume, check_same_grid, read_geometry, read_scan
from longflow.errors import DataError
from longflow.files import read_json

Files = tuple[Path, ...]

#: bytes that a process takes before it has read anything, and for work on portions of a volume
_PROCESS_BYTES = 400_000_000

SIDECAR_KEYS = ("case", "subject", "target_time", "horizon", "context")


@dataclass(frozen=True)
class Forecast:
    """A predicted scan, as its sidecar describes it.

    :param images: one file per channel.
    :param horizon: target time minus last context time, time units.
    :param context: cases it was predicted from.
    :param context_times: their times; the last context image is the one with the latest.
    """

    case: str
    subject: str
    target_time: float
    horizon: float
    context: tuple[str, ...]
    context_times: tuple[float, ...]
    method: str
    images: Files


@dataclass(frozen=True)
class Pair:
    """A forecast beside the scan that was acquired and the scans it was predicted from, in order of time."""

    forecast: Forecast
    target: Files
    context: tuple[Files, ...]


def forecasts_of_folder(folder: Path, description: DatasetDescription) -> list[Forecast]:
    """The forecasts of a folder, sorted by case.

    :raises DataError: the folder is missing or holds no forecast, a sidecar is missing or incomplete, a channel is.
    """
    return [_forecast(folder, case, description) for case in predicted_cases(folder, description, "forecast")]


def predicted_cases(folder: Path, description: DatasetDescription, noun: str) -> list[str]:
    """The cases of the scans in a folder of predictions, sorted. :param noun: what they are called, one of them.

    :raises DataError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. Expected: a folder that longflow_predict wrote.")
    first_channel = f"_0000{description.file_ending}"
    cases = sorted(
        path.name.removesuffix(first_channel)
        for path in folder.glob(f"*{first_channel}")
        if not path.name.startswith(".")
    )
    if not cases:
        raise DataError(
            f"{folder} holds no {noun}s: found no file {{case}}{first_channel}. "
            "Expected: a folder that longflow_predict wrote for this dataset."
        )
    return cases


def read_sidecar(path: Path, keys: Sequence[str], noun: str, names: str) -> dict[str, Any]:
    """The sidecar of a prediction.

    :param keys: that it must have. :param names: what it names, for people.
    :raises DataError: it is missing, or lacks a key.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Each {noun} needs its sidecar: it names {names}. Expected: JSON with the keys "
            f"{', '.join(keys)}."
        )
    sidecar = read_json(path)
    missing = [key for key in keys if not isinstance(sidecar, dict) or key not in sidecar]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}. Is it the sidecar of a {noun}?")
    return sidecar


def _forecast(folder: Path, case: str, description: DatasetDescription) -> Forecast:
    path = folder / f"{case}.json"
    names = "the context scans that LCI and the context mean are computed from"
    sidecar = read_sidecar(path, SIDECAR_KEYS, "forecast", names)
    context = sidecar["context"]
    if not context or not isinstance(context, list):
        raise DataError(f"{path} names no context scan, so there is no last context image to compare with.")
    if strange := [name for name in context if not isinstance(name, str) or not is_name(name)]:
        raise DataError(f"{path} names the context scan '{strange[0]}', expected a case: a name without slashes.")
    times = sidecar.get("context_times", list(range(len(context))))
    numbers = [sidecar["target_time"], sidecar["horizon"], *(times if isinstance(times, list) else [None])]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise DataError(f"{path}: target_time, horizon and context_times must be numbers.")
    if len(times) != len(context) or ("context_times" in sidecar and max(times) >= sidecar["target_time"]):
        raise DataError(f"{path}: context_times must hold a time for each scan of context, all before target_time.")
    images = all_channels(folder, case, description, "forecast")
    return Forecast(
        case=case,
        subject=str(sidecar["subject"]),
        target_time=float(sidecar["target_time"]),
        horizon=float(sidecar["horizon"]),
        context=tuple(context),
        context_times=tuple(times),
        method=joined_names(sidecar.get("method", "forecast")),
        images=images,
    )


def joined_names(method: str | list[str]) -> str:
    """The methods of an ensemble as one name."""
    return method if isinstance(method, str) else " + ".join(dict.fromkeys(method))


def all_channels(folder: Path, case: str, description: DatasetDescription, noun: str) -> Files:
    """The files of a prediction. :raises DataError: one is missing."""
    images = _scan_files(folder, case, description)
    if images is None:
        raise DataError(f"{folder} does not hold all {len(description.channels)} channels of the {noun} {case}.")
    return images


def _scan_files(folder: Path, case: str, description: DatasetDescription) -> Files | None:
    files = tuple(image_path(folder, case, channel, description) for channel in range(len(description.channels)))
    return files if all(path.is_file() for path in files) else None


@dataclass(frozen=True)
class Library:
    """Folders in which acquired scans are looked for, the first that has a scan being the one that counts."""

    folders: tuple[Path, ...]
    description: DatasetDescription

    def by_case(self, case: str) -> Files | None:
        """The files of a case, or None; a table's case that leads out of its folder is none."""
        return next(self._files_of_case(case), None)

    def _files_of_case(self, case: str) -> Iterator[Files]:
        """In order of the folders."""
        if is_name(case):
            found = (_scan_files(folder, case, self.description) for folder in self.folders)
            yield from (files for files in found if files)

    def by_time(self, subject: str, time: float, phase: str = "") -> Files | None:
        """The files of a subject's scan at a time, or None. :param phase: its contrast phase, where one is asked for.

        A scan with a sidecar beside it was predicted, not acquired.
        """
        for other, its_phase, case in self._moments.get(subject, []):
            # times may count from any fixed day, so large numbers can be a day apart
            if not math.isclose(time, other, rel_tol=1e-9, abs_tol=1e-6) or (phase and phase != its_phase):
                continue
            for files in self._files_of_case(case):
                if not files[0].with_name(f"{case}.json").is_file():
                    return files
        return None

    @cached_property
    def _moments(self) -> dict[str, list[tuple[float, str, str]]]:
        """(time, phase, case) of every scan that a table of the folders knows, by subject."""
        moments: dict[str, list[tuple[float, str, str]]] = {}
        for folder in self.folders:
            # targetsTs has no table of its own: its scans are the rows without image in that of imagesTs
            of_targets = folder.name == "targetsTs" and not (folder / "scans.csv").is_file()
            described = folder.with_name("imagesTs") if of_targets else folder
            try:
                rows = rows_of_folder(described)
            except DataError:
                continue  # a folder without a table serves by the names of its files
            for row in rows:
                if (time := parse_time(row.time)) is not None:
                    moments.setdefault(row.subject, []).append((time, row.covariates.get(PHASE, ""), row.case))
        return moments

    def __str__(self) -> str:
        return ", ".join(str(folder) for folder in self.folders)


def subjects_of_training(folders: Sequence[Path]) -> set[str]:
    """Subjects that the table of an imagesTr among the folders names: a model of the dataset may have seen them."""
    training = [folder for folder in folders if folder.name == "imagesTr"]
    try:
        return {row.subject for folder in training for row in rows_of_folder(folder)}
    except DataError:
        return set()  # without a table nothing is known


def dataset_folders(raw: Path) -> list[Path]:
    """Where a raw dataset keeps acquired scans, in the order in which the truth of a forecast is looked for."""
    return [folder for name in ("targetsTs", "imagesTs", "imagesTr") if (folder := raw / name).is_dir()]


def find_pairs(
    forecasts: Sequence[Forecast], folders: Sequence[Path], description: DatasetDescription
) -> tuple[list[Pair], list[str]]:
    """Forecasts with their truth and context, and the cases of those whose truth is nowhere.

    A truth has the forecast's case, or else its subject and time (as ``{subject}_t{time}`` has no case of its own).

    :raises DataError: no forecast has a truth, or the context scans of one that has are missing.
    """
    library = Library(tuple(Path(folder) for folder in folders), description)
    pairs, without_truth = [], []
    for forecast in forecasts:
        target = library.by_case(forecast.case) or library.by_time(forecast.subject, forecast.target_time)
        if target is None or target == forecast.images:
            without_truth.append(forecast.case)
            continue
        in_order = sorted(zip(forecast.context_times, forecast.context, strict=False))
        context = tuple(library.by_case(case) for _, case in in_order)
        if missing := [case for (_, case), files in zip(in_order, context, strict=True) if files is None]:
            raise DataError(
                f"The context scans {', '.join(missing)} of the forecast {forecast.case} are in none of: {library}. "
                "LCI and the context mean are computed from them. Give the folder they were predicted from: -r FOLDER"
            )
        pairs.append(Pair(forecast, target, context))
    if not pairs:
        raise DataError(
            f"None of the {len(forecasts)} forecasts has an acquired scan to be compared with. "
            f"Looked for {forecasts[0].case}{', ...' if len(forecasts) > 1 else ''} by name and by subject and time "
            f"in: {str(library) or 'no folder'}. Give the folder that holds the acquired scans: -r FOLDER"
        )
    return pairs, without_truth


def read_like(files: Files, reference: Volume, reference_file: Path) -> Volume:
    """Read a scan that has to lie on the grid of another.

    :raises DataError: it does not; both files are named.
    """
    volume = read_scan(files)
    advice = "A forecast can only be compared with scans on its own grid."
    check_same_grid(volume.geometry, files[0], reference.geometry, reference_file, advice)
    return volume


def last_and_mean(pair: Pair, target: Volume) -> tuple[Volume, Volume]:
    """The last context image and the mean of the context scans, read one after the other; float32."""
    total = None
    for files in pair.context:
        last = read_like(files, target, pair.target[0])
        total = last.array.astype("float64") if total is None else total + last.array
    mean = (total / len(pair.context)).astype("float32")
    return last, Volume(mean, last.geometry, last.data_type)


def peak_bytes(files: Files, volumes: int) -> int:
    """Bytes that a process takes which holds so many volumes of float32 of a scan's size at its peak."""
    return _PROCESS_BYTES + volumes * 4 * len(files) * math.prod(read_geometry(files[0]).size)
