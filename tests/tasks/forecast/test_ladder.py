import numpy as np
import pytest

from longflow.data.images import read_scan
from longflow.registration.motion import STEP, Carried, carried_on, motion_between
from longflow.tasks.forecast.ladder import MOTION, RUNGS, best_rung, read_given, rung_names, rungs
from longflow.tasks.forecast.pairs import find_pairs, forecasts_of_folder
from tests.tasks.conftest import SHAPE


@pytest.fixture
def scans(paths, write_scan):
    """Three context scans at 0, 1 and 3 and a target at 4, of two channels' worth of noise."""
    generator = np.random.default_rng(0)
    arrays = [generator.random(SHAPE).astype(np.float32) for _ in range(4)]
    for position, array in enumerate(arrays):
        write_scan(paths.raw / "imagesTr", f"s1_{position}", array)
    return arrays


@pytest.fixture
def pair(tmp_path, paths, scans, description, write_forecast):
    def make(context=(0, 1, 2), **sidecar):
        times = [(0.0, 1.0, 3.0)[position] for position in context]
        given = {"context_times": times, "target_time": 4.0, "horizon": 4.0 - max(times), **sidecar}
        write_forecast(tmp_path / "out", "s1_3", scans[3], [f"s1_{position}" for position in context], **given)
        (found,), _ = find_pairs(
            forecasts_of_folder(tmp_path / "out", description), [paths.raw / "imagesTr"], description
        )
        return found

    return make


def ladder_of(pair, steps=None):
    found = rungs(read_given(pair, read_scan(pair.reference)), steps or {MOTION: STEP})
    return {rung.name: rung.forecast[0] for rung in found}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_rungs_against_numpy(pair, scans, order):
    first, second, last, _ = scans
    weights = {"s1_0": 0.5, "s1_1": -0.25, "s1_2": 0.75}
    found = ladder_of(pair(order, period=7.0, recurrence={"period": 7.0, "weights": weights}))
    assert tuple(found) == RUNGS
    assert np.array_equal(found["lci"], last)
    np.testing.assert_allclose(found["context_mean"], np.mean(scans[:3], axis=0), atol=1e-6)
    np.testing.assert_allclose(found["linear"], last + (last - second) * 1 / 2, atol=1e-6)
    # 4 lies between the last scan at 3 and the first one, repeated at 7
    np.testing.assert_allclose(found["periodic"], last + (first - last) / 4, atol=1e-6)
    np.testing.assert_allclose(found["recurrence"], 0.5 * first - 0.25 * second + 0.75 * last, atol=1e-6)
    warped = carried_on(last[None], motion_between(second, last, (3.0, 1.0, 1.0)), 0.5 * 1 / 2)
    np.testing.assert_array_equal(found["motion"], warped.scan[0])
    assert all(array.dtype == np.float32 for array in found.values())


def test_motion_with_several_steps(pair):
    found = ladder_of(pair(), {"none": 0.0, "some": 1.0})
    assert np.array_equal(found["none"], found["lci"]) and not np.array_equal(found["some"], found["lci"])


def test_only_motion_folds(pair, monkeypatch):
    monkeypatch.setattr("longflow.tasks.forecast.ladder.carried_on", lambda last, *_: Carried(last, 0.25))
    found = rungs(read_given(pair(), read_scan(pair().reference)), {MOTION: STEP})
    assert {rung.name for rung in found if rung.folded} == {MOTION}


def test_a_single_scan_has_neither_trend_nor_motion(pair, scans):
    found = ladder_of(pair((1,), period=20.0))
    assert all(np.array_equal(array, scans[1]) for array in found.values())


def test_scans_of_one_time_have_no_trend(pair, scans):
    found = ladder_of(pair((0, 1), context_times=[1.0, 1.0]))
    assert np.array_equal(found["linear"], found["lci"])


def test_without_a_period_periodic_is_no_rung(pair):
    without, known = pair(), pair(period=7.0)
    assert "periodic" not in ladder_of(without)
    assert rung_names([known], {MOTION: STEP}) == [rung for rung in RUNGS if rung != "recurrence"]
    assert "periodic" not in rung_names([known, without], {MOTION: STEP})


def test_without_weights_recurrence_is_no_rung(pair):
    without, known = pair(), pair(recurrence={"period": 5.0, "weights": {"s1_2": 1.0}})
    assert "recurrence" not in ladder_of(without)
    assert np.array_equal(ladder_of(known)["recurrence"], ladder_of(known)["lci"])
    assert "recurrence" in rung_names([known], {}) and "recurrence" not in rung_names([known, without], {})


def row(subject, method, nrmse):
    return {"subject": subject, "method": method, "nrmse": nrmse}


def test_the_best_rung_has_the_lowest_mean_over_subjects():
    rows = [row("a", "lci", 0.1), row("a", "lci", 0.1), row("b", "lci", 0.5)]
    rows += [row("a", "linear", 0.2), row("a", "linear", 0.2), row("b", "linear", 0.3)]
    assert best_rung(rows) == "linear"  # over targets it would be LCI


def test_a_rung_that_lacks_a_target_is_never_the_best():
    rows = [row("a", "lci", 0.2), row("b", "lci", 0.2), row("a", "periodic", 0.1), row("a", "forecast", 0.0)]
    assert best_rung(rows) == "lci"


def test_of_equal_rungs_the_simplest_is_the_best():
    assert best_rung([row("a", rung, 0.2) for rung in reversed(RUNGS)]) == "lci"
