"""The requested time alone decides the content of the last scan."""

from dataclasses import replace

import numpy as np
import pytest

from longflow.data.dataset import series_of_folder, training_series
from longflow.data.images import read_scan
from longflow.demo.law import contraction, draw_subject
from longflow.demo.only_time import HORIZON, PERIOD, equal_heart, moments, write_only_time
from longflow.demo.phantom import expected_scan, phantom_scan
from longflow.errors import DataError
from longflow.tasks.forecast.metrics import nrmse

SMALL = {"subjects": 2, "test_subjects": 2, "shape": (4, 16, 16)}


@pytest.fixture(scope="module")
def raws(tmp_path_factory):
    """The cohort with times and with the order of the scans."""
    folder = tmp_path_factory.mktemp("only_time")
    for timestamps in (True, False):
        write_only_time(folder / str(timestamps), timestamps, **SMALL)
    return folder / "True", folder / "False"


def test_context_scans_show_no_change_and_the_last_one_the_contraction_of_its_time():
    shape = (8, 32, 32)
    for seed in range(4):
        heart = equal_heart(seed)
        first, last, target = moments(heart)
        a, b, c, still = (phantom_scan(heart, time, shape, noise=0)[0] for time in (first, last, target, last + PERIOD))
        assert np.array_equal(a, b) and np.array_equal(b, still)
        assert contraction((target - last) / PERIOD) > 0.01 and not np.array_equal(b, c)


def test_without_the_time_half_of_the_error_of_lci_can_be_explained_and_with_it_nearly_all():
    """The best forecast without times is the mean over all horizons (table 9: discrete below LCI, continuous below)."""
    shape, errors = (4, 24, 24), []
    for seed in range(6):
        heart = equal_heart(seed)
        _, last, target = moments(heart)
        reference = phantom_scan(heart, target, shape)[0][None].astype(float)
        horizons = np.linspace(*HORIZON, 17) * PERIOD
        untimed = np.mean([expected_scan(heart, time, shape) for time in horizons], axis=0)
        forecasts = (phantom_scan(heart, last, shape)[0], untimed, expected_scan(heart, target, shape))
        errors.append([nrmse(forecast[None], reference) for forecast in forecasts])
    lci, untimed, timed = np.mean(errors, axis=0)
    assert timed < 0.5 * untimed and untimed < 0.75 * lci


def test_two_of_three_beats_are_drawn_and_the_horizon_is_real_valued():
    drawn = np.array([moments(equal_heart(seed)) for seed in range(300)])
    beats, horizons = drawn[:, :2] / PERIOD, (drawn[:, 2] - drawn[:, 1]) / PERIOD
    pairs, counts = np.unique(beats, axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]] and counts.min() > 70
    assert HORIZON[0] <= horizons.min() < 0.12 and 0.88 < horizons.max() <= HORIZON[1]
    assert abs(np.corrcoef(beats[:, 1] - beats[:, 0], horizons)[0, 1]) < 0.2  # the gap tells nothing of the horizon


def test_anatomies_differ_and_hearts_beat_alike():
    one, other = equal_heart(1), equal_heart(2)
    assert one.radius != other.radius and one.radius == draw_subject(1).radius
    beat = {"period", "phase", "ejection_fraction", "shortening", "twist", "rv_contraction", "rv_delay"}
    assert all(getattr(one, name) == getattr(other, name) for name in beat)
    assert replace(one, **{name: getattr(draw_subject(1), name) for name in beat}) == draw_subject(1)


def test_the_dataset_with_times(raws):
    description, series = training_series(raws[0])
    assert description.time_unit == "ms" and len(series) == 2
    assert all(scan.exists for one in series for scan in one.scans)
    assert series[0].times == sorted(moments(equal_heart(0)))
    held_out = series_of_folder(raws[0] / "imagesTs", description)
    assert [[scan.exists for scan in one.scans] for one in held_out] == [[True, True, False]] * 2
    assert all((raws[0] / "targetsTs" / one.scans[2].images[0].name).is_file() for one in held_out)


def test_the_same_scans_without_times(raws):
    with_times, without = (training_series(raw)[1] for raw in raws)
    for one, other in zip(with_times, without, strict=True):
        assert other.times == [0, 1, 2]
        for scan, same in zip(one.scans, other.scans, strict=True):
            assert scan.case == same.case
            assert np.array_equal(read_scan(scan.images).array, read_scan(same.images).array)
    assert training_series(raws[1])[0].time_unit == "frames"


def test_a_finished_cohort_is_kept_and_another_is_not_overwritten(raws):
    before = (raws[0] / "scans.csv").stat().st_mtime_ns
    write_only_time(raws[0], True, **SMALL)
    assert (raws[0] / "scans.csv").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="holds another dataset"):
        write_only_time(raws[0], False, **SMALL)
