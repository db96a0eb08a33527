"""The cohort of :mod:`longflow.demo.visits`: irregular visits, and held-out subjects with requested targets."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from longflow.data.dataset import DatasetDescription
from longflow.demo.visits import LABELS, VISITS_SHAPE, VisitSubject, draw_visit_subject, visit_scan, visit_spacing
from longflow.demo.writing import (
    PhantomScan,
    centred_geometry,
    cohort_settings,
    rows_of_subject,
    stored_seed,
    subject_seed,
    write_cohort_dataset,
)

DATASET_NAME = "Dataset903_Visits"
#: days between visits
INTERVALS = (5.0, 16.0)
#: horizons of the targets, days after the last context scan: a near and a far one
HORIZONS = ((7.0, 15.0), (15.0, 30.0))


def write_visits_cohort(
    folder: Path,
    subjects: int = 24,
    test_subjects: int = 8,
    seed: int = 0,
    shape: tuple[int, int, int] = VISITS_SHAPE,
    visits: tuple[int, int] = (7, 11),
    shared: bool = True,
) -> None:
    """Write the raw dataset ``folder``; keep a finished one.

    ``imagesTr``, ``labelsTr`` and ``scans.csv`` hold the training subjects. ``imagesTs`` holds the context scans of the
    held-out subjects; two later rows of its table, without an image, are the targets. Their references are in
    ``targetsTs``.

    :param subjects: for training.
    :param test_subjects: held out.
    :param seed: of all subjects.
    :param shape: (z, y, x) voxels.
    :param visits: fewest and most scans of a subject, without the targets.
    :param shared: whether all visits have the same intensity units.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    further = {"visits": list(visits), "shared_units": shared}
    settings = cohort_settings(subjects, test_subjects, seed, shape, **further)
    description = DatasetDescription(
        channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", labels=dict(LABELS), task="forecast"
    )
    geometry = centred_geometry(shape, visit_spacing(shape))  # visits of a phantom are aligned

    def draw(number: int) -> Iterator[PhantomScan]:
        subject = draw_visit_subject(subject_seed(seed, number))
        context, targets = visit_times(subject, visits)
        for scan, is_target in rows_of_subject(f"visits{number:03d}", context, targets if number >= subjects else []):
            image, label = visit_scan(subject, scan.time, shape, shared)
            yield PhantomScan(scan, image, geometry, label, is_target)

    write_cohort_dataset(folder, description, settings, draw)


def visit_times(subject: VisitSubject, visits: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Draw the days of the visits, the first at 0, and those of the targets after them.

    :param visits: fewest and most visits.
    :returns: visits and targets, whole tenths of a day.
    """
    generator = np.random.default_rng([subject.seed, 6])
    count = int(generator.integers(visits[0], visits[1] + 1))
    days = np.concatenate([[0.0], np.cumsum(generator.uniform(*INTERVALS, count - 1))])
    targets = [days[-1] + generator.uniform(*horizon) for horizon in HORIZONS]
    return [round(float(day), 1) for day in days], [round(float(day), 1) for day in targets]


def visits_subject(folder: Path, name: str) -> VisitSubject:
    """Draw the subject of a cohort again. :param name: as in ``scans.csv``."""
    return draw_visit_subject(stored_seed(folder, name))
