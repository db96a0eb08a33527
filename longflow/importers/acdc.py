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
from longflow.importers.scans import ImportedDataset, ImportedScan, resampled
from longflow.reading import read_text

LABELS = ("right ventricle", "myocardium", "left ventricle")
#: the column of scans.csv with the period of a subject whose times are numbers of frames
FRAMES_PER_BEAT = "frames_per_beat"
REFERENCE = "Bernard et al., IEEE TMI 37(11), 2514-2525, 2018, doi:10.1109/TMI.2018.2837502"

#: frames from ED to ES to which the released code of TFM and CRONOS resamples every cine
RESAMPLED = 12


@dataclass(frozen=True)
class Options:
    """Flags of the layout.

    :param frames: "all": every frame of a cine as acquired; "ed_es": the protocol of CRONOS and TFM, from end diastole
        to end systole, resampled to 12 frames.
    :param time: "cycles": frame / NbFrame; "frames": number of the frame, NbFrame of which are a heartbeat. None:
        "cycles" for all frames, "frames" from ED to ES, where all patients then have the same times 1 to 12.
    :param normalization: "min_max": each frame from its minimum to its maximum, as in the authors' code. None: planned.
    """

    frames: Literal["all", "ed_es"] = field(
        default="all",
        metadata=flag(
            "all frames (default), or those from end diastole to end systole, resampled to 12 as in CRONOS and TFM",
            choices=["all", "ed_es"],
        ),
    )
    time: Literal["cycles", "frames"] | None = field(
        default=None,
        metadata=flag(
            "frame / NbFrame (default), or the number of the frame (default with --frames ed_es)",
            choices=["cycles", "frames"],
        ),
    )
    normalization: Literal["min_max"] | None = field(
        default=None,
        metadata=flag(
            "min_max: intensities of each frame from its minimum to its maximum, as in the authors' code (default: as "
            "longflow_plan decides)",
            choices=["min_max"],
        ),
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
    resampled = options.frames == "ed_es"
    time = options.time or ("frames" if resampled else "cycles")
    scans_of = resampled_scans_of_patient if resampled else scans_of_patient
    return ImportedDataset(
        [scan for folder in folders.values() for scan in scans_of(folder, time)],
        time_unit=time,
        channel="cine MRI",
        label_names=LABELS,
        settings={"time": time}
        | ({"frames": options.frames} if resampled else {})
        | ({"normalization": options.normalization} if options.normalization else {}),
        about={
            "reference": REFERENCE,
            "licence": "CC BY-NC-SA 4.0",
            # in cycles it is 1, which needs no key; from ED to ES the frames are none of a heartbeat
            **({"period": FRAMES_PER_BEAT} if time == "frames" and not resampled else {}),
            **({"normalization": {"0": options.normalization}} if options.normalization else {}),
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
        moment = {diastole: "ED", systole: "ES"}.get(number, "")
        scan = ImportedScan(
            case=f"{subject}_frame{number:02d}",
            subject=subject,
            time=round((number + later) / count, 6) if time == "cycles" else float(number + later),
            image=cine if cine.is_file() else folder / f"{subject}_frame{number:02d}.nii.gz",
            frame=number - 1 if cine.is_file() else None,
        )
        described = _described(scan, folder, info, moment)
        beat = {FRAMES_PER_BEAT: str(count)} if time == "frames" else {}
        scans.append(replace(described, covariates={**described.covariates, **beat}))
    return scans


def resampled_scans_of_patient(folder: Path, time: str) -> list[ImportedScan]:
    """List the scans of a patient from end diastole to end systole, resampled to 12.

    As the released code of TFM and CRONOS does: all frames from ED to ES, resampled in time by cubic splines
    (``scipy.ndimage.zoom``). Where ES comes before ED in the file, the frames go on with those of the next cycle; the
    released code has no frames then. Where only ED and ES exist, they are the first and the last.

    :param folder: of the patient.
    :param time: "cycles" or "frames"; the frames are the 12 resampled ones.
    :returns: in order of time.
    """
    info = read_info(folder / "Info.cfg")
    subject, diastole, systole, count = folder.name, info["ED"], info["ES"], info["NbFrame"]
    cine = folder / f"{subject}_4d.nii.gz"
    last = systole if systole > diastole else systole + count
    blends = resampled([(number - 1) % count for number in range(diastole, last + 1)], RESAMPLED)
    scans = []
    for step in range(1, RESAMPLED + 1) if cine.is_file() else (1, RESAMPLED):
        moment = {1: "ED", RESAMPLED: "ES"}.get(step, "")
        still = folder / f"{subject}_frame{systole if moment == 'ES' else diastole:02d}.nii.gz"
        number = diastole + (step - 1) / (RESAMPLED - 1) * (last - diastole)
        scan = ImportedScan(
            case=f"{subject}_step{step:02d}",
            subject=subject,
            time=round(number / count, 6) if time == "cycles" else float(step),
            image=cine if cine.is_file() else still,
            frame=blends[step - 1] if cine.is_file() else None,
        )
        scans.append(_described(scan, folder, info, moment))
    return scans


def _described(scan: ImportedScan, folder: Path, info: dict[str, int | str], moment: str) -> ImportedScan:
    """Add label and covariates to a scan. :param moment: "ED", "ES" or empty; only the first two may have a label."""
    number = info.get(moment, 0)
    label = folder / f"{scan.subject}_frame{number:02d}_gt.nii.gz"
    return replace(
        scan,
        label=label if label.is_file() else None,
        same_voxels=True,
        covariates={
            "moment": moment,
            "group": str(info.get("Group", "")),
            "height": str(info.get("Height", "")),
            "weight": str(info.get("Weight", "")),
        },
    )


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
