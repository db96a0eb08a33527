"""Scans in two contrast phases, one 3D NIfTI file each, by the names of their files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from longflow.data.dataset import PHASE
from longflow.data.phases import native_first
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.importers.patterns import SUBJECT, filled, fitting_files
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import ImportedDataset, ImportedScan, all_scans_as_context
from longflow.plans import TimeUnit

IMAGES = "{subject}_{phase}.nii.gz"
#: regular expressions for ``{time}``, and for ``{phase}`` where the phases are not named
NUMBER, ANY_PHASE = r"-?\d+(?:\.\d+)?", "[^/_]+"


@dataclass(frozen=True)
class Options:
    """Flags of the layout. Patterns are relative to the source.

    :param images: file name with ``{subject}`` and ``{phase}`` in it, and perhaps ``{time}``, a number (cases are then
        ``{subject}_{time}_{phase}``; else all scans are at time 0).
    :param labels: the same for label masks, each on the grid of its image. Without ``{phase}`` in the pattern, both
        phases get the same mask, as is right where they are aligned.
    :param label_names: names of the labels 1, 2, ...
    :param channel: name of the channel.
    :param phase_channels: name of the channel of each phase, as "ct=CT", where the phases are different modalities.
    :param time_unit: of ``{time}``.
    :param phases: the two phases, the one without contrast first; empty: the two in the names of the files.
    """

    images: str = field(
        default=IMAGES,
        metadata=flag(
            "names of the images (default: {subject}_{phase}.nii.gz), with {time} for several times",
            metavar="PATTERN",
        ),
    )
    labels: str | None = field(
        default=None,
        metadata=flag("names of the label masks; without {phase}, one mask is used for both phases", metavar="PATTERN"),
    )
    label_names: Sequence[str] = field(
        default=(), metadata=flag("names of the labels 1, 2, ...", nargs="+", metavar="NAME")
    )
    channel: str = field(default="image", metadata=flag("content of the images, as T1 or CT (CT keeps its HU)"))
    phase_channels: Sequence[str] = field(
        default=(),
        metadata=flag(
            "content of the images of each phase, where the phases are different modalities, as mr=T1 ct=CT",
            nargs=2,
            metavar="PHASE=CHANNEL",
        ),
    )
    time_unit: str = field(default="days", metadata=flag("unit of {time} (default: days)", choices=get_args(TimeUnit)))
    phases: Sequence[str] = field(
        default=(),
        metadata=flag(
            "the two phases, the one without contrast first (default: the two in the names of the files)",
            nargs=2,
            metavar="PHASE",
        ),
    )


def read(source: Path, options: Options) -> ImportedDataset:
    """Find the files of a folder by their names; they become cases ``{subject}_{phase}``.

    A subject with one phase only is imported, too: the integrity check lists it.

    :param source: the folder.
    :param options: flags of the layout.
    :returns: the dataset.
    :raises ConfigurationError: a flag is invalid.
    :raises DataError: no file fits, or there are not two phases.
    """
    if options.phases and len(set(options.phases)) != 2:
        raise ConfigurationError(f"--phases {' '.join(options.phases)}: expected two different names.")
    scans = scans_of_folder(source, options.images, options.labels, options.phases)
    phases = list(options.phases) or native_first({scan.covariates[PHASE] for scan in scans})
    own = channels_of_phases(options.phase_channels, phases)
    return ImportedDataset(
        scans,
        time_unit=options.time_unit,
        channel=options.channel,
        label_names=options.label_names,
        settings={
            "images": options.images,
            "labels": options.labels,
            "phases": phases,
            "time_unit": options.time_unit,
            "channel": options.channel,
            **({"phase_channels": own} if own else {}),
            "label_names": list(options.label_names),
        },
        about={"phases": phases, **({"phase_channels": own} if own else {})},
    )


def channels_of_phases(given: Sequence[str], phases: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read ``--phase_channels``.

    :param given: PHASE=CHANNEL of each phase; empty: the phases share their channel.
    :param phases: of the dataset.
    :returns: ``phase_channels`` of dataset.json.
    :raises ConfigurationError: it does not name each phase once, with a channel.

    >>> channels_of_phases(["ct=CT", "mr=T1"], ["mr", "ct"])
    {'mr': {'0': 'T1'}, 'ct': {'0': 'CT'}}
    """
    named = dict(one.partition("=")[::2] for one in given)
    if given and (set(named) != set(phases) or not all(named.values())):
        expected = " ".join(f"{phase}=CHANNEL" for phase in phases)
        raise ConfigurationError(f"--phase_channels {' '.join(given)}: expected a channel of each phase, {expected}.")
    return {phase: {"0": named[phase]} for phase in phases} if named else {}


def scans_of_folder(source: Path, images: str, labels: str | None, phases: Sequence[str]) -> list[ImportedScan]:
    """Find the scans whose files fit a pattern, with their labels.

    :param source: the folder.
    :param images: pattern of the images.
    :param labels: pattern of the label masks; None: there are none.
    :param phases: the two phases; files of other phases are ignored. Empty: every phase counts.
    :returns: in order of subject, time and phase.
    :raises DataError: the files do not have two phases, two files are of one moment and phase, or no label is found.
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
            f"By --images {images}, the files of {source} are in {first_few(found)}: {len(found)} phases, expected "
            "two. Name them with --phases, the one without contrast first, as in --phases native arterial."
        )
    if labels and not any(scan.label for scan in scans):
        raise DataError(f"No file of {source} has a name as --labels {labels}, with the subjects and phases of images.")
    return sorted(scans, key=lambda scan: (scan.subject, scan.time, found.index(scan.covariates[PHASE])))


IMPORTER = Importer(
    "phases",
    read,
    Options,
    example='longflow_import phases scans -d 104 -n Abdomen --images "{subject}_{phase}.nii.gz" --channel CT',
    serves=lambda task: task.uses_phases,
    chooses_task=False,
    task_reason="scans in two phases at one time serve one task, which is always chosen",
    split=all_scans_as_context,
    split_help="both phases are inputs",
)
