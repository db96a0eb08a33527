"""Phantom subjects written as a raw dataset: irregular training series, and held-out subjects with wanted targets."""

from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription, Scan, image_path, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.demo.law import Subject, draw_subject
from longflow.demo.phantom import DEMO_SHAPE, LABELS, phantom_scan, voxel_spacing
from longflow.errors import DataError
from longflow.files import read_json

DATASET_NAME = "Dataset900_Phantom"
#: horizons of the wanted targets, in heartbeats after the last context scan: a near and a far one
HORIZONS = ((0.07, 0.15), (0.15, 0.28))


def write_cohort(
    folder: Path,
    subjects: int = 24,
    test_subjects: int = 8,
    seed: int = 0,
    shape: tuple[int, int, int] = DEMO_SHAPE,
    scans: tuple[int, int] = (6, 9),
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset900_Phantom``); a finished one is left as it is.

    ``imagesTr``, ``labelsTr`` and ``scans.csv`` hold the training subjects. ``imagesTs`` holds the context scans of the
    held-out subjects; its table has two later rows without an image for each, the wanted targets, whose truth
    (a scan with its own noise) lies in ``targetsTs`` and whose labels lie in ``labelsTs``.

    :param scans: fewest and most scans of a subject, wanted targets included.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = {
        "subjects": subjects,
        "test_subjects": test_subjects,
        "seed": seed,
        "shape": list(shape),
        "scans": list(scans),
    }
    if is_written(folder, settings):
        return
    description = DatasetDescription(
        channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="ms", labels=dict(LABELS), task="forecast"
    )

    training = []
    for number in range(subjects):
        name, subject = f"phantom{number:03d}", draw_subject(_seed(seed, number))
        for index, time in enumerate(scan_times(subject, scans)):
            scan = scan_of(folder / "imagesTr", f"{name}_{index:02d}", name, time, description)
            write_scan(subject, time, shape, scan.images[0], folder / "labelsTr" / f"{scan.case}.nii.gz")
            training.append(scan)
    write_scans(training, folder / "scans.csv")

    held_out = []
    for number in range(subjects, subjects + test_subjects):
        name, subject = f"phantom{number:03d}", draw_subject(_seed(seed, number))
        context, wanted = held_out_times(subject, scans)
        for index, time in enumerate(context):
            scan = scan_of(folder / "imagesTs", f"{name}_{index:02d}", name, time, description)
            write_scan(subject, time, shape, scan.images[0], folder / "labelsTs" / f"{scan.case}.nii.gz")
            held_out.append(scan)
        for time, reach in zip(wanted, ("near", "far"), strict=True):
            scan = scan_of(folder / "imagesTs", f"{name}_{reach}", name, time, description)
            truth = image_path(folder / "targetsTs", scan.case, 0, description)
            write_scan(subject, time, shape, truth, folder / "labelsTs" / f"{scan.case}.nii.gz")
            held_out.append(scan)
    write_scans(held_out, folder / "imagesTs" / "scans.csv")
    write_description(description, folder / "dataset.json", numTraining=len(training), phantom=settings)


def is_written(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a raw dataset is finished. :param settings: of the cohort, which its dataset.json keeps.

    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    marker = folder / "dataset.json"
    if not marker.is_file():
        return False
    if (found := read_json(marker).get("phantom")) != settings:
        raise DataError(f"{folder} holds another dataset ({found}), expected {settings}. Give another folder.")
    return True


def scan_times(subject: Subject, scans: tuple[int, int]) -> list[float]:
    """Irregular times in ms, over 1.5 to 2 of the subject's heartbeats: a jittered grid, in tenths of a ms."""
    generator = np.random.default_rng([subject.seed, 4])
    count = int(generator.integers(scans[0], scans[1] + 1))
    step = generator.uniform(1.5, 2.0) * subject.period / count
    positions = np.arange(count) + generator.uniform(-0.35, 0.35, count)
    return [round(float(time), 1) for time in generator.uniform(20, 200) + step * (positions - positions[0])]


def held_out_times(subject: Subject, scans: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Times in ms of the context scans, all but the last two, and of the wanted targets, at ``HORIZONS`` after them."""
    context = scan_times(subject, scans)[: -len(HORIZONS)]
    generator = np.random.default_rng([subject.seed, 6])
    return context, [
        round(context[-1] + float(generator.uniform(*horizon)) * subject.period, 1) for horizon in HORIZONS
    ]


def subject_geometry(subject: Subject, shape: tuple[int, int, int]) -> Geometry:
    """The oblique short-axis geometry of a subject, the same for all of its scans."""
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
    """The subject of a cohort by its name in ``scans.csv``."""
    return draw_subject(_seed(read_json(folder / "dataset.json")["phantom"]["seed"], int(name.removeprefix("phantom"))))


def _seed(seed: int, number: int) -> int:
    return 1000 * seed + number


def scan_of(images: Path, case: str, subject: str, time: float, description: DatasetDescription) -> Scan:
    """A scan of a single channel whose image lies, or would lie, in a folder."""
    return Scan(case, subject, time, (image_path(images, case, 0, description),))


def write_scan(
    subject: Subject, time: float, shape: tuple[int, int, int], image_file: Path, label_file: Path | None = None
) -> None:
    """Write the scan of a subject at a time, and its labels where they are wanted."""
    image, label = phantom_scan(subject, time, shape)
    geometry = subject_geometry(subject, shape)
    write_volume(image, geometry, "int16", image_file)
    if label_file:
        write_volume(label, geometry, "uint8", label_file)
