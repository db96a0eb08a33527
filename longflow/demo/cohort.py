"""The cohort of beating hearts: irregular training series, and held-out subjects with requested targets."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from longflow.data.dataset import DatasetDescription, Scan
from longflow.data.images import Geometry
from longflow.demo.law import Subject, draw_subject
from longflow.demo.phantom import DEMO_SHAPE, LABELS, phantom_scan, voxel_spacing
from longflow.demo.writing import (
    PhantomScan,
    cohort_settings,
    rows_of_subject,
    stored_seed,
    subject_seed,
    write_cohort_dataset,
)

DATASET_NAME = "Dataset900_Phantom"
#: horizons of the targets, in heartbeats after the last context scan: a near and a far one
HORIZONS = ((0.07, 0.15), (0.15, 0.28))


def write_cohort(
    folder: Path,
    subjects: int = 24,
    test_subjects: int = 8,
    seed: int = 0,
    shape: tuple[int, int, int] = DEMO_SHAPE,
    scans: tuple[int, int] = (6, 9),
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset900_Phantom``); keep a finished one.

    ``imagesTr``, ``labelsTr`` and ``scans.csv`` hold the training subjects. ``imagesTs`` holds the context scans of the
    held-out subjects. Its table has two later rows without an image for each: the requested targets. Their references
    (scans with noise of their own) are in ``targetsTs``, their labels in ``labelsTs``.

    :param shape: (z, y, x) voxels.
    :param scans: fewest and most scans of a subject, targets included.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = cohort_settings(subjects, test_subjects, seed, shape, scans=list(scans))
    description = DatasetDescription(
        channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="ms", labels=dict(LABELS), task="forecast"
    )

    def draw(number: int) -> Iterator[PhantomScan]:
        subject, is_test = draw_subject(subject_seed(seed, number)), number >= subjects
        context, targets = held_out_times(subject, scans) if is_test else (scan_times(subject, scans), [])
        for scan, is_target in rows_of_subject(f"phantom{number:03d}", context, targets):
            yield heart_scan(subject, scan.time, scan, shape, is_target)

    write_cohort_dataset(folder, description, settings, draw)


def heart_scan(
    subject: Subject, time: float, scan: Scan, shape: tuple[int, int, int], is_target: bool = False
) -> PhantomScan:
    """Scan a subject's heart.

    :param time: in ms.
    :param scan: the row of the table; its time can be in another unit.
    :param shape: (z, y, x) voxels.
    """
    image, label = phantom_scan(subject, time, shape)
    return PhantomScan(scan, image, subject_geometry(subject, shape), label, is_target)


def scan_times(subject: Subject, scans: tuple[int, int]) -> list[float]:
    """Draw irregular times, over 1.5 to 2 of the subject's heartbeats: a jittered grid.

    :returns: ms, rounded to 0.1.
    """
    generator = np.random.default_rng([subject.seed, 4])
    count = int(generator.integers(scans[0], scans[1] + 1))
    step = generator.uniform(1.5, 2.0) * subject.period / count
    positions = np.arange(count) + generator.uniform(-0.35, 0.35, count)
    return [round(float(time), 1) for time in generator.uniform(20, 200) + step * (positions - positions[0])]


def held_out_times(subject: Subject, scans: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Return the times in ms of the context scans (all but the last two) and of the targets, ``HORIZONS`` later."""
    context = scan_times(subject, scans)[: -len(HORIZONS)]
    generator = np.random.default_rng([subject.seed, 6])
    return context, [
        round(context[-1] + float(generator.uniform(*horizon)) * subject.period, 1) for horizon in HORIZONS
    ]


def subject_geometry(subject: Subject, shape: tuple[int, int, int]) -> Geometry:
    """Return the oblique short-axis geometry of a subject, the same for all of its scans."""
    generator = np.random.default_rng([subject.seed, 5])
    yaw, pitch, roll = np.radians(generator.uniform([30, -40, -15], [60, -20, 15]))
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    return Geometry(
        size=tuple(reversed(shape)),
        spacing=tuple(reversed(voxel_spacing(shape))),
        origin=tuple(float(value) for value in np.round(generator.uniform(-120, -40, 3), 2)),
        direction=tuple(float(value) for value in (about_z @ about_y @ about_x).ravel()),
    )


def cohort_subject(folder: Path, name: str) -> Subject:
    """Draw the subject of a cohort again. :param name: as in ``scans.csv``."""
    return draw_subject(stored_seed(folder, name))
