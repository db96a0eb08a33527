"""Find the reference of a prediction among acquired scans; only sidecars, tables and headers are opened."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from longflow.data.dataset import (
    PHASE,
    DatasetDescription,
    image_path,
    is_name,
    parse_time,
    rows_of_folder,
    sidecar_path,
    stem_of,
)
from longflow.data.images import Volume, check_same_grid, read_geometry, read_scan
from longflow.errors import DataError
from longflow.reading import read_json
from longflow.task import Words

Files = tuple[Path, ...]

#: bytes that a process takes before it has read anything, and for work on portions of a volume
_PROCESS_BYTES = 400_000_000


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A predicted scan, with its reference once that is found.

    :param images: predicted files, one for each channel; one label map.
    :param method: its methods, joined to one name.
    :param reference: files of the reference; empty until it is found.
    :param fold: that predicted it, of an out-of-fold prediction.
    """

    case: str
    subject: str
    images: Files
    method: str = ""
    reference: Files = ()
    fold: int | None = None

    @property
    def label(self) -> str:
        """The case, and the fold where there is one: splits of the user may validate a scan in several folds."""
        return self.case if self.fold is None else f"{self.case}, fold {self.fold}"


def predicted_cases(folder: Path, description: DatasetDescription, words: Words) -> list[str]:
    """List the cases of the scans in a folder of predictions, sorted.

    :raises DataError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. Expected: a folder that longflow_predict wrote.")
    first_channel = f"_0000{description.file_ending}"
    cases = sorted(
        stem_of(path, first_channel) for path in folder.glob(f"*{first_channel}") if not path.name.startswith(".")
    )
    if not cases:
        raise DataError(
            f"{folder} holds no {words.several}: found no file {{case}}{first_channel}. "
            "Expected: a folder that longflow_predict wrote for this dataset."
        )
    return cases


def read_sidecar(path: Path, keys: Sequence[str], words: Words, purpose: str) -> dict[str, Any]:
    """Read the sidecar of a prediction.

    :param keys: required ones.
    :param purpose: what it names, for the message.
    :raises DataError: it is missing, or lacks a key.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Each {words.one} needs its sidecar: it names {purpose}. Expected: JSON with the "
            f"keys {', '.join(keys)}."
        )
    sidecar = read_json(path)
    missing = [key for key in keys if not isinstance(sidecar, dict) or key not in sidecar]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}. Is it the sidecar of a {words.one}?")
    return sidecar


def joined_names(method: str | list[str]) -> str:
    """Join the methods of an ensemble to one name."""
    names = method if isinstance(method, list) else [method]
    return " + ".join(dict.fromkeys(map(str, names)))


def all_channels(folder: Path, case: str, description: DatasetDescription, words: Words) -> Files:
    """Return the files of a prediction.

    :raises DataError: one is missing.
    """
    images = _scan_files(folder, case, description)
    if images is None:
        raise DataError(f"{folder} does not hold all {len(description.channels)} channels of the {words.one} {case}.")
    return images


def _scan_files(folder: Path, case: str, description: DatasetDescription) -> Files | None:
    files = tuple(image_path(folder, case, channel, description) for channel in range(len(description.channels)))
    return files if all(path.is_file() for path in files) else None


@dataclass(frozen=True)
class Library:
    """Folders of acquired scans; the first folder that has a scan counts."""

    folders: tuple[Path, ...]
    description: DatasetDescription

    def by_case(self, case: str) -> Files | None:
        """Return the files of a case, or None; a case of a table that leads out of its folder is not found."""
        return next(self._files_of_case(case), None)

    def _files_of_case(self, case: str) -> Iterator[Files]:
        """Yield the files of a case in order of the folders."""
        if is_name(case):
            found = (_scan_files(folder, case, self.description) for folder in self.folders)
            yield from (files for files in found if files)

    def by_time(self, subject: str, time: float, phase: str = "") -> Files | None:
        """Return the files of a subject's scan at a time, or None.

        A scan with a sidecar next to it was predicted, not acquired.

        :param time: time units.
        :param phase: required contrast phase; empty: any.
        """
        for other, its_phase, case in self._moments.get(subject, []):
            # times may count from any fixed day, so large numbers can be a day apart
            if not math.isclose(time, other, rel_tol=1e-9, abs_tol=1e-6) or (phase and phase != its_phase):
                continue
            for files in self._files_of_case(case):
                if not sidecar_path(files[0].parent, case).is_file():
                    return files
        return None

    @cached_property
    def _moments(self) -> dict[str, list[tuple[float, str, str]]]:
        """(time, phase, case) of every scan in the tables of the folders, by subject."""
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
        return ", ".join(str(folder) for folder in self.folders) or "no folder"


def dataset_folders(raw: Path, names: Sequence[str] = ("targetsTs", "imagesTs", "imagesTr")) -> list[Path]:
    """List the folders of a raw dataset that hold references, in the order in which they are searched."""
    return [folder for name in names if (folder := raw / name).is_dir()]


def subjects_of_training(folders: Sequence[Path]) -> set[str]:
    """Return the subjects in the tables of the folders named imagesTr: a model may have been trained on them."""
    training = [folder for folder in folders if folder.name == "imagesTr"]
    try:
        return {row.subject for folder in training for row in rows_of_folder(folder)}
    except DataError:
        return set()  # without a table nothing is known


def read_like(files: Files, like: Volume, like_file: Path, advice: str) -> Volume:
    """Read a scan that must have the grid of another.

    :param like: the other scan, read from ``like_file``.
    :param advice: end of the error message.
    :raises DataError: the grids differ; both files are named.
    """
    volume = read_scan(files)
    check_same_grid(volume.geometry, files[0], like.geometry, like_file, advice)
    return volume


def peak_bytes(files: Files, volumes: int) -> int:
    """Estimate the bytes of a process that holds volumes of float32 of a scan's size at its peak."""
    return _PROCESS_BYTES + volumes * 4 * len(files) * math.prod(read_geometry(files[0]).size)
