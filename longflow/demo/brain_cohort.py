"""Patients of :mod:`longflow.demo.brain` written as a raw dataset of visits, with the true volumes beside it."""

from pathlib import Path

import numpy as np

from longflow.data.dataset import DatasetDescription, Scan, image_path, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.demo.brain import BRAIN_SHAPE, LABELS, Patient, brain_scan, draw_patient, true_volumes, voxel_spacing
from longflow.errors import DataError
from longflow.files import read_json, write_csv

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
    """Write the raw dataset ``folder`` (``.../raw/Dataset901_BrainPhantom``); a finished one is left as it is.

    ``imagesTr``, ``labelsTr`` and ``scans.csv`` hold the training subjects, ``imagesTs`` and ``labelsTs`` the held-out
    ones; ``true_volumes.csv`` the volumes of all in closed form.

    :param visits: fewest and most scans of a subject.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = {
        "subjects": subjects,
        "test_subjects": test_subjects,
        "seed": seed,
        "shape": list(shape),
        "visits": list(visits),
    }
    marker = folder / "dataset.json"
    if marker.is_file():
        found = read_json(marker).get("phantom")
        if found != settings:
            raise DataError(f"{folder} holds another dataset ({found}), expected {settings}. Give another folder.")
        return
    description = DatasetDescription(
        channel_names={"0": "FLAIR"}, file_ending=".nii.gz", time_unit="years", labels=dict(LABELS), task="segment"
    )
    training, held_out, volumes = [], [], []
    for number in range(subjects + test_subjects):
        name, patient = f"brain{number:03d}", draw_patient(1000 * seed + number)
        part, scans = ("Tr", training) if number < subjects else ("Ts", held_out)
        for index, time in enumerate(visit_times(patient, visits)):
            case = f"{name}_{index:02d}"
            scan = Scan(case, name, time, (image_path(folder / f"images{part}", case, 0, description),))
            image, label = brain_scan(patient, time, shape)
            write_volume(image, _geometry(shape), "int16", scan.images[0])
            write_volume(label, _geometry(shape), "uint8", folder / f"labels{part}" / f"{case}.nii.gz")
            scans.append(scan)
            volumes += [
                {
                    "subject": name,
                    "case": case,
                    "time": repr(time),
                    "structure": structure,
                    "volume_ml": f"{volume:.4f}",
                }
                for structure, volume in true_volumes(patient, time).items()
            ]
    write_scans(training, folder / "scans.csv")
    write_scans(held_out, folder / "imagesTs" / "scans.csv")
    write_csv(list(volumes[0]), volumes, folder / "true_volumes.csv")
    write_description(description, marker, numTraining=len(training), phantom=settings)


def visit_times(patient: Patient, visits: tuple[int, int]) -> list[float]:
    """Irregular times in years, the first at 0."""
    generator = np.random.default_rng([patient.seed, 2])
    count = int(generator.integers(visits[0], visits[1] + 1))
    step = generator.uniform(*FOLLOW_UP) / (count - 1)
    times = np.arange(count) * step + np.concatenate([[0], generator.uniform(-0.25, 0.25, count - 1) * step])
    return [round(float(time), 2) for time in times]


def _geometry(shape: tuple[int, int, int]) -> Geometry:
    """Upright, with the origin at the middle of the head: visits of a phantom are registered."""
    spacing = voxel_spacing(shape)
    return Geometry(
        size=tuple(reversed(shape)),
        spacing=tuple(reversed(spacing)),
        origin=tuple(-(count - 1) / 2 * size for count, size in zip(reversed(shape), reversed(spacing), strict=True)),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
