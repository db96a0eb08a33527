"""Patients of :mod:`longflow.demo.abdomen` written as a raw dataset: each scanned once, in two contrast phases."""

from pathlib import Path

from longflow.data.dataset import PHASE, DatasetDescription, Scan, image_path, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.demo.abdomen import (
    ABDOMEN_SHAPE,
    LABELS,
    PHASES,
    Patient,
    abdomen_scan,
    draw_patient,
    voxel_spacing,
)
from longflow.errors import DataError
from longflow.files import read_json, write_csv

DATASET_NAME = "Dataset902_AbdomenPhantom"


def write_abdomen_cohort(
    folder: Path,
    subjects: int = 16,
    test_subjects: int = 4,
    seed: int = 0,
    shape: tuple[int, int, int] = ABDOMEN_SHAPE,
    breathing: float = 1.0,
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset902_AbdomenPhantom``); a finished one is left as it is.

    ``imagesTr``, ``labelsTr`` and ``scans.csv`` hold the training subjects, ``imagesTs`` and ``labelsTs`` the held-out
    ones, each with both phases; a label lies on the anatomy of its own phase. ``true_gains.csv`` holds each subject's
    gain and displacement.

    :param breathing: factor of the displacement between the phases; 3 gives what needs ``longflow_register``.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = {
        "subjects": subjects,
        "test_subjects": test_subjects,
        "seed": seed,
        "shape": list(shape),
        "breathing": breathing,
    }
    marker = folder / "dataset.json"
    if marker.is_file():
        found = read_json(marker).get("phantom")
        if found != settings:
            raise DataError(f"{folder} holds another dataset ({found}), expected {settings}. Give another folder.")
        return
    description = DatasetDescription(
        channel_names={"0": "CT"},
        file_ending=".nii.gz",
        time_unit="days",
        labels=dict(LABELS),
        task="translate",
        phases=list(PHASES),
    )
    training, held_out, gains = [], [], []
    for number in range(subjects + test_subjects):
        name = f"abdomen{number:03d}"
        patient = draw_patient(1000 * seed + number)
        part, scans = ("Tr", training) if number < subjects else ("Ts", held_out)
        for phase in PHASES:
            case = f"{name}_{phase}"
            path = image_path(folder / f"images{part}", case, 0, description)
            image, label = abdomen_scan(patient, phase, shape, breathing=breathing)
            write_volume(image, _geometry(shape), "int16", path)
            write_volume(label, _geometry(shape), "uint8", folder / f"labels{part}" / f"{case}.nii.gz")
            scans.append(Scan(case, name, 0.0, (path,), covariates={PHASE: phase}))
        gains.append({"subject": name, "gain": f"{patient.gain:.4f}", "breath_mm": f"{breathing * patient.breath:.3f}"})
    write_scans(training, folder / "scans.csv")
    write_scans(held_out, folder / "imagesTs" / "scans.csv")
    write_csv(list(gains[0]), gains, folder / "true_gains.csv")
    write_description(description, marker, numTraining=len(training), phantom=settings)


def cohort_patient(folder: Path, name: str) -> Patient:
    """The patient of a cohort by its name in ``scans.csv``."""
    return draw_patient(1000 * read_json(folder / "dataset.json")["phantom"]["seed"] + int(name[len("abdomen") :]))


def _geometry(shape: tuple[int, int, int]) -> Geometry:
    """Head up, seen from the feet as radiologists do: x to the patient's left, y to the back."""
    spacing = tuple(reversed(voxel_spacing(shape)))
    return Geometry(
        size=tuple(reversed(shape)),
        spacing=spacing,
        origin=tuple(-(count - 1) / 2 * size for count, size in zip(reversed(shape), spacing, strict=True)),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
