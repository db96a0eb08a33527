"""Scans in two contrast phases, one 3D NIfTI file each, to a raw dataset for translation."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from longflow.data.dataset import PHASE
from longflow.data.phases import native_first
from longflow.errors import ConfigurationError, DataError, first_few, unknown_name
from longflow.importers.patterns import SUBJECT, filled, fitting_files
from longflow.importers.writing import ImportedScan, import_dataset
from longflow.parallel import Progress

IMAGES = "{subject}_{phase}.nii.gz"
#: what may stand for ``{time}``, and for ``{phase}`` where the phases are not named
NUMBER, ANY_PHASE = r"-?\d+(?:\.\d+)?", "[^/_]+"


def import_phases(
    source: Path,
    raw: Path,
    *,
    images: str = IMAGES,
    labels: str | None = None,
    phases: Sequence[str] = (),
    time_unit: str = "days",
    channel: str = "image",
    label_names: Sequence[str] = (),
    test: Sequence[str] = (),
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Import the files of a folder by their names; they become cases ``{subject}_{phase}``.

    A subject with one phase only is imported, too: the integrity check lists those.

    :param source: the folder; the patterns below are relative to it.
    :param raw: the dataset's folder.
    :param images: file name with ``{subject}`` and ``{phase}`` in it, and perhaps ``{time}``, a number (cases are then
        ``{subject}_{time}_{phase}``; else all scans are at time 0).
    :param labels: the same for label masks, each on the grid of its image. A pattern without ``{phase}`` gives both
        phases the same mask, as is right where they are registered.
    :param phases: the two phases, that without contrast first (empty: the two that the names of the files hold).
    :param label_names: names of the labels 1, 2, ...
    :param test: subjects that go to imagesTs, in both phases.
    :returns: False where everything was there already.
    :raises ConfigurationError: a flag cannot be used. :raises DataError: no file fits, or there are not two phases.
    """
    if phases and len(set(phases)) != 2:
        raise ConfigurationError(f"--phases {' '.join(phases)}: two different names are needed.")
    scans = scans_of_folder(source, images, labels, phases)
    subjects = {scan.subject for scan in scans}
    for subject in test:
        if subject not in subjects:
            raise unknown_name("subject", subject, subjects)
    scans = [replace(scan, part="context") if scan.subject in test else scan for scan in scans]
    found = list(phases) or native_first({scan.covariates[PHASE] for scan in scans})
    return import_dataset(
        scans,
        raw,
        time_unit=time_unit,
        channel=channel,
        label_names=label_names,
        settings={
            "importer": "phases",
            "source": str(source.resolve()),
            "images": images,
            "labels": labels,
            "phases": found,
            "time_unit": time_unit,
            "channel": channel,
            "label_names": list(label_names),
            "test": sorted(test),
        },
        task="translate",
        about={"phases": found},
        processes=processes,
        overwrite=overwrite,
        progress=progress,
    )


def scans_of_folder(source: Path, images: str, labels: str | None, phases: Sequence[str]) -> list[ImportedScan]:
    """The scans whose files fit ``images``, in order of subject, time and phase, with their labels.

    :param phases: as for :func:`import_phases`; files of others are left alone.
    :raises DataError: the files have not two phases, two files are of one moment and phase, or no label is found.
    """
    places = {"subject": SUBJECT, "phase": "|".join(map(re.escape, phases)) or ANY_PHASE}
    if "{time}" in images:
        places["time"] = NUMBER
    files: dict[tuple[str, float, str], Path] = {}
    scans = []
    for values, path in fitting_files(source, images, places, IMAGES):
        subject, phase, time = values["subject"], values["phase"], values.get("time", "0")
        moment = subject, float(time), phase
        if moment in files:
            raise DataError(f"{files[moment]} and {path} are both subject {subject} at time {time} in phase {phase}.")
        files[moment] = path
        mask = source / filled(labels, values) if labels else None
        scans.append(
            ImportedScan(
                case="_".join(values[place] for place in ("subject", "time", "phase") if place in values),
                subject=subject,
                time=float(time),
                image=path,
                label=mask if mask and mask.is_file() else None,
                covariates={PHASE: phase},
            )
        )
    found = native_first({phase for *_, phase in files})
    if missing := [phase for phase in phases if phase not in found]:
        raise DataError(f"By --images {images}, no file of {source} is in the phase '{missing[0]}', only {found[0]}.")
    if len(found) != 2:
        raise DataError(
            f"By --images {images}, the files of {source} are in {first_few(found)}: {len(found)} phases. Translation "
            "needs two. Name them with --phases, that without contrast first, as in --phases native arterial."
        )
    if labels and not any(scan.label for scan in scans):
        raise DataError(f"No file of {source} has a name as --labels {labels}, with the subjects and phases of images.")
    return sorted(scans, key=lambda scan: (scan.subject, scan.time, found.index(scan.covariates[PHASE])))
