"""LUMIERE (Suter et al., Scientific Data 2022): MRI of glioblastoma, weeks as time, from the official layout.

    Imaging/Patient-001/week-000-1/CT1.nii.gz, T1.nii.gz, T2.nii.gz, FLAIR.nii.gz
                                   HD-GLIO-AUTO-segmentation/native/segmentation_CT1_origspace.nii.gz
                                   DeepBraTumIA-segmentation/atlas/skull_strip/ct1_skull_strip.nii.gz
                                   DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz
                        week-000-2/ week-044/ ...

A number after the week tells several visits of one week apart, mostly before and after the operation. On which days of
the week they were is not published, so they are spread evenly over it: the n visits of week w are at w, w + 1/n,
w + 2/n ... Their order is that of their numbers, but for visits before the operation (``LUMIERE-ExpertRating-*.csv``),
which come first: in one patient it is the other way round. Times count all visits of a week, so that they are the same
whichever scans are imported. Both segmentations are automatic.
"""

import csv
import logging
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from longflow.errors import DataError, first_few, unknown_name
from longflow.importers.writing import ImportedScan, Space, import_dataset, moments, with_test_subjects
from longflow.parallel import Progress

logger = logging.getLogger(__name__)

REFERENCE = "Suter et al., The LUMIERE dataset, Scientific Data 9, 768, 2022, doi:10.1038/s41597-022-01881-7"

Modality = Literal["CT1", "T1", "T2", "FLAIR"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

VISIT = re.compile(r"week-(\d+)(?:-(\d+))?")
RATINGS = "LUMIERE-ExpertRating*.csv"
BEFORE_OPERATION = "Pre-Op"

#: HD-GLIO-AUTO's 1 and 2. Of DeepBraTumIA's three labels, sources name 1 and 2 differently, so they keep their numbers
LABELS: dict[Space, tuple[str, ...]] = {
    "native": ("non-enhancing T2 abnormality", "contrast-enhancing tumour"),
    "registered": (),
}


def import_lumiere(
    source: Path,
    raw: Path,
    *,
    modality: Modality = "CT1",
    space: Space = "native",
    task: str = "forecast",
    test: Sequence[str] = (),
    test_targets: int = 1,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Import one modality; visits become cases ``Patient-001_week-000-1`` ..., with the expert's rating as covariate.

    :param source: the folder of the patients, or the one above (``Imaging`` is looked for there).
    :param raw: the dataset's folder.
    :param modality: CT1 is T1 with contrast. A visit without it is left out.
    :param space: "native": each scan on its own grid, with HD-GLIO-AUTO's labels: ``longflow_register`` comes next;
        "registered": brains in the atlas, all on one grid, with DeepBraTumIA's labels.
    :param test: patients that go to imagesTs, their last ``test_targets`` visits as targets.
    :returns: False where everything was there already.
    :raises DataError: the layout is another one, or a file cannot be used.
    """
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    patients = patients_of_folder(source)
    ratings = read_ratings(patients[0].parent)
    scans: list[ImportedScan] = []
    left_out: list[str] = []
    for patient in patients:
        found, missing = scans_of_patient(patient, modality, space, ratings)
        scans += found
        left_out += missing
    if not scans:
        raise DataError(
            f"No visit of {source} has the file {file_of(Path(), modality, space).as_posix()}. With --space registered "
            "the atlas of DeepBraTumIA is needed, with --space native the scans themselves; --modality names another."
        )
    if ratings is None and any(float(scan.time) != int(scan.time) for scan in scans):
        logger.warning(
            "%s is not beside the patients: of several visits in one week, that with the lower number is taken to be "
            "the earlier one. With the table, the visit before the operation is.",
            RATINGS,
        )
    return import_dataset(
        with_test_subjects(scans, test, test_targets),
        raw,
        time_unit="weeks",
        channel=modality,
        label_names=LABELS[space],
        settings={
            "importer": "lumiere",
            "source": str(source.resolve()),
            "modality": modality,
            "space": space,
            "times": moments(scans),
            "test": sorted(test),
            "test_targets": test_targets,
        },
        about={"reference": REFERENCE},
        task=task,
        left_out=left_out,
        processes=processes,
        overwrite=overwrite,
        progress=progress,
    )


def patients_of_folder(source: Path) -> list[Path]:
    """The folders of the patients, sorted.

    :raises DataError: there are none, or not as they are released.
    """
    for folder in (source, source / "Imaging"):
        patients = sorted(path for path in folder.glob("Patient-*") if path.is_dir())
        if any(VISIT.fullmatch(path.name) for patient in patients for path in patient.iterdir()):
            return patients
    raise DataError(
        f"{source} has no LUMIERE patients. Expected folders as Imaging/Patient-001/week-000-1 with CT1.nii.gz. "
        f"Found: {first_few(sorted(path.name for path in source.iterdir())) if source.is_dir() else 'no such folder'}."
    )


def read_ratings(imaging: Path) -> dict[tuple[str, str], str] | None:
    """The expert's rating (Pre-Op, Post-Op, CR, PR, SD, PD) by patient and visit; None where there is no table.

    :param imaging: the folder of the patients; the table lies in it or beside it.
    :raises DataError: the table has not the columns Patient, Date and Rating.
    """
    tables = sorted([*imaging.glob(RATINGS), *imaging.parent.glob(RATINGS)])
    if not tables:
        return None
    try:
        with open(tables[0], newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
            # "Rating (according to RANO ...)"; another column is "Rating rationale (...)"
            rating = next((name for name in columns if name == "Rating" or name.startswith("Rating (")), None)
            if rating is None or not {"Patient", "Date"} <= set(columns):
                raise DataError(
                    f"{tables[0]} has the columns {', '.join(columns) or '(none)'}; expected Patient, Date (as "
                    "week-000-1) and Rating. Move it away to import without ratings."
                )
            return {
                ((row["Patient"] or "").strip(), (row["Date"] or "").strip()): (row[rating] or "").strip()
                for row in reader
            }
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{tables[0]} is not a table that can be read. Save it again as 'CSV UTF-8'.") from error


def scans_of_patient(
    patient: Path, modality: Modality, space: Space, ratings: dict[tuple[str, str], str] | None
) -> tuple[list[ImportedScan], list[str]]:
    """A patient's scans in order of time, and what was left out."""
    scans, left_out = [], []
    for visit in sorted(path for path in patient.iterdir() if path.is_dir() and not VISIT.fullmatch(path.name)):
        left_out.append(f"{patient.name}/{visit.name}: not the name of a visit, as week-044 or week-000-1")
    rated = {visit: rating for (name, visit), rating in (ratings or {}).items() if name == patient.name}
    visits = [path.name for path in patient.iterdir() if path.is_dir() and VISIT.fullmatch(path.name)]
    for visit, time in times_of_visits(visits, rated).items():
        image = file_of(patient / visit, modality, space)
        if not image.is_file():
            left_out.append(f"{patient.name}/{visit}: no {image.relative_to(patient / visit).as_posix()}")
            continue
        label = label_of(patient / visit, modality, space)
        scans.append(
            ImportedScan(
                case=f"{patient.name}_{visit}",
                subject=patient.name,
                time=time,
                image=image,
                label=label if label.is_file() else None,
                same_voxels=True,
                covariates={} if ratings is None else {"rating": rated.get(visit, "")},
            )
        )
    return scans, left_out


def times_of_visits(visits: Sequence[str], ratings: dict[str, str]) -> dict[str, float]:
    """Weeks of a patient's visits, all different, in order of time.

    >>> times_of_visits(["week-044", "week-000-2", "week-000-1"], {})
    {'week-000-1': 0.0, 'week-000-2': 0.5, 'week-044': 44.0}
    >>> times_of_visits(["week-000", "week-000-1"], {"week-000-1": "Pre-Op", "week-000": "Post-Op"})
    {'week-000-1': 0.0, 'week-000': 0.5}
    """

    def place(visit: str) -> tuple[int, bool, int]:
        week, number = VISIT.fullmatch(visit).groups(default="0")
        return int(week), not ratings.get(visit, "").startswith(BEFORE_OPERATION), int(number)

    times = {}
    for week, group in groupby(sorted(visits, key=place), key=lambda visit: place(visit)[0]):
        of_week = list(group)
        for position, visit in enumerate(of_week):
            times[visit] = round(float(week + Fraction(position, len(of_week))), 6)
    return times


def file_of(visit: Path, modality: Modality, space: Space) -> Path:
    """Where a visit's scan lies."""
    if space == "native":
        return visit / f"{modality}.nii.gz"
    return visit / "DeepBraTumIA-segmentation" / "atlas" / "skull_strip" / f"{modality.lower()}_skull_strip.nii.gz"


def label_of(visit: Path, modality: Modality, space: Space) -> Path:
    """Where the automatic segmentation on the scan's grid lies."""
    if space == "native":
        return visit / "HD-GLIO-AUTO-segmentation" / "native" / f"segmentation_{modality}_origspace.nii.gz"
    return visit / "DeepBraTumIA-segmentation" / "atlas" / "segmentation" / "seg_mask.nii.gz"
