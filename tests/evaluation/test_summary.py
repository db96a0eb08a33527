import numpy as np
import pytest
from scipy import stats

from longflow.evaluation.summary import bootstrap_interval, compare, horizon_bins, subject_means, summarise
from longflow.tasks.forecast.metrics import DEFINITIONS


def row(case, subject, method, nrmse, horizon=1.0, **numbers):
    values = dict.fromkeys(DEFINITIONS) | {"nrmse": nrmse} | numbers
    return {"case": case, "subject": subject, "horizon": horizon, "method": method, **values}


def rows_of(*targets):
    """(case, subject, nrmse of forecast, of LCI, of context mean, horizon)."""
    return [
        row(case, subject, method, value, horizon)
        for case, subject, *values, horizon in targets
        for method, value in zip(("forecast", "lci", "context_mean"), values, strict=True)
    ]


ROWS = rows_of(
    ("a1", "a", 0.1, 0.2, 0.3, 1.0),
    ("a2", "a", 0.3, 0.2, 0.3, 2.0),
    ("a3", "a", 0.2, 0.4, 0.3, 3.0),
    ("b1", "b", 0.6, 0.9, 0.3, 1.0),
)


def test_subjects_count_once_however_many_targets_they_have():
    found = summarise(ROWS)
    assert (found["subjects"], found["targets"]) == (2, 4)
    assert found["forecast"]["nrmse"]["mean"] == pytest.approx((0.2 + 0.6) / 2)
    assert found["forecast"]["nrmse"]["median"] == pytest.approx(0.4)
    assert found["lci"]["nrmse"]["mean"] == pytest.approx((0.8 / 3 + 0.9) / 2)
    assert found["context_mean"]["nrmse"]["mean"] == pytest.approx(0.3)


def test_difference_to_lci_is_paired():
    found = summarise(ROWS)["difference_to_lci"]["nrmse"]
    assert found["mean"] == pytest.approx(((-0.1 + 0.1 - 0.2) / 3 - 0.3) / 2)


def test_share_of_targets_better_than_lci():
    found = summarise(ROWS)["better_than_lci"]
    assert (found["share"], found["better"], found["targets"]) == (0.75, 3, 4)


def test_the_interval_of_the_share_is_that_of_the_share_over_targets():
    """One subject with 40 good targets beside three with one bad target each: the share is far above one in four."""
    targets = [(f"a{i}", "a", 0.1, 0.2, 0.3, 1.0) for i in range(40)]
    targets += [(f"{subject}1", subject, 0.3, 0.2, 0.3, 1.0) for subject in "bcd"]
    found = summarise(rows_of(*targets))["better_than_lci"]
    low, high = found["interval"]
    assert found["share"] == pytest.approx(40 / 43)
    assert low == 0 and found["share"] < high <= 1
    assert bootstrap_interval([1, 0, 0, 0], weights=[40, 1, 1, 1]) == found["interval"]


def test_no_interval_where_all_targets_are_better():
    found = summarise(rows_of(("a1", "a", 0.1, 0.2, 0.3, 1.0), ("b1", "b", 0.1, 0.2, 0.3, 1.0)))["better_than_lci"]
    assert (found["share"], found["interval"]) == (1, None)


def test_equal_to_lci_is_not_better():
    assert summarise(rows_of(("a1", "a", 0.2, 0.2, 0.2, 1.0)))["better_than_lci"]["share"] == 0


def test_undefined_numbers_are_left_out_and_counted():
    rows = rows_of(("a1", "a", None, 0.2, 0.1, 1.0), ("a2", "a", 0.4, 0.5, 0.1, 1.0), ("b1", "b", 0.2, None, 0.1, 1.0))
    found = summarise(rows)
    assert found["forecast"]["nrmse"]["mean"] == pytest.approx(0.3)
    assert found["forecast"]["nrmse"]["undefined"] == 1
    assert found["difference_to_lci"]["nrmse"]["undefined"] == 2
    assert found["difference_to_lci"]["nrmse"]["mean"] == pytest.approx(-0.1)
    assert found["better_than_lci"]["targets"] == 1
    assert found["forecast"]["psnr"] == {"mean": None, "median": None, "interval": None, "subjects": 0, "undefined": 3}


def test_by_horizon_every_target_is_in_one_bin():
    found = compare(ROWS)["by_horizon"]
    assert [(part["from"], part["to"], part["targets"]) for part in found] == [(1, 1, 2), (2, 2, 1), (3, 3, 1)]
    assert found[0]["forecast"]["nrmse"]["mean"] == pytest.approx(0.35)


def test_horizon_bins_hold_about_equally_many_and_never_split_equals():
    horizons = [1.0] * 50 + list(np.linspace(2, 30, 50))
    bins = horizon_bins(horizons)
    counts = [sum(low <= horizon <= high for horizon in horizons) for low, high in bins]
    assert sum(counts) == 100
    assert bins[0] == (1.0, 1.0)
    assert len(bins) == 3
    assert counts == [50, 25, 25]


def test_horizon_bins_of_many_different_horizons():
    horizons = np.random.default_rng(0).random(400)
    counts = [np.sum((low <= horizons) & (horizons <= high)) for low, high in horizon_bins(horizons)]
    assert counts == [100, 100, 100, 100] or np.ptp(counts) <= 2


def test_bootstrap_interval_of_a_normal_sample_is_that_of_theory():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_bootstrap_interval_agrees_with_scipy():
    values = np.random.default_rng(2).exponential(1, 60)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000).confidence_interval
    assert bootstrap_interval(values) == pytest.approx([theirs.low, theirs.high], abs=0.03)


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.normal(0, 1, 40), resamples=300)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_is_seeded_and_drawn_in_portions():
    values = np.random.default_rng(4).random(30)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval(np.full(3000, 2.0)) == [2.0, 2.0]


@pytest.mark.parametrize("values", [[], [0.3]])
def test_no_interval_from_fewer_than_two_subjects(values):
    assert bootstrap_interval(values) is None


def test_subject_means():
    assert subject_means(["b", "a", "b", "c"], [1.0, 5.0, 3.0, None]) == {"a": 5.0, "b": 2.0}
