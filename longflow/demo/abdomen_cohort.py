"""Cohorts of :mod:`longflow.demo.abdomen`: each patient is scanned once, in two contrast phases, or in MR and CT."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longflow.data.dataset import PHASE, DatasetDescription, Scan
from longflow.demo.abdomen import (
    ABDOMEN_SHAPE,
    LABELS,
    PHASES,
    Patient,
    abdomen_scan,
    draw_patient,
    mr_scan,
    voxel_spacing,
)
from longflow.demo.writing import (
    PhantomScan,
    centred_geometry,
    cohort_settings,
    stored_seed,
    subject_seed,
    write_cohort_dataset,
)

DATASET_NAME = "Dataset902_AbdomenPhantom"
MODALITIES_NAME = "Dataset912_AbdomenMRtoCT"

#: of the cohort of two modalities, that at t = 0 first
MODALITIES = ("mr", "ct")


def write_abdomen_cohort(
    folder: Path,
    subjects: int = 16,
    test_subjects: int = 4,
    seed: int = 0,
    shape: tuple[int, int, int] = ABDOMEN_SHAPE,
    breathing: float = 1.0,
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset902_AbdomenPhantom``); keep a finished one.

    ``imagesTr``, ``labelsTr`` and ``scans.csv`` hold the training subjects, ``imagesTs`` and ``labelsTs`` the held-out
    ones. Every subject has both phases; a label follows the anatomy of its own phase. ``true_gains.csv`` holds the gain
    and the displacement of each subject.

    :param shape: (z, y, x) voxels.
    :param breathing: factor of the displacement between the phases; 3 gives a cohort that needs ``longflow_register``.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = cohort_settings(subjects, test_subjects, seed, shape, breathing=breathing)
    description = _description(PHASES, channel_names={"0": "CT"})
    geometry = centred_geometry(shape, voxel_spacing(shape))  # x to the patient's left, y to the back, z up
    patients = {
        f"abdomen{number:03d}": draw_patient(subject_seed(seed, number)) for number in range(subjects + test_subjects)
    }

    def draw(number: int) -> Iterator[PhantomScan]:
        name = list(patients)[number]
        for phase in PHASES:
            image, label = abdomen_scan(patients[name], phase, shape, breathing=breathing)
            scan = Scan(f"{name}_{phase}", name, 0.0, (), covariates={PHASE: phase})
            yield PhantomScan(scan, image, geometry, label)

    gains = [
        {"subject": name, "gain": f"{patient.gain:.4f}", "breath_mm": f"{breathing * patient.breath:.3f}"}
        for name, patient in patients.items()
    ]
    write_cohort_dataset(folder, description, settings, draw, {"true_gains.csv": gains})


def write_modality_cohort(
    folder: Path,
    subjects: int = 16,
    test_subjects: int = 4,
    seed: int = 0,
    shape: tuple[int, int, int] = ABDOMEN_SHAPE,
) -> None:
    """Write the raw dataset ``folder`` (``.../raw/Dataset912_AbdomenMRtoCT``): MR and CT, aligned; keep a finished one.

    ``dataset.json`` names the channels of each phase (``phase_channels``). Folders are those of
    :func:`write_abdomen_cohort`.

    :param shape: (z, y, x) voxels.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    settings = cohort_settings(subjects, test_subjects, seed, shape, modalities=list(MODALITIES))
    channels = {"mr": {"0": "T1"}, "ct": {"0": "CT"}}
    description = _description(MODALITIES, channel_names={"0": "MR or CT"}, phase_channels=channels)
    geometry = centred_geometry(shape, voxel_spacing(shape))

    def draw(number: int) -> Iterator[PhantomScan]:
        name, patient = f"abdomen{number:03d}", draw_patient(subject_seed(seed, number))
        for phase, (image, label) in zip(
            MODALITIES, (mr_scan(patient, shape), abdomen_scan(patient, "native", shape)), strict=True
        ):
            yield PhantomScan(Scan(f"{name}_{phase}", name, 0.0, (), covariates={PHASE: phase}), image, geometry, label)

    write_cohort_dataset(folder, description, settings, draw)


def _description(phases: Sequence[str], **channels: Any) -> DatasetDescription:
    """Describe a cohort of this phantom. :param channels: fields of the description that name them."""
    return DatasetDescription(
        file_ending=".nii.gz",
        time_unit="days",
        labels=dict(LABELS),
        task="translate",
        phases=list(phases),
        **channels,
    )


def cohort_patient(folder: Path, name: str) -> Patient:
    """Draw the patient of a cohort again. :param name: as in ``scans.csv``."""
    return draw_patient(stored_seed(folder, name))
