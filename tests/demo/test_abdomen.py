"""The abdominal phantom against its law: the effect of contrast, and of breathing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from longflow.demo.abdomen import (
    BLOOD,
    ENHANCEMENT,
    LABELS,
    LIVER,
    NOISE,
    SPLEEN,
    abdomen_scan,
    draw_patient,
    expected_gain,
    knowable_scan,
    mr_scan,
)

SHAPE = (12, 96, 128)
COARSE = (12, 48, 64)


def inside(label, name):
    """Voxels of a structure without its border in the slice, where partial volume is."""
    return binary_erosion(label == LABELS[name], np.ones((1, 5, 5)))


@pytest.fixture(scope="module")
def registered():
    """Both phases without noise and without breathing, and their label."""
    patient = draw_patient(4)
    (native, label), (arterial, of_arterial) = (
        abdomen_scan(patient, phase, SHAPE, noise=0, breathing=0) for phase in ("native", "arterial")
    )
    assert np.array_equal(label, of_arterial)
    return patient, native.astype(float), arterial.astype(float), label


@pytest.mark.parametrize(("name", "native_value"), [("aorta", BLOOD), ("spleen", SPLEEN), ("liver", LIVER)])
def test_an_organ_has_its_value_and_brightens_by_its_gain(registered, name, native_value):
    patient, native, arterial, label = registered
    where = inside(label, name)
    assert where.sum() > 20
    assert np.median(native[where]) == pytest.approx(native_value, abs=3)
    assert np.median((arterial - native)[where]) == pytest.approx(patient.gain * ENHANCEMENT[name], abs=1.5)


def test_the_cortex_of_the_kidney_brightens_more_than_its_medulla(registered):
    patient, native, arterial, label = registered
    change = (arterial - native)[label == LABELS["kidneys"]]
    cortex, medulla = (patient.gain * ENHANCEMENT[part] for part in ("cortex", "medulla"))
    for value in (medulla, cortex):
        assert (np.abs(change - value) < 2).mean() > 0.1
    assert change.max() < cortex + 2


def test_nothing_else_changes(registered):
    _, native, arterial, label = registered
    change = np.abs(arterial - native)
    for name in ("spine", "vena cava"):
        assert change[inside(label, name)].max() == 0
    assert change[label == 0].astype(bool).mean() < 0.04  # partial volume next to an organ
    assert native.min() == -1000 and np.array_equal(native < -950, arterial < -950)


def test_bone_fat_and_gas_are_as_in_ct(registered):
    _, native, _, label = registered
    spine = native[label == LABELS["spine"]]
    assert spine.max() > 500 and 60 < np.median(spine) < 400
    assert ((native > -120) & (native < -90)).mean() > 0.08
    body = np.s_[:, 30:60, 30:98]
    assert 0.001 < (native[body] < -700).mean() < 0.15  # gas of stomach and bowel


def test_all_structures_are_in_every_patient():
    for seed in range(10):
        label = abdomen_scan(draw_patient(seed), "native", COARSE, noise=0)[1]
        counts = np.bincount(label.ravel(), minlength=len(LABELS))
        assert counts.min() > 20, dict(zip(LABELS, counts.tolist(), strict=True))


def test_the_same_scan_twice_and_noise_of_the_stated_strength():
    patient = draw_patient(1)
    image, label = abdomen_scan(patient, "arterial", SHAPE)
    again, _ = abdomen_scan(patient, "arterial", SHAPE)
    noiseless, _ = abdomen_scan(patient, "arterial", SHAPE, noise=0)
    assert np.array_equal(image, again) and image.dtype == np.int16 and label.dtype == np.uint8
    away = noiseless > -900  # air is cut at -1024
    assert np.std((image - noiseless)[away]) == pytest.approx(NOISE, rel=0.05)


def test_breathing_moves_the_organs_in_front_and_not_the_spine():
    patient = replace(draw_patient(2), breath=3.0)
    native, label = abdomen_scan(patient, "native", SHAPE, noise=0)
    arterial, moved = abdomen_scan(patient, "arterial", SHAPE, noise=0, breathing=2)
    assert np.array_equal(native, abdomen_scan(patient, "native", SHAPE, noise=0, breathing=2)[0])

    def differing(name):
        value = LABELS[name]
        return ((label == value) != (moved == value)).sum() / (label == value).sum()

    assert differing("liver") > 0.01
    assert differing("spine") < differing("liver") / 2
    skin = np.abs(native - arterial)[:, :, [*range(8), *range(-8, 0)]]
    assert skin.max() == 0


def test_what_can_be_known_lacks_noise_breathing_and_the_chance_of_the_gain():
    patient = replace(draw_patient(3), gain=expected_gain(draw_patient(3).size))
    for phase in ("native", "arterial"):
        noiseless, _ = abdomen_scan(patient, phase, COARSE, noise=0, breathing=0)
        assert np.array_equal(knowable_scan(patient, phase, COARSE, breathing=0), noiseless)
    # into the native phase, the anatomy stays where the arterial one shows it
    moved = knowable_scan(patient, "native", COARSE).astype(float)
    arterial, label = abdomen_scan(patient, "arterial", COARSE, noise=0)
    background = (label == 0) & (arterial > 60)
    assert np.abs(moved - arterial)[background].mean() < 10


def test_the_gain_falls_with_the_size():
    patients = [draw_patient(seed) for seed in range(60)]
    gains, sizes = (np.array([getattr(one, name) for one in patients]) for name in ("gain", "size"))
    assert np.corrcoef(gains, sizes)[0, 1] < -0.8
    assert ENHANCEMENT["aorta"] * gains.min() > 190 and ENHANCEMENT["aorta"] * gains.max() < 360


def test_mr_shows_the_same_anatomy_in_another_contrast():
    """Neither air nor cortical bone gives a signal, fat is brighter than muscle; each subject has a gain of its own."""
    patient, other = draw_patient(1), draw_patient(2)
    ct, label = abdomen_scan(patient, "native", noise=0)
    mr, found = mr_scan(patient, noise=0)
    np.testing.assert_array_equal(found, label)
    air, fat, muscle, bone = (
        np.median(mr[(ct >= low) & (ct <= high)])
        for low, high in ((-1024, -900), (-108, -102), (50, 54), (ct.max() - 20, ct.max()))
    )
    assert air == 0 and bone < 0.4 * muscle and fat > 1.6 * muscle
    of_other, its_ct = mr_scan(other, noise=0)[0], abdomen_scan(other, "native", noise=0)[0]
    assert abs(np.median(of_other[(its_ct >= 50) & (its_ct <= 54)]) / muscle - 1) > 0.05
    np.testing.assert_array_equal(mr_scan(patient)[0], mr_scan(patient)[0])
    assert mr_scan(patient)[0].min() >= 0
