import numpy as np
import pytest

from longflow.fitness.looks import AXES, CELLS, agreement, halved, look_at_scan, stretched

SHAPE, SPACING = (10, 30, 41), (5.0, 2.0, 1.5)


def scan(seed=0, shape=SHAPE):
    """A smooth blob off the centre, in noise."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    blob = np.exp(-4 * ((z - 0.2) ** 2 + (y + 0.3) ** 2 + (x - 0.4) ** 2))
    return 1000 * blob + np.random.default_rng(seed).normal(0, 10, shape)


def look(array, spacing=SPACING):
    return look_at_scan(np.asarray(array)[None], spacing)


def test_spacing_and_field_are_logarithms_of_mm():
    values = look(scan()).values
    assert [np.exp(values[f"spacing {axis}"]) for axis in AXES] == pytest.approx(SPACING)
    assert [np.exp(values[f"field {axis}"]) for axis in AXES] == pytest.approx([50, 60, 61.5])


def test_percentiles_mean_and_deviation_are_numpys():
    array = scan()
    found = look(array)
    assert found.mean[0] == pytest.approx(array.mean(), rel=1e-5)
    assert found.deviation[0] == pytest.approx(array.std(), rel=1e-5)
    median = (np.median(array) - array.mean()) / array.std()
    assert found.values["histogram 50 0"] == pytest.approx(median, rel=1e-4)


def test_another_unit_changes_the_unit_alone():
    one, other = look(scan()).values, look(10 * scan()).values
    assert other["units 0"] - one["units 0"] == pytest.approx(np.log(10))
    assert all(other[name] == pytest.approx(one[name], abs=1e-3) for name in one if name != "units 0")


def test_noise_and_blur_have_their_closed_forms():
    """White noise: neighbours differ as much as voxels two apart; second differences have sqrt(6) of its deviation.

    On a ramp, voxels two apart differ by twice as much as neighbours.
    """
    values = look(np.random.default_rng(0).normal(0, 1, (8, 90, 90))).values
    assert values["sharpness 0"] == pytest.approx(0, abs=0.01)
    assert np.exp(values["noise 0"]) == pytest.approx(np.sqrt(6) * np.sqrt(2 / np.pi), rel=0.01)
    ramp = np.add.outer(np.arange(40.0), np.arange(40.0))[None].repeat(3, axis=0)
    values = look(ramp).values
    assert values["sharpness 0"] == pytest.approx(np.log(2), abs=1e-4) and values["noise 0"] < -10


@pytest.mark.parametrize("shape", [(24, 48, 72), (1, 5, 30), (7, 100, 24)])
def test_a_picture_keeps_the_mean_and_the_course_of_a_scan(shape):
    ramp = np.arange(shape[2], dtype=float)[None, None].repeat(shape[0], 0).repeat(shape[1], 1)
    picture = look(ramp).picture[0]
    assert picture.shape == (CELLS,) * 3
    assert picture.mean() == pytest.approx(0, abs=1e-3)
    assert np.allclose(picture, picture[:1, :1]) and (np.diff(picture[0, 0]) >= 0).all()


def test_a_scan_of_one_value_has_finite_measures():
    values = look(np.full(SHAPE, 7.0)).values
    assert np.isfinite(list(values.values())).all()


def test_halved_pictures_are_means_of_blocks():
    picture = np.random.default_rng(0).normal(size=(2, CELLS, CELLS, CELLS))
    found = halved(picture)
    assert found.shape == (2, 12, 12, 12) and found[1, 3, 0, 11] == pytest.approx(picture[1, 6:8, 0:2, 22:24].mean())


def test_agreement_is_the_correlation():
    one, other = scan(0), scan(1)
    assert agreement(one, other) == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    assert agreement(one, np.zeros_like(one)) == 0
    assert np.isfinite(stretched(1.0)) and stretched(0.5) == pytest.approx(np.arctanh(0.5))
