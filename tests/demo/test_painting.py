import numpy as np
import pytest

from longflow.demo.painting import cover, ellipse_depth, mean_with_noise, mix, texture, with_noise


def test_a_voxel_at_a_surface_is_half_covered():
    assert cover(np.array([-1.0, -0.5, 0.0, 0.25, 1.0]), 1.0).tolist() == [0, 0, 0.5, 0.75, 1]
    assert mix(np.full(2, 10.0), np.array([0.25, 1.0]), 30.0).tolist() == [15, 30]


def test_depth_is_zero_at_the_edge_and_exact_along_a_circle():
    assert ellipse_depth(0.0, 8.0, 5.0, 8.0) == 0 and ellipse_depth(5.0, 0.0, 5.0, 8.0) == 0
    assert ellipse_depth(3.0, 4.0, 7.0, 7.0) == pytest.approx(2)


def test_a_texture_has_mean_0_and_variance_1_and_belongs_to_its_seed():
    points = np.meshgrid(*[np.linspace(0, 300, 40)] * 3, indexing="ij", sparse=True)
    found = texture(3, 1, points, (8, 20))
    assert found.mean() == pytest.approx(0, abs=0.05) and found.std() == pytest.approx(1, abs=0.1)
    assert np.array_equal(found, texture(3, 1, points, (8, 20)))
    assert not np.allclose(found, texture(4, 1, points, (8, 20)))


@pytest.mark.parametrize("signal", [0.0, 0.5, 3.0])
def test_the_mean_of_magnitude_noise(signal):
    """Rayleigh's mean sigma sqrt(pi / 2) without a signal; the mean of many draws otherwise."""
    noisy = with_noise(np.full((50, 50, 50), signal, np.float32), 0.6, np.random.default_rng(0))
    expected = float(mean_with_noise(np.array(signal), 0.6))
    assert noisy.mean() == pytest.approx(expected, rel=0.01)
    if signal == 0:
        assert expected == pytest.approx(0.6 * np.sqrt(np.pi / 2))
