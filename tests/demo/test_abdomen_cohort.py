import csv

import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.dataset import series_of_folder, training_series
from longflow.data.images import read_image, read_scan
from longflow.data.phases import phase_pairs, phases_of_dataset
from longflow.demo.abdomen import LABELS, abdomen_scan, mr_scan
from longflow.demo.abdomen_cohort import (
    DATASET_NAME,
    MODALITIES_NAME,
    cohort_patient,
    write_abdomen_cohort,
    write_modality_cohort,
)
from longflow.errors import DataError

TINY = {"subjects": 2, "test_subjects": 1, "shape": (4, 24, 32)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home") / "raw" / DATASET_NAME
    write_abdomen_cohort(folder, **TINY)
    return folder


def test_every_subject_is_a_pair_with_labels(raw):
    description, training = training_series(raw)
    held_out = series_of_folder(raw / "imagesTs", description, raw / "labelsTs")
    assert description.task == "translate" and description.channels == ["CT"] and description.labels == LABELS
    assert [len(training), len(held_out)] == [2, 1]
    phases = phases_of_dataset(description, training)
    assert phases == ["native", "arterial"]
    for series in (*training, *held_out):
        (pair,) = phase_pairs(series, phases)
        assert pair.first.exists and pair.second.exists and pair.first.label and pair.second.label


def test_files_hold_the_phantom_on_one_grid(raw):
    patient = cohort_patient(raw, "abdomen002")
    volumes = []
    for phase in ("native", "arterial"):
        volume = read_scan((raw / "imagesTs" / f"abdomen002_{phase}_0000.nii.gz",))
        image, label = abdomen_scan(patient, phase, TINY["shape"])
        np.testing.assert_array_equal(volume.array[0], image)
        assert volume.data_type == "int16"
        found = read_image(raw / "labelsTs" / f"abdomen002_{phase}.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), label)
        volumes.append(volume)
    assert volumes[0].geometry == volumes[1].geometry
    # the middle of the field of view is the origin of the patient
    geometry = volumes[0].geometry
    assert np.array(geometry.origin) + (np.array(geometry.size) - 1) / 2 * geometry.spacing == pytest.approx(0)


def test_the_gains_are_written(raw):
    with open(raw / "true_gains.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == ["abdomen000", "abdomen001", "abdomen002"]
    patient = cohort_patient(raw, "abdomen001")
    assert float(rows[1]["gain"]) == pytest.approx(patient.gain, abs=1e-4)
    assert float(rows[1]["breath_mm"]) == pytest.approx(patient.breath, abs=1e-3)


def test_a_cohort_is_kept_and_another_one_is_not_overwritten(raw):
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*") if path.is_file()}
    write_abdomen_cohort(raw, **TINY)
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*") if path.is_file()} == before
    with pytest.raises(DataError, match="holds another dataset"):
        write_abdomen_cohort(raw, **TINY, breathing=3.0)


def test_a_cohort_of_two_modalities_has_mr_and_native_ct_of_one_anatomy(tmp_path):
    folder = tmp_path / "raw" / MODALITIES_NAME
    write_modality_cohort(folder, **TINY)
    description, training = training_series(folder)
    assert description.phases == ["mr", "ct"]
    assert (description.is_ct_of("mr"), description.is_ct_of("ct")) == ([False], [True])
    patient = cohort_patient(folder, training[0].subject)
    for scan in training[0].scans:
        expected = {"mr": mr_scan(patient, TINY["shape"]), "ct": abdomen_scan(patient, "native", TINY["shape"])}
        image, label = expected[scan.phase]
        np.testing.assert_array_equal(read_scan(scan.images).array[0], image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(scan.label)), label)
    with pytest.raises(DataError, match="another dataset"):
        write_modality_cohort(folder, **{**TINY, "seed": 1})
