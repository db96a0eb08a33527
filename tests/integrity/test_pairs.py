"""Pairs on one grid that are not aligned."""

import numpy as np
import pytest

from longflow.data.images import Geometry
from longflow.demo.abdomen import abdomen_scan, draw_patient
from longflow.integrity.dataset import verify_dataset
from longflow.integrity.pairs import look_at, shift_problems
from tests.data.helpers import write_image, write_phase_dataset

SHAPE = (12, 96, 128)
SPACING = (2.75, 2.75, 10.0)
UPRIGHT = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)


@pytest.fixture(scope="module")
def phases():
    patient = draw_patient(7)
    return [abdomen_scan(patient, phase, SHAPE)[0] for phase in ("native", "arterial")]


def look(array, name="scan", origin=(0.0, 0.0, 0.0), is_ct=True):
    geometry = Geometry(tuple(reversed(array.shape)), SPACING, origin, UPRIGHT)
    return look_at(array, f"imagesTr/{name}", geometry, is_ct)


def test_contrast_and_breathing_are_no_shift(phases):
    native, arterial = phases
    assert shift_problems(look(native), look(arterial)) == []


def test_a_shift_is_said_in_mm(phases):
    native, arterial = phases
    moved = np.roll(arterial, (16, -14), axis=(1, 2))
    (problem,) = shift_problems(look(native, "one"), look(moved, "two"))
    assert (problem.severity, problem.file, problem.field) == ("warning", "imagesTr/two", "position")
    x, y, z = (float(number) for number in problem.found.split("about ")[1].split(" mm")[0].split(" x "))
    assert x == pytest.approx(14 * 2.75, abs=6) and y == pytest.approx(16 * 2.75, abs=6) and z < 5
    assert problem.found.endswith("against one") and "longflow_register" in problem.advice


def test_filling_outside_the_field_of_view_does_not_hide_a_shift(phases):
    native, arterial = (array.copy() for array in phases)
    moved = np.roll(arterial, 16, axis=1)
    outside = np.hypot(*np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1.3, 1.3, 128), indexing="ij")) > 1.25
    native[:, outside], moved[:, outside] = -3024, -3024
    assert shift_problems(look(native), look(moved))
    assert shift_problems(look(native), look(arterial)) == []


def test_scans_on_two_grids_are_not_compared(phases):
    native, arterial = phases
    moved = np.roll(arterial, 16, axis=1)
    assert shift_problems(look(native), look(moved, origin=(5.0, 0, 0))) == []
    assert shift_problems(look(native), look(moved[:, :48])) == []


def test_the_integrity_check_warns_of_a_shifted_pair(tmp_path, phases):
    raw = write_phase_dataset(tmp_path / "Dataset001_Tiny", labelled=False)
    native, arterial = phases
    write_image(native, raw / "imagesTr" / "p1_0_native_0000.nii.gz", SPACING)
    write_image(np.roll(arterial, 20, axis=2), raw / "imagesTr" / "p1_0_arterial_0000.nii.gz", SPACING)
    (problem,) = verify_dataset(raw, processes=1)
    assert (problem.file, problem.field) == ("imagesTr/p1_0_arterial_0000.nii.gz", "position")
