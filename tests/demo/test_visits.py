import numpy as np
import pytest

from longflow.demo.visits import (
    FIELD_OF_VIEW,
    FULL_SCALE,
    NOISE,
    breathing,
    draw_visit_subject,
    expected_visit,
    tumour_radius,
    tumour_volume,
    visit_scan,
    visit_units,
)

SUBJECT = draw_visit_subject(3)
SHAPE = (24, 72, 72)


def test_growth_is_that_of_gompertz():
    """dV/dt = k V ln(V_oo / V), from V_0 towards V_oo."""
    assert tumour_volume(SUBJECT, 0) == pytest.approx(SUBJECT.volume)
    assert tumour_volume(SUBJECT, 10_000) == pytest.approx(SUBJECT.limit)
    for time in (5.0, 60.0):
        slope = (tumour_volume(SUBJECT, time + 1e-3) - tumour_volume(SUBJECT, time - 1e-3)) / 2e-3
        volume = tumour_volume(SUBJECT, time)
        assert slope == pytest.approx(SUBJECT.rate * volume * np.log(SUBJECT.limit / volume), rel=1e-5)


@pytest.mark.parametrize("time", [0.0, 50.0])
def test_the_label_has_the_volume_of_the_law(time):
    _, label = visit_scan(SUBJECT, time, SHAPE)
    voxel = np.prod([extent / count for extent, count in zip(FIELD_OF_VIEW, SHAPE, strict=True)]) / 1000
    assert label.sum() * voxel == pytest.approx(tumour_volume(SUBJECT, time), rel=0.1)


def test_tissue_is_pushed_and_the_wall_is_not():
    """Without noise or breathing: the same breath, one and two periods later."""
    times = [0.0, SUBJECT.period, 2 * SUBJECT.period]
    assert np.ptp([breathing(SUBJECT, time) for time in times]) < 1e-9
    first, second, third = (expected_visit(SUBJECT, time, SHAPE) for time in times)
    assert np.allclose(first[:, 0], second[:, 0]) and np.allclose(first[:, :, 0], third[:, :, 0])
    near = np.abs(second - first) > 0.05 * FULL_SCALE
    _, label = visit_scan(SUBJECT, times[1], SHAPE)
    outside = near & (label == 0)
    assert outside.sum() > 50  # organs next to the tumour have moved
    z, y, x = np.nonzero(near)
    spacing = [extent / count for extent, count in zip(FIELD_OF_VIEW, SHAPE, strict=True)]
    at = [(index - (count - 1) / 2) * step for index, count, step in zip((z, y, x), SHAPE, spacing, strict=True)]
    at[0] = at[0] - breathing(SUBJECT, 0) / 2
    away = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(at, SUBJECT.centre, strict=True)))
    assert away.max() < tumour_radius(SUBJECT, times[1]) + 60


def test_breathing_moves_the_front_along_z():
    """Half a period apart the breath differs by the amplitude; the tumour's centre moves by its share."""
    start = (0.5 - SUBJECT.phase) % 1 * SUBJECT.period  # sin² is 1
    assert breathing(SUBJECT, start) == pytest.approx(SUBJECT.amplitude)
    assert breathing(SUBJECT, start + SUBJECT.period / 2) == pytest.approx(0, abs=1e-9)
    centres = []
    for time in (start, start + SUBJECT.period / 2):
        _, label = visit_scan(SUBJECT, time, SHAPE)
        centres.append(np.nonzero(label)[0].mean() * FIELD_OF_VIEW[0] / SHAPE[0])
    half = SUBJECT.torso[0]
    share = (half - SUBJECT.centre[1]) / (2 * half)
    assert centres[0] - centres[1] == pytest.approx(SUBJECT.amplitude * share, abs=1.0)


def test_units_are_shared_or_of_each_visit():
    assert visit_units(SUBJECT, 10.0, shared=True) == (FULL_SCALE, 0)
    units = [visit_units(SUBJECT, time, shared=False) for time in (0.0, 10.0, 20.0)]
    assert len({gain for gain, _ in units}) == 3 and len({offset for _, offset in units}) == 3
    shared, own = (visit_scan(SUBJECT, 10.0, shared=one)[0] for one in (True, False))
    gain, offset = units[1]
    assert np.abs(gain / FULL_SCALE * shared + offset - own).max() <= 1.5  # both are rounded


def test_the_expected_visit_is_the_mean_of_the_noise():
    found = visit_scan(SUBJECT, 30.0)[0] - expected_visit(SUBJECT, 30.0)
    assert abs(found.mean()) < 0.2
    assert 0.6 * NOISE * FULL_SCALE < found.std() < 1.01 * NOISE * FULL_SCALE  # less in air
