"""Which translation belongs to which truth and which source: files only, nothing is opened but sidecars and tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.data.dataset import DatasetDescription, is_name
from longflow.data.labels import structures
from longflow.errors import DataError
from longflow.tasks.forecast.pairs import (
    Files,
    Library,
    all_channels,
    joined_names,
    predicted_cases,
    read_sidecar,
)

SIDECAR_KEYS = ("case", "subject", "time", "source", "source_phase", "target_phase")

#: where a raw dataset keeps the labels of the scans in each of its folders
_LABELS_OF = {"imagesTr": "labelsTr", "imagesTs": "labelsTs", "targetsTs": "labelsTs"}


@dataclass(frozen=True)
class Translation:
    """A translated scan, as its sidecar describes it.

    :param time: in the dataset's time unit. :param source: the case that was translated.
    :param images: one file per channel.
    :param round_trip: whether the source was itself a translation, so that this one leads back.
    :param seconds: that translating took, :param slices: of how many; None where the sidecar does not say.
    """

    case: str
    subject: str
    time: float
    source: str
    source_phase: str
    target_phase: str
    images: Files
    method: str = "translation"
    round_trip: bool = False
    seconds: float | None = None
    slices: int | None = None


@dataclass(frozen=True)
class TranslationPair:
    """A translation beside the scan that it was made from and the one that was acquired in the wanted phase.

    :param label: the label map of the truth, or None.
    """

    translation: Translation
    source: Files
    truth: Files
    label: Path | None = None


def translations_of_folder(folder: Path, description: DatasetDescription) -> list[Translation]:
    """The translations of a folder, sorted by case.

    :raises DataError: the folder is missing or holds no translation, a sidecar is missing or incomplete, a channel is.
    """
    return [_translation(folder, case, description) for case in predicted_cases(folder, description, "translation")]


def _translation(folder: Path, case: str, description: DatasetDescription) -> Translation:
    path = folder / f"{case}.json"
    names = "the scan that it was made from and the phases of both"
    sidecar = read_sidecar(path, SIDECAR_KEYS, "translation", names)
    time, seconds, slices = (sidecar.get(key) for key in ("time", "seconds", "slices"))
    if not _is_number(time) or not all(one is None or (_is_number(one) and one >= 0) for one in (seconds, slices)):
        raise DataError(f"{path}: time must be a number, seconds and slices numbers from zero on.")
    source, phases = sidecar["source"], [sidecar["source_phase"], sidecar["target_phase"]]
    if not isinstance(source, str) or not is_name(source):
        raise DataError(f"{path} names the source '{source}', expected a case: a name without slashes.")
    if not all(isinstance(phase, str) and phase for phase in phases) or phases[0] == phases[1]:
        raise DataError(f"{path}: source_phase and target_phase must be two different names, found {phases}.")
    return Translation(
        case=case,
        subject=str(sidecar["subject"]),
        time=float(time),
        source=source,
        source_phase=phases[0],
        target_phase=phases[1],
        images=all_channels(folder, case, description, "translation"),
        method=joined_names(sidecar.get("method", "translation")),
        round_trip=bool(sidecar.get("round_trip", False)),
        seconds=seconds,
        slices=slices,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def find_translation_pairs(
    translations: Sequence[Translation], folders: Sequence[Path], description: DatasetDescription
) -> tuple[list[TranslationPair], list[str]]:
    """Translations with their truth and source, and the cases of those whose truth is nowhere.

    The truth is the scan that was acquired of the same subject and time in the wanted phase, by the tables of the
    folders; a scan with a sidecar was predicted and is none. The source is found by its case, and may be predicted: on
    a round trip it is.

    :param folders: searched in this order.
    :raises DataError: no translation has a truth, or the source of one that has is missing.
    """
    library = Library(tuple(Path(folder) for folder in folders), description)
    pairs, without_truth = [], []
    for one in translations:
        truth = library.by_time(one.subject, one.time, one.target_phase)
        if truth is None:
            without_truth.append(one.case)
            continue
        source = library.by_case(one.source)
        if source is None:
            raise DataError(
                f"The scan {one.source}, from which {one.case} was translated, is in none of: {library}. Every number "
                "stands beside that of the untranslated scan. Give the folder that was translated: -r FOLDER"
            )
        pairs.append(TranslationPair(one, source, truth, _label_of(truth, description)))
    if not pairs:
        first = translations[0]
        raise DataError(
            f"None of the {len(translations)} translations has an acquired scan to be compared with. Looked for "
            f"subject {first.subject} at time {first.time:g} in phase {first.target_phase}"
            f"{', ...' if len(translations) > 1 else ''} in the tables (scans.csv, column phase) of: "
            f"{str(library) or 'no folder'}. Give the folder that holds the acquired scans: -r FOLDER"
        )
    return pairs, without_truth


def _label_of(truth: Files, description: DatasetDescription) -> Path | None:
    """The label map of an acquired scan, where its dataset names structures and has one."""
    folder = truth[0].parent
    case = truth[0].name.removesuffix(f"_0000{description.file_ending}")
    if folder.name not in _LABELS_OF or not structures(description.labels):
        return None
    path = folder.with_name(_LABELS_OF[folder.name]) / f"{case}{description.file_ending}"
    return path if path.is_file() else None
