"""The map is known: target = gain · source + offset where nothing changed."""

import re

import numpy as np
import pytest

from longflow.data.intensity_map import MOST_BLOCKS, fit_intensity_map, map_blocks

SHAPE = (12, 48, 48)


@pytest.fixture(scope="module")
def anatomy():
    """Tissues of five intensities in a body with air around it, and a smooth texture; 100 to 1000."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    radius = np.sqrt(0.5 * z**2 + 1.1 * y**2 + 1.2 * x**2)
    image = np.zeros(SHAPE)
    for value, part in (
        (700, radius < 0.9),
        (350, radius < 0.8),
        (520, radius < 0.5),
        (120, (np.abs(x - 0.3) < 0.15) & (np.abs(y) < 0.2)),
        (950, (np.abs(x + 0.4) < 0.12) & (np.abs(y - 0.1) < 0.3)),
    ):
        image[part] = value
    image += 30 * (image > 0) * np.sin(9 * x) * np.sin(8 * y) * np.sin(7 * z)
    return image, radius < 0.9


def with_change(image, body, share):
    """Change a share of the body, all on one side, in one direction: to bright, with little contrast."""
    changed = body & (np.arange(SHAPE[2]) > np.quantile(np.nonzero(body)[2], 1 - share))
    return np.where(changed, 0.3 * image + 800, image)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.6, 200.0), (1.7, -150.0), (3e-4, 0.02)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.4])
def test_a_known_map_is_recovered(anatomy, gain, offset, share):
    """Both scans have noise of 5 % of the range of tissues, and up to 40 % of the body has changed."""
    image, body = anatomy
    generator = np.random.default_rng(3)
    source, later = (one + generator.normal(0, 45, SHAPE) for one in (image, with_change(image, body, share)))
    found = fit_intensity_map(source, gain * later + offset)
    assert found.gain == pytest.approx(gain, rel=0.015)
    deviation = image[body].std()
    error = (found.gain - gain) * image[body].mean() + found.offset - offset
    assert abs(error) < 0.02 * gain * deviation
    assert found.unchanged == pytest.approx(1 - share, abs=0.1)
    assert not found.identity_because


def test_noise_in_the_source_does_not_flatten_the_map(anatomy):
    """Least squares would be flatter by the share of noise in the variance."""
    image, body = anatomy
    gains, flat = [], []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        source, target = (image + generator.normal(0, 120, SHAPE) for _ in range(2))
        gains.append(fit_intensity_map(source, target).gain)
        blocks = [map_blocks(one)[map_blocks(body) > 0.99] for one in (source, target)]
        flat.append(np.polyfit(*blocks, 1)[0])
    assert np.mean(flat) < 0.93
    assert np.mean(gains) == pytest.approx(1, abs=0.02)


def test_the_map_back_is_the_inverse(anatomy):
    image, body = anatomy
    generator = np.random.default_rng(0)
    source, target = (one + generator.normal(0, 40, SHAPE) for one in (image, with_change(image, body, 0.3)))
    there, back = fit_intensity_map(source, 1.4 * target + 90), fit_intensity_map(1.4 * target + 90, source)
    assert there.gain * back.gain == pytest.approx(1, abs=1e-5)
    assert back.gain * there.offset + back.offset == pytest.approx(0, abs=0.01)


def test_the_same_scan_has_the_identity_exactly(anatomy):
    found = fit_intensity_map(anatomy[0], anatomy[0].copy())
    assert (found.gain, found.offset, found.identity_because) == (1, 0, "")
    # and so where a lesion is new and nothing else changed
    found = fit_intensity_map(anatomy[0], with_change(*anatomy, 0.2))
    assert (found.gain, found.offset) == pytest.approx((1, 0), abs=1e-6)


def test_a_mask_around_the_brain_does_not_count(anatomy):
    """Both scans have 0 outside, which the offset does not reach."""
    image, body = anatomy
    found = fit_intensity_map(np.where(body, image, 0), np.where(body, 1.3 * image + 200, 0))
    assert (found.gain, found.offset) == (pytest.approx(1.3, rel=1e-3), pytest.approx(200, abs=1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: np.full_like(image, 7), "one value only"),
        (lambda image: -image, "in common"),
        (lambda image: np.random.default_rng(0).normal(size=image.shape), "agree nowhere|in common"),
        (lambda image: np.where(np.arange(image.size).reshape(image.shape) < 40, image, 0), "one value only"),
    ],
)
def test_without_a_map_it_is_the_identity_with_a_reason(anatomy, change, reason):
    noisy = anatomy[0] + np.random.default_rng(1).normal(0, 20, SHAPE)
    found = fit_intensity_map(noisy, change(noisy))
    assert (found.gain, found.offset, found.shift, found.unchanged) == (1, 0, 0, 0)
    assert re.search(reason, found.identity_because)


def test_anticorrelated_tissue_never_gives_a_negative_gain(anatomy):
    image, body = anatomy
    found = fit_intensity_map(image, np.where(body, 1200 - image, 0))
    assert found.gain > 0


def test_the_shift_is_that_of_the_mean_in_deviations(anatomy):
    found = fit_intensity_map(anatomy[0], 1.2 * anatomy[0] + 30)
    assert found.shift == pytest.approx((0.2 * found.mean + 30) / found.deviation, rel=1e-3)


def test_what_the_map_explains_is_the_squared_difference_that_goes_with_it(anatomy):
    """Of the same tissue in other units all; of shared units nothing, whatever has changed."""
    image, body = anatomy
    generator = np.random.default_rng(2)
    source, later = (one + generator.normal(0, 20, SHAPE) for one in (image, with_change(image, body, 0.2)))
    assert fit_intensity_map(image, 1.2 * image + 30).explained == pytest.approx(1, abs=1e-4)
    assert fit_intensity_map(source, later).explained == pytest.approx(0, abs=0.01)
    # of both: the squares are those of the blocks in the body
    found = fit_intensity_map(source, 1.3 * later)
    inside = [map_blocks(one)[map_blocks(body) == 1] for one in (source, 1.3 * later)]
    expected = 1 - np.mean((inside[1] - 1.3 * inside[0]) ** 2) / np.mean((inside[1] - inside[0]) ** 2)
    assert found.explained == pytest.approx(expected, abs=0.03)


def test_a_gain_between_the_two_regressions_explains_nothing(anatomy):
    """In much noise, a gain of 1.03 is as likely as one of 1."""
    generator = np.random.default_rng(2)
    source, target = (anatomy[0] + generator.normal(0, 60, SHAPE) for _ in range(2))
    found = fit_intensity_map(source, 1.03 * (target - target.mean()) + target.mean())
    assert abs(found.explained) < 0.01 and found.gain > 1.015


def test_scans_of_few_values_have_a_map():
    """As masks or phantoms have them: within a tissue there is no contrast at all."""
    image = np.zeros((8, 24, 24))
    image[1:7, 4:20, 4:20], image[2:6, 8:16, 8:16] = 100, 300
    found = fit_intensity_map(image, 2 * image)
    assert (found.gain, found.offset) == (pytest.approx(2), pytest.approx(0, abs=1e-6))


def test_blocks_are_means_of_whole_blocks():
    volume = np.arange(3 * 130 * 131, dtype=np.float64).reshape(3, 130, 131)
    blocks = map_blocks(volume)
    assert blocks.shape == (3, 65, 65) and blocks.size <= MOST_BLOCKS
    assert np.allclose(blocks, volume[:, :, :130].reshape(3, 65, 2, 65, 2).mean((2, 4)))
    small = np.arange(24.0).reshape(2, 3, 4)
    assert np.array_equal(map_blocks(small), small)
