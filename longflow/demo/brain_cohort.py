"""The cohort of :mod:`longflow.demo.brain`: a raw dataset of visits, and a table with the true volumes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription, Scan
from longflow.demo.brain import BRAIN_SHAPE, LABELS, Patient, brain_scan, draw_patient, true_volumes, voxel_spacing
from longflow.demo.writing import (
    PhantomScan,
    centred_geometry,
    cohort_settings,
    subject_seed,
    write_cohort_dataset,
)

DATASET_NAME = "Dataset901_BrainPhantom"
#: years that a series of visits covers
FOLLOW_UP = (3.0, 5.0)


def write_brain_cohort(
    folder: Path,
    subjects: int = 16,
    test_subjects: int = 6,
    seed: int = 0,
    shape: tuple[int, int, int] = BRAIN_SHAPE,
    visits: tuple[int, int] = (3, 5),
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset901_BrainPhantom``); keep a finished one.

    ``imagesTr``, ``labelsTr`` and ``scans.csv`` hold the training subjects, ``imagesTs`` and ``labelsTs`` the held-out
    ones. ``true_volumes.csv`` holds the volumes of all scans in closed form.

    :param shape: (z, y, x) voxels.
    :param visits: fewest and most scans of a subject.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = cohort_settings(subjects, test_subjects, seed, shape, visits=list(visits))
    description = DatasetDescription(
        channel_names={"0": "FLAIR"}, file_ending=".nii.gz", time_unit="years", labels=dict(LABELS), task="segment"
    )
    geometry = centred_geometry(shape, voxel_spacing(shape))  # visits of a phantom are aligned
    patients = [draw_patient(subject_seed(seed, number)) for number in range(subjects + test_subjects)]
    series = [_visits(f"brain{number:03d}", patient, visits) for number, patient in enumerate(patients)]

    def draw(number: int) -> Iterator[PhantomScan]:
        for scan in series[number]:
            image, label = brain_scan(patients[number], scan.time, shape)
            yield PhantomScan(scan, image, geometry, label)

    volumes = [
        row
        for patient, scans in zip(patients, series, strict=True)
        for scan in scans
        for row in _volume_rows(patient, scan)
    ]
    write_cohort_dataset(folder, description, settings, draw, {"true_volumes.csv": volumes})


def _visits(name: str, patient: Patient, visits: tuple[int, int]) -> list[Scan]:
    return [Scan(f"{name}_{index:02d}", name, time, ()) for index, time in enumerate(visit_times(patient, visits))]


def _volume_rows(patient: Patient, scan: Scan) -> list[dict[str, Any]]:
    return [
        {
            "subject": scan.subject,
            "case": scan.case,
            "time": repr(scan.time),
            "structure": structure,
            "volume_ml": f"{volume:.4f}",
        }
        for structure, volume in true_volumes(patient, scan.time).items()
    ]


def visit_times(patient: Patient, visits: tuple[int, int]) -> list[float]:
    """Draw irregular times in years, the first at 0."""
    generator = np.random.default_rng([patient.seed, 2])
    count = int(generator.integers(visits[0], visits[1] + 1))
    step = generator.uniform(*FOLLOW_UP) / (count - 1)
    times = np.arange(count) * step + np.concatenate([[0], generator.uniform(-0.25, 0.25, count - 1) * step])
    return [round(float(time), 2) for time in times]
