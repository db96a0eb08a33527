"""ACDC (Bernard et al., IEEE TMI 2018): cine MRI of the heart, from the official layout to a raw dataset.

``patientXXX/`` holds ``Info.cfg`` (ED, ES, NbFrame counted from 1; Group, Height, Weight), the end-diastolic and
end-systolic frames with labels, and in the full release the whole cine as ``patientXXX_4d.nii.gz``.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from longflow.errors import DataError, unknown_name
from longflow.importers.writing import ImportedScan, import_dataset
from longflow.parallel import Progress

LABELS = ("right ventricle", "myocardium", "left ventricle")
REFERENCE = "Bernard et al., IEEE TMI 37(11), 2514-2525, 2018, doi:10.1109/TMI.2018.2837502"


def import_acdc(
    source: Path,
    raw: Path,
    *,
    time: Literal["cycles", "frames"] = "cycles",
    task: str = "forecast",
    test: Sequence[str] = (),
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Import ACDC. Where a patient's 4D file is there, every frame becomes a scan; else ED and ES do.

    :param source: the folder of the patients, or the one above ``training`` and ``testing``; patients of ``testing``
        then become test subjects.
    :param raw: the dataset's folder.
    :param time: "cycles": frame / NbFrame; "frames": the frame's number.
    :param task: what the dataset is for.
    :param test: subjects that go to imagesTs: the frames before ES as context, ES as target.
    :returns: False where everything was there already.
    """
    folders = {path.parent.name: path.parent for path in sorted(source.rglob("Info.cfg"))}
    if not folders:
        raise DataError(
            f"{source} has no ACDC patients. Expected folders as patient001 with Info.cfg and "
            "patient001_frame01.nii.gz."
        )
    for subject in test:
        if subject not in folders:
            raise unknown_name("subject", subject, folders)
    scans = []
    has_training = any(folder.parent.name == "training" for folder in folders.values())
    for subject, folder in folders.items():
        is_test = subject in test or (has_training and folder.parent.name == "testing")
        scans += scans_of_patient(folder, time, is_test)
    return import_dataset(
        scans,
        raw,
        time_unit=time,
        channel="cine MRI",
        label_names=LABELS,
        settings={"importer": "acdc", "source": str(source.resolve()), "time": time, "test": sorted(test)},
        about={"reference": REFERENCE, "licence": "CC BY-NC-SA 4.0"},
        task=task,
        processes=processes,
        overwrite=overwrite,
        progress=progress,
    )


def scans_of_patient(folder: Path, time: str, is_test: bool) -> list[ImportedScan]:
    """A patient's scans in order of time.

    Where there are only ED and ES and ES comes first in the file, it is that of the next cycle (a cine is one
    averaged heartbeat that repeats), so that systole always follows diastole.
    """
    info = read_info(folder / "Info.cfg")
    subject, diastole, systole, count = folder.name, info["ED"], info["ES"], info["NbFrame"]
    cine = folder / f"{subject}_4d.nii.gz"
    numbers = range(1, count + 1) if cine.is_file() else (diastole, systole)
    scans = []
    for number in numbers:
        later = count if not cine.is_file() and number == systole and systole < diastole else 0
        moment = {diastole: "ED", systole: "ES"}.get(number, "")
        part = "training" if not is_test else "target" if number == systole else "context"
        if part == "context" and number > systole and cine.is_file():
            continue  # a forecast of systole has no use for what comes after it
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
                part=part,
                same_voxels=True,
                covariates={
                    "moment": moment,
                    "group": str(info.get("Group", "")),
                    "height": str(info.get("Height", "")),
                    "weight": str(info.get("Weight", "")),
                },
            )
        )
    return scans


def read_info(path: Path) -> dict[str, int | str]:
    """``Info.cfg``: ED, ES and NbFrame as numbers, everything else as text."""
    info: dict[str, int | str] = dict(re.findall(r"^\s*(\w+)\s*:\s*(.*?)\s*$", path.read_text(), flags=re.MULTILINE))
    for key in ("ED", "ES", "NbFrame"):
        value = str(info.get(key, ""))
        if not value.isdigit() or int(value) < 1:
            raise DataError(f"{path}: {key} is '{value}', expected a frame number from 1 on, as in '{key}: 12'.")
        info[key] = int(value)
    if info["ED"] == info["ES"] or max(info["ED"], info["ES"]) > info["NbFrame"]:
        raise DataError(
            f"{path}: ED {info['ED']} and ES {info['ES']} must be two different frames of the {info['NbFrame']}."
        )
    return info
