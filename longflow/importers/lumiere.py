"""LUMIERE (Suter et al., Scientific Data 2022): MRI of glioblastoma in the official layout, with weeks as time.

    Imaging/Patient-001/week-000-1/CT1.nii.gz, T1.nii.gz, T2.nii.gz, FLAIR.nii.gz
                                   HD-GLIO-AUTO-segmentation/native/segmentation_CT1_origspace.nii.gz
                                   DeepBraTumIA-segmentation/atlas/skull_strip/ct1_skull_strip.nii.gz
                                   DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz
                        week-000-2/ week-044/ ...

A number after the week distinguishes several visits of one week, mostly before and after the operation. Their days are
not published, so the visits are spread evenly over the week: the n visits of week w are at w, w + 1/n, w + 2/n ... They
are in the order of their numbers, except that visits before the operation (``LUMIERE-ExpertRating-*.csv``) come first;
in one patient the numbers are reversed. Times count all visits of a week, so they do not depend on the imported scans.
Both segmentations are automatic.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from longflow.errors import DataError, first_few, unknown_name
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import ImportedDataset, ImportedScan, Space, times_of_scans
from longflow.reading import read_table

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


@dataclass(frozen=True)
class Options:
    """Flags of the layout.

    :param modality: CT1 is T1 with contrast. A visit without it is excluded.
    :param space: "native": each scan on its own grid, with the labels of HD-GLIO-AUTO; ``longflow_register`` comes
        next. "registered": brains in the atlas, all on one grid, with the labels of DeepBraTumIA.
    """

    modality: Modality = field(default="CT1", metadata=flag("CT1 (default: T1 with contrast), T1, T2 or FLAIR"))
    space: Space = field(
        default="native",
        metadata=flag("scans on their own grid (default), or brains in the atlas", choices=["native", "registered"]),
    )


def read(source: Path, options: Options) -> ImportedDataset:
    """Find the scans of one modality; visits become cases ``Patient-001_week-000-1`` ..., with the expert's rating.

    :param source: the folder of the patients, or the one above (``Imaging``).
    :param options: flags of the layout.
    :returns: the dataset.
    :raises DataError: the layout is another one.
    """
    if options.modality not in MODALITIES:
        raise unknown_name("modality", options.modality, MODALITIES)
    patients = patients_of_folder(source)
    ratings = read_ratings(patients[0].parent)
    scans: list[ImportedScan] = []
    excluded: list[str] = []
    for patient in patients:
        found, missing = scans_of_patient(patient, options, ratings)
        scans += found
        excluded += missing
    if not scans:
        raise DataError(
            f"No visit of {source} has the file {file_of(Path(), options).as_posix()}. --space registered needs the "
            "atlas of DeepBraTumIA, --space native the scans themselves. --modality names another one."
        )
    if ratings is None and any(float(scan.time) != int(scan.time) for scan in scans):
        logger.warning(
            "There is no %s next to the patients: of several visits in one week, the one with the lower number counts "
            "as earlier. With the table, the visit before the operation does.",
            RATINGS,
        )
    return ImportedDataset(
        scans,
        time_unit="weeks",
        channel=options.modality,
        label_names=LABELS[options.space],
        settings={"modality": options.modality, "space": options.space, "times": times_of_scans(scans)},
        about={"reference": REFERENCE},
        excluded=excluded,
    )


def patients_of_folder(source: Path) -> list[Path]:
    """List the folders of the patients.

    :param source: the folder of the patients, or the one above.
    :returns: sorted.
    :raises DataError: there are none, or the layout is another one.
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
    """Read the expert's ratings (Pre-Op, Post-Op, CR, PR, SD, PD).

    :param imaging: the folder of the patients; the table is in it or next to it.
    :returns: rating by patient and visit; None where there is no table.
    :raises DataError: the table has no columns Patient, Date and Rating.
    """
    tables = sorted([*imaging.glob(RATINGS), *imaging.parent.glob(RATINGS)])
    if not tables:
        return None
    lines = read_table(tables[0])
    # "Rating (according to RANO ...)"; another column is "Rating rationale (...)"
    columns = lines[0].cells if lines else {}
    rating = next((name for name in columns if name == "Rating" or name.startswith("Rating (")), None)
    if lines and (rating is None or not {"Patient", "Date"} <= set(columns)):
        raise DataError(
            f"{tables[0]} has the columns {', '.join(columns) or '(none)'}; expected Patient, Date (as week-000-1) and "
            "Rating. Remove the table to import without ratings."
        )
    return {(line.cells["Patient"], line.cells["Date"]): line.cells[rating] for line in lines}


def scans_of_patient(
    patient: Path, options: Options, ratings: dict[tuple[str, str], str] | None
) -> tuple[list[ImportedScan], list[str]]:
    """Find the scans of a patient.

    :param patient: the folder.
    :param options: flags of the layout.
    :param ratings: of :func:`read_ratings`.
    :returns: scans in order of time; excluded visits, each with its reason.
    """
    scans, excluded = [], []
    for visit in sorted(path for path in patient.iterdir() if path.is_dir() and not VISIT.fullmatch(path.name)):
        excluded.append(f"{patient.name}/{visit.name}: not the name of a visit, as week-044 or week-000-1")
    rated = {visit: rating for (name, visit), rating in (ratings or {}).items() if name == patient.name}
    visits = [path.name for path in patient.iterdir() if path.is_dir() and VISIT.fullmatch(path.name)]
    for visit, time in times_of_visits(visits, rated).items():
        image = file_of(patient / visit, options)
        if not image.is_file():
            excluded.append(f"{patient.name}/{visit}: no {image.relative_to(patient / visit).as_posix()}")
            continue
        label = label_of(patient / visit, options)
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
    return scans, excluded


def times_of_visits(visits: Sequence[str], ratings: dict[str, str]) -> dict[str, float]:
    """Compute the weeks of a patient's visits.

    >>> times_of_visits(["week-044", "week-000-2", "week-000-1"], {})
    {'week-000-1': 0.0, 'week-000-2': 0.5, 'week-044': 44.0}
    >>> times_of_visits(["week-000", "week-000-1"], {"week-000-1": "Pre-Op", "week-000": "Post-Op"})
    {'week-000-1': 0.0, 'week-000': 0.5}

    :param visits: names of folders.
    :param ratings: of each visit.
    :returns: distinct times in weeks, in order of time.
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


def file_of(visit: Path, options: Options) -> Path:
    """Return the path of a visit's scan."""
    if options.space == "native":
        return visit / f"{options.modality}.nii.gz"
    name = f"{options.modality.lower()}_skull_strip.nii.gz"
    return visit / "DeepBraTumIA-segmentation" / "atlas" / "skull_strip" / name


def label_of(visit: Path, options: Options) -> Path:
    """Return the path of the automatic segmentation on the grid of the scan."""
    if options.space == "native":
        return visit / "HD-GLIO-AUTO-segmentation" / "native" / f"segmentation_{options.modality}_origspace.nii.gz"
    return visit / "DeepBraTumIA-segmentation" / "atlas" / "segmentation" / "seg_mask.nii.gz"


IMPORTER = Importer(
    "lumiere",
    read,
    Options,
    example="longflow_import lumiere LUMIERE -d 106 --space registered",
    dataset_name="LUMIERE",
)
