import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from longflow.errors import DataError
from longflow.evaluation.metric import compute_metrics, metrics_of
from longflow.tasks.forecast import metrics
from longflow.tasks.forecast.metrics import (
    CHANGED_THRESHOLD,
    DEFINITIONS,
    ForecastVolumes,
    noise_of_change,
    nrmse,
    null_of_region,
    ssim,
)
from longflow.tasks.forecast.task import TASK

SPACING = (1.0, 1.0, 1.0)


def volumes(shape=(1, 9, 12, 11), seed=0, offset=0.0):
    generator = np.random.default_rng(seed)
    target = (100 * generator.random(shape) + offset).astype(np.float32)
    forecast = (target + 8 * generator.standard_normal(shape)).astype(np.float32)
    last = (target + 12 * generator.standard_normal(shape)).astype(np.float32)
    return forecast, target, last


def target_metrics(forecast, target, last_context):
    return compute_metrics(metrics_of(TASK), ForecastVolumes(forecast, target, SPACING, last_context))


def test_against_numpy_and_scikit_image():
    forecast, target, last = volumes()
    found = target_metrics(forecast, target, last)
    f, t, l = (volume[0].astype(np.float64) for volume in (forecast, target, last))
    data_range = t.max() - t.min()
    changed = np.abs(t - l) > 0.1 * data_range
    assert found["rmse"] == pytest.approx(np.sqrt(mean_squared_error(t, f)))
    assert found["mae"] == pytest.approx(np.abs(t - f).mean())
    assert found["nrmse"] == pytest.approx(np.sqrt(mean_squared_error(t, f)) / data_range)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(t, f, data_range=data_range))
    assert found["ssim"] == pytest.approx(structural_similarity(t - t.min(), f - t.min(), data_range=data_range))
    assert 0 < changed.mean() < 1
    assert found["changed_share"] == pytest.approx(changed.mean())
    assert found["changed_rmse"] == pytest.approx(np.sqrt(np.mean((t - f)[changed] ** 2)))
    assert found["changed_mae"] == pytest.approx(np.abs(t - f)[changed].mean())
    assert found["changed_nrmse"] == pytest.approx(found["changed_rmse"] / data_range)
    lengths = [np.sqrt(sum(part**2 for part in np.gradient(volume))[changed].mean()) for volume in (f, t)]
    assert found["edges"] == pytest.approx(lengths[0] / lengths[1], rel=1e-5)
    assert found["skill"] == pytest.approx(1 - found["rmse"] / np.sqrt(mean_squared_error(t, l)))
    assert list(found) == list(DEFINITIONS) == list(TASK.metrics)


def test_edges_are_those_of_the_target_where_it_is_moved_and_fewer_where_it_is_blurred():
    x = np.broadcast_to(np.linspace(-8, 8, 33), (1, 1, 5, 33))
    target, last = np.tanh(x), np.tanh(x + 3)
    assert target_metrics(target, target, last)["edges"] == 1
    assert target_metrics((target + last) / 2, target, last)["edges"] < 0.9


def test_matched_errors_do_not_know_the_units():
    """The forecast in other units: the raw error is large, the matched one that of its noise in the reference's."""
    generator = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in (8, 32, 32)), indexing="ij")
    body = z**2 + y**2 + x**2 < 0.8
    target = np.where(body, 500 + 200 * np.sin(6 * x) * np.cos(5 * y), 10)[None].astype(np.float32)
    noise = generator.normal(0, 15, target.shape)
    found = target_metrics((1.5 * (target + noise) + 70).astype(np.float32), target, target + 1)
    assert found["nrmse"] > 0.2
    expected = np.sqrt(np.mean(noise**2)) / (target.max() - target.min())
    assert found["matched_nrmse"] == pytest.approx(expected, rel=0.03)


def test_matched_errors_of_scans_with_nothing_in_common_are_not_defined():
    target = np.random.default_rng(0).random((1, 6, 8, 8)).astype(np.float32)
    found = target_metrics(np.full_like(target, 3), target, target + 1)
    assert found["matched_nrmse"] is None and found["nrmse"] is not None


def test_ssim_equals_plain_scikit_image_where_the_minimum_is_zero():
    forecast, target, _ = volumes()
    target -= target.min()
    plain = structural_similarity(target[0], forecast[0], data_range=float(target.max()))
    assert ssim(forecast[0], target[0], float(target.max())) == pytest.approx(plain, abs=1e-5)


def test_ssim_does_not_depend_on_where_the_units_have_their_zero():
    forecast, target, _ = volumes()
    shifted = ssim(forecast[0] - 50, target[0] - 50, 100.0)
    assert shifted == pytest.approx(ssim(forecast[0], target[0], 100.0), abs=1e-5)


@pytest.mark.parametrize("shape", [(9, 8, 10), (6, 9, 9), (3, 20, 8)])
def test_ssim_in_slabs_equals_ssim_at_once(shape, monkeypatch):
    forecast, target, _ = volumes((1, *shape))
    at_once = ssim(forecast[0], target[0], 100.0)
    monkeypatch.setattr(metrics, "_SSIM_VOXELS", 1)
    assert ssim(forecast[0], target[0], 100.0) == pytest.approx(at_once, rel=1e-12)


@pytest.mark.parametrize(("depth", "window"), [(6, 5), (4, 3), (3, 3)])
def test_ssim_window_shrinks_to_the_largest_odd_size_that_fits(depth, window):
    forecast, target, _ = (volume.astype(np.float64) for volume in volumes((1, depth, 12, 12)))
    minimum = target.min()
    expected = structural_similarity(target[0] - minimum, forecast[0] - minimum, data_range=100.0, win_size=window)
    assert ssim(forecast[0], target[0], 100.0) == pytest.approx(expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ssim_of_one_or_two_slices_is_the_mean_over_slices(axis):
    forecast, target, _ = (np.moveaxis(volume[0].astype(np.float64), 0, axis) for volume in volumes((1, 2, 12, 12)))
    expected = np.mean(
        [
            structural_similarity(
                target.take(i, axis) - target.min(), forecast.take(i, axis) - target.min(), data_range=100.0
            )
            for i in range(2)
        ]
    )
    assert ssim(forecast, target, 100.0) == pytest.approx(expected)


def test_ssim_of_a_line_is_not_defined():
    assert ssim(np.ones((1, 2, 12)), np.ones((1, 2, 12)), 1.0) is None


def test_channels_count_alike_each_with_its_own_range():
    one, two = volumes(seed=1), volumes(seed=2)
    both = [np.concatenate([a, 50 * b]) for a, b in zip(one, two, strict=True)]
    found = target_metrics(*both)
    for name in ("nrmse", "psnr", "ssim", "skill", "changed_nrmse"):
        expected = (target_metrics(*one)[name] + target_metrics(*two)[name]) / 2
        assert found[name] == pytest.approx(expected, rel=1e-5), name
    assert found["mae"] == pytest.approx((target_metrics(*one)["mae"] + 50 * target_metrics(*two)["mae"]) / 2)


def test_identical_images_have_no_psnr():
    _, target, last = volumes()
    found = target_metrics(target, target, last)
    assert found["psnr"] is None
    assert (found["nrmse"], found["ssim"], found["skill"]) == (0, pytest.approx(1), 1)


def test_psnr_of_two_channels_is_not_that_of_the_one_that_differs():
    forecast, target, last = volumes((2, 9, 9, 9))
    forecast[0] = target[0]
    assert target_metrics(forecast, target, last)["psnr"] is None


def test_constant_target_leaves_only_absolute_errors():
    forecast, target, last = volumes()
    found = target_metrics(forecast, np.full_like(target, 3), last)
    assert {name for name, value in found.items() if value is not None} == {"rmse", "mae"}
    assert nrmse(forecast, np.full_like(target, 3)) is None


def test_unchanged_target_has_no_changed_region_and_no_skill():
    forecast, target, _ = volumes()
    found = target_metrics(forecast, target, target)
    assert found["changed_share"] == 0
    assert [found[name] for name in ("changed_rmse", "changed_nrmse", "changed_null", "edges", "skill")] == [None] * 5


def test_lci_has_skill_zero():
    _, target, last = volumes()
    assert target_metrics(last, target, last)["skill"] == 0


def test_large_offsets_do_not_cost_precision():
    forecast, target, last = volumes()
    shifted = [volume.astype(np.float64) + 30000 for volume in (forecast, target, last)]
    assert target_metrics(*shifted)["ssim"] == pytest.approx(target_metrics(forecast, target, last)["ssim"], rel=1e-4)


def test_nrmse_alone_equals_that_among_all():
    forecast, target, last = volumes((2, 9, 9, 9))
    assert nrmse(forecast, target) == pytest.approx(target_metrics(forecast, target, last)["nrmse"], rel=1e-6)


def test_shapes_that_differ():
    forecast, target, last = volumes()
    with pytest.raises(DataError, match=r"shapes differ: forecast \(1, 8, 12, 11\), reference \(1, 9, 12, 11\)"):
        target_metrics(forecast[:, :8], target, last)


def test_a_voxel_that_is_not_a_number():
    forecast, target, last = volumes()
    forecast[0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="forecast has 1 NaN or infinite"):
        target_metrics(forecast, target, last)


def noisy_pair(size, level, seed):
    """A clean scan of range 1, and two noisy ones: a ball that grew from a radius of 12 to ``size``."""
    z, y, x = np.mgrid[-1:1:32j, -1:1:40j, -1:1:48j]
    radius = 24 * np.sqrt(z**2 + y**2 + x**2)
    before, after = ((radius < limit).astype(float) for limit in (12, size))
    generator = np.random.default_rng(seed)
    return before, *(scan + generator.normal(0, level, scan.shape) for scan in (before, after))


@pytest.mark.parametrize("level", [0.03, 0.05, 0.08])
@pytest.mark.parametrize("size", [12, 12.5, 14, 18])
def test_the_null_of_the_changed_region_is_the_scan_without_noise(size, level):
    """Whether nothing changed, little or much: the expected error is that of the clean scan before."""
    clean, last, target = noisy_pair(size, level, seed=0)
    threshold = CHANGED_THRESHOLD * np.ptp(target)
    region = np.abs(target - last) > threshold
    found = null_of_region(target - last, threshold)
    # little noise brings few voxels into the region, and its estimate then decides how many are expected
    accuracy = 0.15 if (size, level) == (12, 0.03) else 0.03
    assert found == pytest.approx(np.sqrt(np.mean((clean - target)[region] ** 2)), rel=accuracy)


def test_without_change_the_null_is_about_half_of_lci():
    _, last, target = noisy_pair(12, 0.05, seed=1)
    found = compute_metrics(metrics_of(TASK), ForecastVolumes(last[None], target[None], (1, 1, 1), last[None]))
    assert 0.5 < found["changed_null"] / found["changed_nrmse"] < 0.56


def test_without_noise_the_null_is_lci():
    _, last, target = noisy_pair(14, 0, seed=0)
    assert null_of_region(target - last, 0.1) == 1
    assert noise_of_change(target - last) == 0


@pytest.mark.parametrize("level", [0.01, 0.1])
def test_the_noise_of_a_change_is_that_of_both_scans(level):
    _, last, target = noisy_pair(14, level, seed=2)
    outside = np.random.default_rng(3).random(last.shape) < 0.3  # masked in both
    assert noise_of_change(np.where(outside, 0, target - last)) == pytest.approx(np.sqrt(2) * level, rel=0.03)
