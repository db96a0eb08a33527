"""Translations with their references and sources; only sidecars, tables and headers are opened."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longflow.data.dataset import DatasetDescription, is_name, label_path, sidecar_path, stem_of
from longflow.data.labels import structures
from longflow.errors import DataError
from longflow.evaluation.references import (
    Files,
    Library,
    Prediction,
    all_channels,
    joined_names,
    predicted_cases,
    read_sidecar,
)
from longflow.tasks.translate.task import TASK

SIDECAR_KEYS = ("case", "subject", "time", "source", "source_phase", "target_phase")

#: end of the message for phases on different grids
ONE_GRID = (
    "Voxels are compared with voxels, so both phases must be aligned on one grid. longflow_register aligns them and "
    "writes them to a new dataset; translate those."
)

#: where a raw dataset keeps the labels of the scans in each of its folders
_LABELS_OF = {"imagesTr": "labelsTr", "imagesTs": "labelsTs", "targetsTs": "labelsTs"}


@dataclass(frozen=True, kw_only=True)
class TranslationPrediction(Prediction):
    """A translated scan, as its sidecar describes it.

    :param time: time units.
    :param source: the case that was translated.
    :param round_trip: whether the source was itself a translation, so that this one leads back.
    :param seconds: that translating took; None where the sidecar does not say.
    :param slices: that were translated; None where the sidecar does not say.
    :param source_images: files of the source; empty until they are found.
    :param label_map: of the reference, or None.
    """

    time: float
    source: str
    source_phase: str
    target_phase: str
    round_trip: bool = False
    seconds: float | None = None
    slices: int | None = None
    source_images: Files = ()
    label_map: Path | None = None


def translations_of_folder(folder: Path, description: DatasetDescription) -> list[TranslationPrediction]:
    """List the translations of a folder, sorted by case.

    :raises DataError: the folder is missing or holds no translation, a sidecar is missing or incomplete, a channel is.
    """
    return [_translation(folder, case, description) for case in predicted_cases(folder, description, TASK.words)]


def _translation(folder: Path, case: str, description: DatasetDescription) -> TranslationPrediction:
    path = sidecar_path(folder, case)
    sidecar = read_sidecar(path, SIDECAR_KEYS, TASK.words, "the scan that it was made from and the phases of both")
    time, seconds, slices = (sidecar.get(key) for key in ("time", "seconds", "slices"))
    if not _is_number(time) or not all(one is None or (_is_number(one) and one >= 0) for one in (seconds, slices)):
        raise DataError(f"{path}: time must be a number, seconds and slices numbers from zero on.")
    source, phases = sidecar["source"], [sidecar["source_phase"], sidecar["target_phase"]]
    if not isinstance(source, str) or not is_name(source):
        raise DataError(f"{path} names the source '{source}', expected a case: a name without slashes.")
    if not all(isinstance(phase, str) and phase for phase in phases) or phases[0] == phases[1]:
        raise DataError(f"{path}: source_phase and target_phase must be two different names, found {phases}.")
    return TranslationPrediction(
        case=case,
        subject=str(sidecar["subject"]),
        images=all_channels(folder, case, description, TASK.words),
        method=joined_names(sidecar.get("method", "translation")),
        time=float(time),
        source=source,
        source_phase=phases[0],
        target_phase=phases[1],
        round_trip=bool(sidecar.get("round_trip", False)),
        seconds=seconds,
        slices=slices,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def find_translation_pairs(
    translations: Sequence[TranslationPrediction], folders: Sequence[Path], description: DatasetDescription
) -> tuple[list[TranslationPrediction], list[str]]:
    """Find the reference and the source of translations.

    The reference is the scan that was acquired of the same subject and time in the requested phase, by the tables of
    the folders; a scan with a sidecar was predicted and is none. The source is found by its case, and may be predicted:
    on a round trip it is.

    :param folders: searched in this order.
    :returns: the translations that have a reference, with their files; the cases of the others.
    :raises DataError: no translation has a reference, or the source of one that has is missing.
    """
    library = Library(tuple(Path(folder) for folder in folders), description)
    pairs, without = [], []
    for one in translations:
        reference = library.by_time(one.subject, one.time, one.target_phase)
        if reference is None:
            without.append(one.case)
            continue
        source = library.by_case(one.source)
        if source is None:
            raise DataError(
                f"The scan {one.source}, from which {one.case} was translated, is in none of: {library}. Every number "
                "is compared with that of the untranslated scan. Give the folder that was translated: -r FOLDER"
            )
        label_map = _label_map_of(reference, description)
        pairs.append(replace(one, reference=reference, source_images=source, label_map=label_map))
    if not pairs:
        first = translations[0]
        raise DataError(
            f"None of the {len(translations)} translations has an acquired scan to be compared with. Looked for "
            f"subject {first.subject} at time {first.time:g} in phase {first.target_phase}"
            f"{', ...' if len(translations) > 1 else ''} in the tables (scans.csv, column phase) of: {library}. "
            "Give the folder that holds the acquired scans: -r FOLDER"
        )
    return pairs, without


def _label_map_of(reference: Files, description: DatasetDescription) -> Path | None:
    """The label map of an acquired scan, where its dataset names structures and has one."""
    folder = reference[0].parent
    case = stem_of(reference[0], f"_0000{description.file_ending}")
    if folder.name not in _LABELS_OF or not structures(description.labels):
        return None
    path = label_path(folder.with_name(_LABELS_OF[folder.name]), case, description)
    return path if path.is_file() else None
