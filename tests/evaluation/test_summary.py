import numpy as np
import pytest

from longflow.evaluation.intervals import mean_interval, weighted_mean_interval
from longflow.evaluation.summary import (
    differences,
    horizon_bins,
    paired_summary,
    subject_means,
    summary,
    summary_definitions,
    weighted_summary,
)


def test_subjects_count_once_however_many_values_they_have():
    found = summary(["a", "a", "a", "b"], [1.0, 2.0, 3.0, 8.0])
    assert (found["mean"], found["median"], found["subjects"], found["undefined"]) == (5.0, 5.0, 2, 0)
    assert found["interval"] == mean_interval([2.0, 8.0])


def test_undefined_values_are_excluded_and_counted():
    found = summary(["a", "a", "b"], [None, 4.0, None])
    assert found == {"mean": 4.0, "median": 4.0, "interval": None, "subjects": 1, "undefined": 2}


def test_every_key_of_a_summary_has_its_meaning_but_the_number_of_subjects():
    definitions = summary_definitions("scans")
    assert {*definitions, "subjects"} == set(paired_summary(["a"], [1.0], [0.0]))
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


def test_paired_differences_are_tested_over_subjects():
    subjects, values = list("aabcdefg"), [1.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, None]
    found = paired_summary(subjects, values, [0.5] * 8)
    assert found["mean"] == pytest.approx((1.5 + 0.5 + 1.5 + 2.5 + 0.5 + 1.5) / 6)
    assert (found["p"], found["subjects"], found["undefined"]) == (2 / 64, 6, 1)
    assert paired_summary(["a"], [None], [1.0])["p"] is None


def test_a_weighted_summary():
    found = weighted_summary(["a", "b", "c"], [1.0, 4.0, None], [3.0, 1.0, 9.0])
    assert (found["mean"], found["median"], found["subjects"], found["undefined"]) == (1.75, 2.5, 2, 1)
    assert found["interval"] == weighted_mean_interval([1.0, 4.0], [3.0, 1.0])
    assert weighted_summary(["a"], [None], [1.0])["mean"] is None


def test_subject_means():
    assert subject_means(["b", "a", "b", "c"], [1.0, 5.0, 3.0, None]) == {"a": 5.0, "b": 2.0}
