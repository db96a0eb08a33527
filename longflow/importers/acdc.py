"""ACDC (Bernard et al., IEEE TMI 2018): cine MRI of the heart in the official layout.

``patientXXX/`` holds ``Info.cfg`` (ED, ES, NbFrame counted from 1; Group, Height, Weight), the end-diastolic and
end-systolic frames with labels, and in the full release the whole cine as ``patientXXX_4d.nii.gz``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from longflow.errors import DataError
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import ImportedDataset, ImportedScan
from longflow.reading import read_text

LABELS = ("right ventricle", "myocardium", "left ventricle")
#: the column of scans.csv with the period of a subject whose times are numbers of frames
FRAMES_PER_BEAT = "frames_per_beat"
REFERENCE = "Bernard et al., IEEE TMI 37(11), 2514-2525, 2018, doi:10.1109/TMI.2018.2837502"


@dataclass(frozen=True)
class Options:
    """Flags of the layout.

    :param time: "cycles": frame / NbFrame; "frames": number of the frame, NbFrame of which are a heartbeat.
    """

    time: Literal["cycles", "frames"] = field(
        default="cycles",
        metadata=flag("frame / NbFrame (default), or the number of the frame", choices=["cycles", "frames"]),
    )


def read(source: Path, options: Options) -> ImportedDataset:
    """Find the scans of ACDC: every frame where a patient's 4D file exists, else ED and ES.

    :param source: the folder of the patients, or the one above ``training`` and ``testing``; patients of ``testing``
        are then test subjects.
    :param options: flags of the layout.
    :returns: the dataset.
    :raises DataError: the layout is another one.
    """
    folders = {path.parent.name: path.parent for path in sorted(source.rglob("Info.cfg"))}
    if not folders:
        raise DataError(
            f"{source} has no ACDC patients. Expected folders as patient001 with Info.cfg and "
            "patient001_frame01.nii.gz."
        )
    has_training = any(folder.parent.name == "training" for folder in folders.values())
    return ImportedDataset(
        [scan for folder in folders.values() for scan in scans_of_patient(folder, options.time)],
        time_unit=options.time,
        channel="cine MRI",
        label_names=LABELS,
        settings={"time": options.time},
        about={
            "reference": REFERENCE,
            "licence": "CC BY-NC-SA 4.0",
            # in cycles it is 1, which needs no key
            **({"period": FRAMES_PER_BEAT} if options.time == "frames" else {}),
        },
        test_subjects=[name for name, path in folders.items() if has_training and path.parent.name == "testing"],
    )


def scans_of_patient(folder: Path, time: str) -> list[ImportedScan]:
    """List the scans of a patient.

    Where only ED and ES exist and ES comes first in the file, ES counts as that of the next cycle: a cine is one
    averaged heartbeat that repeats, so systole always follows diastole.

    :param folder: of the patient.
    :param time: "cycles" or "frames".
    :returns: in order of frames.
    """
    info = read_info(folder / "Info.cfg")
    subject, diastole, systole, count = folder.name, info["ED"], info["ES"], info["NbFrame"]
    cine = folder / f"{subject}_4d.nii.gz"
    numbers = range(1, count + 1) if cine.is_file() else (diastole, systole)
    scans = []
    for number in numbers:
        later = count if not cine.is_file() and number == systole and systole < diastole else 0
        still = folder / f"{subject}_frame{number:02d}.nii.gz"
        label = folder / f"{subject}_frame{number:02d}_gt.nii.gz"
        scans.append(
            ImportedScan(
                case=f"{subject}_frame{number:02d}",
                subject=subject,
                time=round((number + later) / count, 6) if time == "cycles" else float(number + later),
                image=cine if cine.is_file() else still,
                frame=number - 1 if cine.is_file() else None,
                label=label if label.is_file() else None,
                same_voxels=True,
                covariates={
                    "moment": {diastole: "ED", systole: "ES"}.get(number, ""),
                    "group": str(info.get("Group", "")),
                    "height": str(info.get("Height", "")),
                    "weight": str(info.get("Weight", "")),
                    **({FRAMES_PER_BEAT: str(count)} if time == "frames" else {}),
                },
            )
        )
    return scans


def systole_as_target(scans: Sequence[ImportedScan], targets: int) -> list[ImportedScan]:
    """Make systole the target of a test subject, and the frames before it context; later frames are not used.

    :param scans: of the subject.
    :param targets: not used.
    :returns: the scans in their order.
    """
    systole = next(scan.time for scan in scans if scan.covariates["moment"] == "ES")
    return [
        replace(scan, part="target" if scan.time == systole else "context") for scan in scans if scan.time <= systole
    ]


def read_info(path: Path) -> dict[str, int | str]:
    """Read ``Info.cfg``.

    :param path: the file.
    :returns: ED, ES and NbFrame as numbers, everything else as text.
    :raises DataError: a frame number is missing or implausible.
    """
    info: dict[str, int | str] = dict(re.findall(r"^\s*(\w+)\s*:\s*(.*?)\s*$", read_text(path), flags=re.MULTILINE))
    for key in ("ED", "ES", "NbFrame"):
        value = str(info.get(key, ""))
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) < 1:
            raise DataError(f"{path}: {key} is '{value}', expected a frame number from 1 on, as in '{key}: 12'.")
        info[key] = int(value)
    if info["ED"] == info["ES"] or max(info["ED"], info["ES"]) > info["NbFrame"]:
        raise DataError(
            f"{path}: ED {info['ED']} and ES {info['ES']} must be two different frames of the {info['NbFrame']}."
        )
    return info


IMPORTER = Importer(
    "acdc",
    read,
    Options,
    example="longflow_import acdc ACDC/database -d 101",
    dataset_name="ACDC",
    split=systole_as_target,
    split_help="systole is the target",
)
