import numpy as np
import pytest

from longflow.plans import ChannelPlan
from longflow.preprocessing.normal_form import (
    clipped,
    from_normal,
    normal_form_of_series,
    region_statistics,
    to_normal,
)
from longflow.task import get_task


@pytest.fixture
def scans():
    """Two scans of two channels; the second is twice as bright; zeros around the body."""
    first = np.zeros((2, 4, 6, 6), np.float32)
    first[:, :, 1:5, 1:5] = np.random.default_rng(0).uniform(50, 150, (2, 4, 4, 4))
    return [first, 2 * first]


def channels(*forms):
    numbers = {"absolute": {"offset": 40.0, "scale": 250.0}}
    return [ChannelPlan(name=str(i), normal_form=form, **numbers.get(form, {})) for i, form in enumerate(forms)]


def test_per_subject_keeps_the_change_between_scans(scans):
    offset, scale = normal_form_of_series(scans, channels("per_subject", "per_subject"))
    assert offset[0] == offset[1] and scale[0] == scale[1]
    body = scans[0][0] != 0
    assert to_normal(scans[0], offset[0], scale[0])[0][body].mean() == pytest.approx(0, abs=1e-5)
    assert to_normal(scans[1], offset[1], scale[1])[0][body].mean() > 1


def test_per_scan_takes_brightness_away(scans):
    offset, scale = normal_form_of_series(scans, channels("per_scan", "per_scan"))
    normal = [to_normal(scan, *numbers) for scan, *numbers in zip(scans, offset, scale, strict=True)]
    body = scans[0][0] != 0
    assert np.allclose(normal[0][0][body], normal[1][0][body], atol=1e-5)
    assert normal[0][0][body].std() == pytest.approx(1, abs=1e-5)


def test_absolute_uses_the_plans_numbers_and_channels_may_differ(scans):
    offset, scale = normal_form_of_series(scans, channels("absolute", "per_scan"))
    assert [numbers[0] for numbers in offset] == [40.0, 40.0]
    assert [numbers[0] for numbers in scale] == [250.0, 250.0]
    assert offset[0][1] != offset[1][1]


def test_min_max_maps_each_scan_to_0_and_1_and_back(scans):
    scans[1] = scans[1] - 30
    offset, scale = normal_form_of_series(scans, channels("min_max", "per_scan"))
    for scan, *numbers in zip(scans, offset, scale, strict=True):
        normal = to_normal(scan, *numbers)
        assert (normal[0].min(), normal[0].max()) == (0, 1)
        np.testing.assert_allclose(from_normal(normal, *numbers), scan, atol=1e-4)
    assert [numbers[0] for numbers in offset] == [scan[0].min() for scan in scans] == [0, -30]


def test_a_constant_scan_has_scale_1_in_min_max():
    offset, scale = normal_form_of_series([np.full((1, 2, 3, 3), 7.0, np.float32)], channels("min_max"))
    assert (offset, scale) == ([[7.0]], [[1.0]])


@pytest.fixture
def visits():
    """Three visits with units of their own: gain and offset are known; a lesion grows."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in (8, 32, 32)), indexing="ij")
    tissue = np.where(z**2 + y**2 + x**2 < 0.8, 400 + 200 * np.sin(6 * x) * np.cos(5 * y), 20)
    noise = np.random.default_rng(0).normal(0, 10, (3, *tissue.shape))
    images = [np.where(np.hypot(y, x - 0.3) < radius, 900, tissue) + noise[i] for i, radius in enumerate((0, 0.2, 0.4))]
    units = [(1.0, 0.0), (1.5, 100.0), (0.7, -30.0)]
    return units, [(gain * image + offset)[None] for (gain, offset), image in zip(units, images, strict=True)], images


def test_matched_scans_are_in_the_frame_of_the_first(visits):
    units, scans, _ = visits
    offsets, scales = normal_form_of_series(scans, channels("matched"))
    ((mean, deviation),) = region_statistics(scans[0])
    assert (offsets[0], scales[0]) == ([mean], [deviation])
    for (gain, offset), (found,), (scale,) in zip(units, offsets, scales, strict=True):
        assert scale / deviation == pytest.approx(gain, rel=0.01)
        assert found == pytest.approx(gain * mean + offset, abs=0.02 * gain * deviation)


def test_a_perfect_forecast_of_a_matched_scan_comes_back_in_the_units_of_the_last_context(visits):
    """Mean and deviation of each scan move with the lesion: they miss by more than the noise."""
    _, scans, images = visits
    expected = 1.5 * images[2] + 100
    errors = {}
    for form in ("matched", "per_scan"):
        offsets, scales = normal_form_of_series(scans, channels(form))
        perfect = to_normal(scans[2], offsets[2], scales[2])
        errors[form] = np.sqrt(np.mean((from_normal(perfect, offsets[1], scales[1])[0] - expected) ** 2)) / 1.5
    assert errors["matched"] < 5 and errors["per_scan"] > 20


@pytest.mark.parametrize("form", ["matched", "per_subject", "per_scan", "absolute"])
def test_later_scans_never_change_the_numbers_of_earlier_ones(visits, form):
    _, scans, _ = visits
    with_target, without = (normal_form_of_series(some, channels(form)) for some in (scans, scans[:2]))
    assert [numbers[:2] for numbers in with_target] == list(without)


def test_matched_scans_with_nothing_in_common_have_numbers_of_their_own(visits):
    """And the scan after them is in the frame of the first again."""
    scan = visits[1][1]
    noise = np.random.default_rng(5).normal(3, 2, scan.shape)
    scans = [scan, noise, np.zeros_like(scan), scan]
    offsets, scales = normal_form_of_series(scans, channels("matched"))
    own = [region_statistics(one)[0] for one in scans]
    assert np.allclose([[*offset, *scale] for offset, scale in zip(offsets, scales, strict=True)], own)


def test_zeros_around_the_body_do_not_count(scans):
    (mean, _), _ = region_statistics(scans[0])
    assert mean == pytest.approx(scans[0][0][:, 1:5, 1:5].mean(), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.0, -1e6, 1e-20])
def test_a_constant_scan_has_scale_one_and_comes_back(value):
    scan = np.full((1, 3, 4, 5), value, np.float32)
    ((offset, scale),) = region_statistics(scan)
    assert scale == 1.0
    assert np.array_equal(from_normal(to_normal(scan, [offset], [scale]), [offset], [scale]), scan)


def test_small_units_are_contrast():
    """Diffusion maps in m²/s lie near 1e-9."""
    scan = np.random.default_rng(0).uniform(1e-10, 3e-9, (1, 3, 4, 5)).astype(np.float32)
    ((_, scale),) = region_statistics(scan)
    assert scale == pytest.approx(scan.std(), rel=1e-4)


def test_the_way_back_is_within_one_hounsfield_unit():
    raw = np.arange(-1024, 3072, dtype=np.float32).reshape(1, 16, 16, 16)
    back = from_normal(to_normal(raw, [40.0], [250.0]), [40.0], [250.0])
    assert np.abs(back - raw).max() < 1e-3


def test_to_segment_statistics_are_those_of_the_whole_box_of_each_scan(scans):
    """Zeros within the box count, those around it do not, wherever the other scans lie."""
    moved = np.zeros_like(scans[0])
    moved[:, 1:3, 2:5, 3:6] = 7
    moved[:, 1, 2, 3] = 0
    offset, scale = normal_form_of_series([scans[0], moved], channels("per_scan", "per_scan"), "box")
    box = scans[0][0, :, 1:5, 1:5]
    assert offset[0][0] == pytest.approx(box.mean()) and scale[0][0] == pytest.approx(box.std(), rel=1e-5)
    assert offset[1][0] == pytest.approx(7 * 17 / 18)
    assert scale[1][0] == pytest.approx(7 * np.sqrt(17) / 18)
    assert get_task("segment").region == "box" and get_task("forecast").region == "nonzero"
    assert get_task("translate").region == "body"


def test_faint_noise_around_a_body_does_not_count_as_body():
    generator = np.random.default_rng(0)
    scan = np.zeros((1, 12, 12, 12), dtype=np.float32)
    scan[0, 3:9, 3:9, 3:9] = generator.normal(300, 20, (6, 6, 6))
    noisy = np.where(scan == 0, generator.uniform(0, 1e-3, scan.shape), scan).astype(np.float32)
    ((mean, deviation),) = region_statistics(noisy, "body")
    inside = scan[scan != 0]
    assert mean == pytest.approx(inside.mean(dtype=np.float64)) and deviation == pytest.approx(inside.std(), rel=1e-5)
    assert region_statistics(noisy)[0][0] < 0.2 * mean  # the nonzero region is everything


def test_a_body_of_one_value_can_be_mapped_back():
    assert region_statistics(np.full((1, 4, 4, 4), 7.0, dtype=np.float32), "body") == [(0.0, 1.0)]


def test_clipping_is_per_channel():
    raw = np.stack([np.linspace(-5, 5, 8, dtype=np.float32).reshape(2, 2, 2)] * 2)
    with_limits = ChannelPlan(name="CT", normal_form="absolute", offset=0, scale=1, clip=(-1, 2))
    result = clipped(raw, [with_limits, *channels("per_scan")])
    assert (result[0].min(), result[0].max()) == (-1, 2)
    assert np.array_equal(result[1], raw[1]) and result.dtype == np.float32
    assert clipped(raw, channels("per_scan", "absolute")) is raw
