"""The brain phantom against its closed form."""

import numpy as np
import pytest

from longflow.demo.brain import (
    RISE,
    STRUCTURES,
    Lesion,
    brain_scan,
    draw_patient,
    lesion_radius,
    true_volumes,
    voxel_spacing,
)

FINE = (88, 120, 100)


@pytest.mark.parametrize("time", [0.0, 3.3])
def test_labels_hold_the_volumes_of_the_closed_form(time):
    patient = draw_patient(5)
    _, label = brain_scan(patient, time, FINE)
    voxel = np.prod(voxel_spacing(FINE)) / 1000
    found = {name: np.count_nonzero(label == value) * voxel for value, name in enumerate(STRUCTURES, start=1)}
    assert found == pytest.approx(true_volumes(patient, time), rel=0.03)


def test_volumes_change_as_the_law_says():
    patient = draw_patient(3)
    before, after = true_volumes(patient, 0.0), true_volumes(patient, 2.0)
    assert after["ventricles"] / before["ventricles"] == pytest.approx(1 + 2 * patient.growth)
    assert after["thalami"] / before["thalami"] == pytest.approx(1 - 2 * patient.loss)
    expected = sum(4 / 3 * np.pi * lesion_radius(lesion, 2.0) ** 3 for lesion in patient.lesions) / 1000
    assert after["lesions"] == pytest.approx(expected) and after["lesions"] >= before["lesions"] > 0


def test_a_lesion_comes_and_reaches_its_size():
    lesion = Lesion((0, 0, 0), 6.0, onset=1.0)
    assert [lesion_radius(lesion, time) for time in (0.5, 1.0, 1 + RISE / 2, 1 + RISE, 9)] == [0, 0, 3.0, 6.0, 6.0]


def test_structures_never_meet():
    """Closed forms add up only where no structure covers another."""
    for seed in range(6):
        patient = draw_patient(seed)
        _, label = brain_scan(patient, 5.0)
        voxel = np.prod(voxel_spacing(label.shape)) / 1000
        for value, name in enumerate(STRUCTURES, start=1):
            assert np.count_nonzero(label == value) * voxel == pytest.approx(true_volumes(patient, 5.0)[name], rel=0.12)


def test_the_same_visit_is_the_same_scan_and_two_visits_differ_in_contrast():
    patient = draw_patient(0)
    one, again, later = (brain_scan(patient, time)[0] for time in (1.0, 1.0, 1.01))
    assert np.array_equal(one, again) and one.dtype == np.int16
    inside = one > 200
    assert abs(later[inside].mean() / one[inside].mean() - 1) > 0.02
