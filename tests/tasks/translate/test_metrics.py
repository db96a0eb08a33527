import math

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from longflow.errors import DataError
from longflow.evaluation.metric import compute_metrics, metrics_of
from longflow.tasks.forecast.metrics import ssim
from longflow.tasks.translate.metrics import (
    TRANSLATION_METRICS,
    TranslationVolumes,
    body_mae,
    label_mae,
    through_plane,
)
from longflow.tasks.translate.task import TASK

SHAPE = (5, 12, 11)
SPACING = (5.0, 0.8, 0.8)

#: not defined where both phases are CT
SYNTHRAD = {"mae_synthrad", "psnr_synthrad", "ms_ssim_synthrad"}


def volumes(shape=(1, *SHAPE), seed=0, low=-900.0, high=900.0):
    generator = np.random.default_rng(seed)
    reference = generator.uniform(low, high, shape).astype(np.float32)
    translation = (reference + 40 * generator.standard_normal(shape)).astype(np.float32)
    body = np.zeros(shape[1:], bool)
    body[:, 2:9, 3:9] = True
    return translation, reference, body


def translation_metrics(translation, reference, body, spacing, ct):
    return compute_metrics(metrics_of(TASK), TranslationVolumes(translation, reference, spacing, body, ct))


def test_the_task_lists_its_metrics_in_the_order_of_the_columns():
    assert metrics_of(TASK) == TRANSLATION_METRICS


def ssim_by_the_equation(x, y, largest):
    """MFM eq. 7, term by term, on one slice; the factor of 2 put in, means and variances of 7 x 7 windows."""
    c1, c2 = (0.01 * largest) ** 2, 0.01 * largest
    mean = lambda image: uniform_filter(image, 7)  # noqa: E731
    unbiased = 49 / 48
    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y = (unbiased * (mean(one * one) - mean(one) ** 2) for one in (x, y))
    covariance = unbiased * (mean(x * y) - mu_x * mu_y)
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_x + var_y + c2))[3:-3, 3:-3].mean()


def test_ct_against_numpy_and_scikit_image():
    translation, reference, body = volumes()
    found = translation_metrics(translation, reference, body, SPACING, [True])
    p, t = np.clip(translation[0].astype(float), -1000, 1000), reference[0].astype(float)
    error = p - t
    assert found["mae"] == pytest.approx(np.abs(error).mean())
    assert found["body_mae"] == pytest.approx(np.abs(error)[body].mean())
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(t, p, data_range=np.ptp(t)))
    of_slices = [20 * math.log10(2000 / math.sqrt(mean_squared_error(*pair))) for pair in zip(t, p, strict=True)]
    assert found["psnr_mfm"] == pytest.approx(np.mean(of_slices))
    assert found["ssim"] == pytest.approx(
        structural_similarity(t - t.min(), p - t.min(), data_range=np.ptp(t), win_size=5)
    )
    x, y = (t + 1000) / 2000, (p + 1000) / 2000
    assert found["ssim_mfm"] == pytest.approx(
        np.mean([ssim_by_the_equation(*pair, x.max()) for pair in zip(x, y, strict=True)])
    )
    in_both = body[1:] & body[:-1]
    gradient = np.abs(np.diff(p, axis=0) - np.diff(t, axis=0))[in_both].mean() / 5
    assert found["through_plane_error"] == pytest.approx(gradient)
    assert list(found) == list(TASK.metrics)


def test_hounsfield_units_are_clipped_and_others_are_not():
    translation, reference, body = volumes(low=-1500, high=1800)
    clipped = [np.clip(volume, -1000, 1000) for volume in (translation, reference)]
    assert translation_metrics(translation, reference, body, SPACING, [True]) == translation_metrics(
        *clipped, body, SPACING, [True]
    )
    of_mr = translation_metrics(translation, reference, body, SPACING, [False])
    assert of_mr["mae"] == pytest.approx(np.abs(translation - reference, dtype=float).mean(), rel=1e-5)
    assert of_mr["psnr"] == pytest.approx(
        peak_signal_noise_ratio(reference[0].astype(float), translation[0].astype(float), data_range=np.ptp(reference))
    )


def test_other_units_have_no_psnr_of_mfm_and_its_ssim_from_their_own_range():
    translation, reference, body = volumes(low=100, high=700)
    found = translation_metrics(translation, reference, body, SPACING, [False])
    assert found["psnr_mfm"] is None
    low, high = float(reference.min()), float(reference.max())
    x, y = ((np.clip(volume[0].astype(float), low, high) - low) / (high - low) for volume in (reference, translation))
    assert found["ssim_mfm"] == pytest.approx(
        np.mean([ssim_by_the_equation(*pair, 1.0) for pair in zip(x, y, strict=True)])
    )


@pytest.mark.parametrize("ct", [True, False])
def test_the_truth_itself(ct):
    _, reference, body = volumes()
    found = translation_metrics(reference, reference, body, SPACING, [ct])
    assert (found["body_mae"], found["mae"], found["through_plane_error"]) == (0, 0, 0)
    assert (found["ssim"], found["ssim_mfm"]) == (pytest.approx(1), pytest.approx(1))
    assert (found["psnr"], found["psnr_mfm"]) == (None, None)


def test_a_shift_of_all_values_in_closed_form():
    """Every voxel is 50 HU too high: the same error everywhere, so none from slice to slice."""
    _, reference, body = volumes()
    found = translation_metrics(reference + 50, reference, body, SPACING, [True])
    assert found["body_mae"] == pytest.approx(50) and found["mae"] == pytest.approx(50)
    assert found["psnr_mfm"] == pytest.approx(20 * math.log10(2000 / 50))
    assert found["through_plane_error"] == pytest.approx(0, abs=1e-4)


def test_mfms_psnr_is_the_mean_over_slices():
    """Errors of 20 and 200 HU: 40 and 20 dB, 30 in the mean; one MSE of the whole would give 22.97. Along any axis."""
    _, reference, body = volumes((1, 2, 12, 11), low=-500, high=500)
    off = np.array([20, 200])[:, None, None]
    assert translation_metrics(reference + off, reference, body, SPACING, [True])["psnr_mfm"] == pytest.approx(30)
    turned = [np.moveaxis(volume, 1, 3) for volume in (reference + off, reference)]
    found = translation_metrics(*turned, np.moveaxis(body, 0, 2), (0.8, 0.8, 5.0), [True])
    assert found["psnr_mfm"] == pytest.approx(30)


def test_a_slice_of_air_alone_has_no_psnr():
    """Both are clipped to -1000 HU: infinite, which would hide the others."""
    _, reference, body = volumes((1, 2, 12, 11), low=-500, high=500)
    translation = reference + 20
    reference[:, 0], translation[:, 0] = -1024, -3000
    assert translation_metrics(translation, reference, body, SPACING, [True])["psnr_mfm"] == pytest.approx(40)


def test_ct_made_from_another_modality_has_the_numbers_of_synthrad():
    """50 HU too high everywhere, also where a translation is limited to 1000 HU for MFM's numbers."""
    _, reference, body = volumes(low=1200, high=1500)
    found = compute_metrics(
        TRANSLATION_METRICS, TranslationVolumes(reference + 50, reference, SPACING, body, [True], other_modality=True)
    )
    assert (found["body_mae"], found["mae_synthrad"]) == (0, pytest.approx(50))
    assert found["psnr_synthrad"] == pytest.approx(20 * math.log10(4024 / 50))
    assert 0.9 < found["ms_ssim_synthrad"] < 1
    of_mr = TranslationVolumes(reference + 50, reference, SPACING, body, [False], other_modality=True)
    assert {name for name, number in compute_metrics(TRANSLATION_METRICS, of_mr).items() if number is None} >= SYNTHRAD


def test_slices_that_do_not_fit_each_other():
    """Each slice is off by 30 HU, up and down in turn: 60 HU from slice to slice, 5 mm apart."""
    _, reference, body = volumes()
    signs = np.where(np.arange(5) % 2, 30, -30)[:, None, None]
    found = translation_metrics(reference + signs, reference, body, SPACING, [True])
    assert found["body_mae"] == pytest.approx(30)
    assert found["through_plane_error"] == pytest.approx(60 / 5)


def test_slices_lie_across_the_axis_of_the_largest_spacing():
    translation, reference, body = volumes()
    turned = [np.moveaxis(volume, 1, 3) for volume in (translation, reference)]
    found = translation_metrics(*turned, np.moveaxis(body, 0, 2), (0.8, 0.8, 5.0), [True])
    expected = translation_metrics(translation, reference, body, SPACING, [True])
    for name in ("ssim_mfm", "through_plane_error"):
        assert found[name] == pytest.approx(expected[name]), name
    assert through_plane((1.0, 1.0, 1.0)) == through_plane((1.0, 1.0, 1.005)) == 0
    assert through_plane((0.5, 0.5, 3.0)) == 2


def test_mfm_is_close_to_one_where_the_usual_ssim_is_not():
    """Soft tissue, 50 HU of noise: C2 = 0.01 is far above its variance on the scale of [0, 1]."""
    generator = np.random.default_rng(0)
    reference = generator.normal(50, 40, (1, 4, 20, 20))
    reference[0, 0, 0, 0], reference[0, 0, 0, 1] = -1000, 1000
    found = translation_metrics(
        reference + generator.normal(0, 50, reference.shape),
        reference,
        np.ones(reference.shape[1:], bool),
        (3, 1, 1),
        [True],
    )
    assert found["ssim_mfm"] > 0.9 > 0.8 > found["ssim"]


def test_the_bit_outside_the_body_counts_for_the_whole_image_alone():
    _, reference, body = volumes()
    translation = reference + np.where(body, 10, 100)
    found = translation_metrics(translation, reference, body, SPACING, [False])
    assert found["body_mae"] == pytest.approx(10, rel=1e-4)
    assert found["mae"] == pytest.approx(10 * body.mean() + 100 * (1 - body.mean()), rel=1e-4)
    assert body_mae(translation, reference, body, [False]) == found["body_mae"]


def test_without_a_body():
    translation, reference, body = volumes()
    found = translation_metrics(translation, reference, np.zeros_like(body), SPACING, [True])
    assert {name for name, value in found.items() if value is None} == {"body_mae", "through_plane_error"} | SYNTHRAD


def test_a_single_slice_has_nothing_across_it():
    translation, reference, body = volumes((1, 1, 12, 11))
    found = translation_metrics(translation, reference, body, SPACING, [True])
    assert {name for name, value in found.items() if value is None} == {"through_plane_error"} | SYNTHRAD
    assert found["ssim"] == pytest.approx(
        ssim(translation[0].clip(-1000, 1000), reference[0], np.ptp(reference)), rel=1e-5
    )


def test_slices_that_are_narrower_than_a_window():
    translation, reference, body = volumes((1, 5, 2, 11))
    found = translation_metrics(translation, reference, body, SPACING, [True])
    assert found["ssim_mfm"] is None


@pytest.mark.parametrize(
    ("ct", "value", "undefined"),
    [
        (True, 40.0, {"psnr", "ssim"}),
        (True, -1000.0, {"psnr", "ssim", "ssim_mfm"}),
        (False, 40.0, {"psnr", "psnr_mfm", "ssim", "ssim_mfm"}),
    ],
)
def test_a_truth_of_a_single_value(ct, value, undefined):
    translation, reference, body = volumes()
    found = translation_metrics(translation, np.full_like(reference, value), body, SPACING, [ct])
    assert {name for name, number in found.items() if number is None} == undefined | SYNTHRAD


def test_channels_count_alike_and_mfm_is_of_ct_alone():
    ct, mr = volumes(seed=1), volumes(seed=2, low=0, high=300)
    both = [np.concatenate([a, b]) for a, b in zip(ct[:2], mr[:2], strict=True)]
    found = translation_metrics(*both, ct[2], SPACING, [True, False])
    one, two = translation_metrics(*ct, SPACING, [True]), translation_metrics(*mr, SPACING, [False])
    for name in set(TASK.metrics) - {"psnr_mfm"} - SYNTHRAD:
        assert found[name] == pytest.approx((one[name] + two[name]) / 2), name
    assert found["psnr_mfm"] == one["psnr_mfm"]


def test_psnr_of_two_channels_is_not_that_of_the_one_that_differs():
    translation, reference, body = volumes((2, *SHAPE))
    translation[0] = reference[0]
    found = translation_metrics(translation, reference, body, SPACING, [True, True])
    assert (found["psnr"], found["psnr_mfm"]) == (None, None)


def test_mae_of_structures():
    _, reference, _ = volumes()
    labels = np.zeros(SHAPE, int)
    labels[1], labels[2] = 1, 2
    translation = reference + np.where(labels == 1, 20, 60)
    found = label_mae(translation, reference, labels, {"core": (1,), "whole": (1, 2), "cyst": (3,)}, [True])
    assert found["core"] == pytest.approx(20) and found["whole"] == pytest.approx(40)
    assert found["cyst"] is None


def test_structures_of_ct_are_clipped_too():
    reference = np.full((1, *SHAPE), 1500.0)
    assert label_mae(reference - 1000, reference, np.ones(SHAPE, int), {"bone": (1,)}, [True]) == {"bone": 500}


def test_shapes_that_differ():
    translation, reference, body = volumes()
    with pytest.raises(DataError, match=r"shapes differ: translation \(1, 4, 12, 11\), reference \(1, 5, 12, 11\)"):
        translation_metrics(translation[:, :4], reference, body, SPACING, [True])
    with pytest.raises(DataError, match=r"mask of the body has \(4, 12, 11\) voxels"):
        translation_metrics(translation, reference, body[:4], SPACING, [True])
    with pytest.raises(DataError, match=r"label map has \(4, 12, 11\) voxels"):
        label_mae(translation, reference, np.zeros((4, 12, 11)), {"core": (1,)}, [True])
    with pytest.raises(DataError, match="has 1 channels"):
        translation_metrics(translation, reference, body, SPACING, [True, False])


def test_a_voxel_that_is_not_a_number():
    translation, reference, body = volumes()
    translation[0, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="translation has 1 NaN or infinite"):
        translation_metrics(translation, reference, body, SPACING, [True])
