"""The phantom obeys its law."""

from dataclasses import replace

import numpy as np
import pytest

from longflow.demo.law import SYSTOLE, contraction, draw_subject, lv_volume
from longflow.demo.phantom import FULL_SCALE, LABELS, NOISE, expected_scan, phantom_scan, voxel_spacing

FINE = (64, 96, 96)
TINY = (8, 32, 32)


def at_phase(subject, phase):
    return (phase - subject.phase) % 1 * subject.period


def label_volume(subject, time, name):
    _, label = phantom_scan(subject, time, FINE, noise=0)
    return (label == LABELS[name]).sum() * np.prod(voxel_spacing(FINE))


def test_contraction_is_smooth_and_periodic():
    phases = np.linspace(0, 2, 2001)
    values = contraction(phases)
    assert values[0] == 0 and contraction(SYSTOLE) == pytest.approx(1)
    assert np.allclose(values[:1000], values[1000:2000])
    slope = np.gradient(values, phases)
    assert np.abs(np.diff(slope)).max() < 0.1  # no kink


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("phase", [0, 0.2, SYSTOLE, 0.7])
def test_ventricle_follows_the_law_and_its_wall_is_conserved(seed, phase):
    subject = draw_subject(seed)
    time = at_phase(subject, phase)
    assert label_volume(subject, time, "left ventricle") == pytest.approx(lv_volume(subject, time), rel=0.03)
    assert label_volume(subject, time, "myocardium") == pytest.approx(subject.wall_volume, rel=0.03)


def test_ejection_fraction_and_rv():
    subject = draw_subject(1)
    filled, emptied = at_phase(subject, 0), at_phase(subject, SYSTOLE)
    assert 1 - lv_volume(subject, emptied) / lv_volume(subject, filled) == pytest.approx(subject.ejection_fraction)
    late = at_phase(subject, SYSTOLE + subject.rv_delay)
    volumes = [label_volume(subject, time, "right ventricle") for time in (filled, late)]
    assert volumes[1] < 0.8 * volumes[0]


def test_wall_thickens_in_systole():
    subject = draw_subject(2)

    def thickness(phase):
        _, label = phantom_scan(subject, at_phase(subject, phase), FINE)
        area = [(label[FINE[0] // 2] == LABELS[name]).sum() for name in ("left ventricle", "myocardium")]
        return np.sqrt(sum(area) / np.pi) - np.sqrt(area[0] / np.pi)

    assert thickness(SYSTOLE) > 1.25 * thickness(0)


def test_scan_is_a_function_of_subject_and_time():
    image, label = phantom_scan(draw_subject(3), 321.5, TINY)
    again, label_again = phantom_scan(draw_subject(3), 321.5, TINY)
    assert np.array_equal(image, again) and np.array_equal(label, label_again)
    assert image.dtype == np.int16 and label.dtype == np.uint8 and image.shape == label.shape == TINY
    assert set(np.unique(label)) == set(LABELS.values())
    assert not np.array_equal(image, phantom_scan(draw_subject(4), 321.5, TINY)[0])


def test_a_heartbeat_later_only_the_noise_differs():
    subject = replace(draw_subject(3), period=800.0)
    image, label = phantom_scan(subject, 100.0, TINY)
    later, label_later = phantom_scan(subject, 900.0, TINY)
    assert np.array_equal(label, label_later)
    assert np.array_equal(*(phantom_scan(subject, time, TINY, noise=0)[0] for time in (100.0, 900.0)))
    bright = image > 300
    assert np.std((image - later)[bright].astype(float)) / np.sqrt(2) == pytest.approx(NOISE * FULL_SCALE, rel=0.15)


def test_noise_is_rician():
    subject = draw_subject(6)
    noiseless = phantom_scan(subject, 50.0, TINY, noise=0)[0].astype(float)
    image = phantom_scan(subject, 50.0, TINY)[0]
    air, sigma = noiseless == 0, NOISE * FULL_SCALE
    assert image[air].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.05)
    expected = expected_scan(subject, 50.0, TINY)
    assert np.mean((image - expected) ** 2) < np.mean((image - noiseless) ** 2)
    assert abs((image - expected).mean()) < 0.05 * sigma
    assert np.sqrt(np.mean((image - expected)[noiseless > 300] ** 2)) == pytest.approx(sigma, rel=0.1)
