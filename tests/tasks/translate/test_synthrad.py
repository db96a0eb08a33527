import numpy as np
import pytest
from scipy.signal import fftconvolve
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from longflow.tasks.translate.synthrad import masked_mae, masked_ms_ssim, masked_psnr

SHAPE = (12, 20, 16)


def images(seed=0):
    generator = np.random.default_rng(seed)
    reference = generator.uniform(-1500, 3500, SHAPE)
    mask = np.zeros(SHAPE, bool)
    mask[:, 4:16, 3:13] = True
    return reference + generator.normal(0, 50, SHAPE), reference, mask


def test_mae_and_psnr_are_of_the_limited_voxels_in_the_mask():
    translation, reference, mask = images()
    p, t = (np.clip(image, -1024, 3000)[mask] for image in (translation, reference))
    assert masked_mae(translation, reference, mask) == pytest.approx(np.abs(p - t).mean())
    assert masked_psnr(translation, reference, mask) == pytest.approx(peak_signal_noise_ratio(t, p, data_range=4024))
    changed = np.where(mask, translation, 0)
    assert masked_mae(changed, reference, mask) == masked_mae(translation, reference, mask)


def test_without_a_mask_or_an_error_numbers_are_not_defined():
    translation, reference, mask = images()
    for number in (masked_mae, masked_psnr, masked_ms_ssim):
        assert number(translation, reference, np.zeros_like(mask)) is None
    assert masked_psnr(reference, reference, mask) is None
    assert masked_mae(reference, reference, mask) == 0


def test_similarity_of_an_image_with_itself_is_1_and_noise_lowers_it():
    translation, reference, mask = images()
    assert masked_ms_ssim(reference, reference, mask) == pytest.approx(1)
    noisy = masked_ms_ssim(translation, reference, mask)
    worse = masked_ms_ssim(reference + 10 * (translation - reference), reference, mask)
    assert 0 < worse < noisy < 1


def test_constant_images_differ_by_luminance_alone_in_closed_form(monkeypatch):
    monkeypatch.setattr("longflow.tasks.translate.synthrad.WEIGHTS", (0.3,))
    mask = np.ones((97, 97, 97), bool)
    reference, translation = np.full(mask.shape, -24.0), np.full(mask.shape, 976.0)
    x, y, c1 = 1000.0, 2000.0, (0.01 * 4024) ** 2
    expected = ((2 * x * y + c1) / (x**2 + y**2 + c1)) ** 0.3
    assert masked_ms_ssim(translation, reference, mask) == pytest.approx(expected)


def test_the_next_scale_is_the_similarity_of_means_of_two_voxels_along_each_axis(monkeypatch):
    monkeypatch.setattr("longflow.tasks.translate.synthrad.WEIGHTS", (0.0, 1.0))
    generator = np.random.default_rng(0)
    reference = generator.uniform(0, 1000, (98, 98, 98))
    translation = reference + generator.normal(0, 50, reference.shape)
    halved = [
        fftconvolve(image + 1024, np.full((2, 2, 2), 1 / 8), mode="same")[::2, ::2, ::2]
        for image in (reference, translation)
    ]
    found = masked_ms_ssim(translation, reference, np.ones(reference.shape, bool))
    assert found == pytest.approx(structural_similarity(*halved, data_range=4024), rel=1e-6)


def test_the_finest_scale_is_the_usual_similarity(monkeypatch):
    """Of weight 1 and alone; scikit-image's windows, constants and border. No term is below 0."""
    generator = np.random.default_rng(0)
    reference = generator.uniform(0, 1000, (100, 100, 100))
    translation = reference + generator.normal(0, 50, reference.shape)
    monkeypatch.setattr("longflow.tasks.translate.synthrad.WEIGHTS", (1.0,))
    expected = structural_similarity(reference + 1024, translation + 1024, data_range=4024)
    found = masked_ms_ssim(translation, reference, np.ones(reference.shape, bool))
    assert found == pytest.approx(expected, rel=1e-6)
