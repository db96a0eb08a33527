import numpy as np
import pytest
from scipy import stats

from longflow.evaluation.summary import (
    bootstrap_interval,
    differences,
    horizon_bins,
    subject_means,
    summary,
    summary_definitions,
)


def test_subjects_count_once_however_many_values_they_have():
    found = summary(["a", "a", "a", "b"], [1.0, 2.0, 3.0, 8.0])
    assert (found["mean"], found["median"], found["subjects"], found["undefined"]) == (5.0, 5.0, 2, 0)
    assert found["interval"] == bootstrap_interval([2.0, 8.0])


def test_undefined_values_are_excluded_and_counted():
    found = summary(["a", "a", "b"], [None, 4.0, None])
    assert found == {"mean": 4.0, "median": 4.0, "interval": None, "subjects": 1, "undefined": 2}


def test_every_key_of_a_summary_has_its_meaning_but_the_number_of_subjects():
    definitions = summary_definitions("scans")
    assert {*definitions, "subjects"} == set(summary(["a"], [1.0]))
    assert all("scans" in definitions[name] for name in ("mean", "median", "undefined"))


def test_differences():
    assert differences([1.0, None, 3.0], [0.5, 1.0, None]) == [0.5, None, None]


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
