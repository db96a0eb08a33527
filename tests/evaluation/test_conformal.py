import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from longflow.errors import DataError
from longflow.evaluation.conformal import (
    attainable_level,
    conformal_factor,
    conformal_intervals,
    fewest_subjects,
    subject_scores,
)


def scores_of(values):
    return {str(number): float(value) for number, value in enumerate(values)}


def test_one_score_for_each_subject_is_its_largest():
    found = subject_scores(["b", "a", "b"], [3.0, -2.0, -8.0], [1.0, 4.0, 2.0])
    assert found == {"a": 0.5, "b": 4.0} and list(found) == ["a", "b"]


@pytest.mark.parametrize(
    ("level", "number", "rank"), [(0.5, 3, 2), (0.9, 9, 9), (0.9, 10, 10), (0.9, 19, 18), (0.8, 14, 12), (0.95, 39, 38)]
)
def test_the_factor_is_the_score_of_this_rank(level, number, rank):
    values = np.random.default_rng(number).permutation(number) + 1
    assert conformal_factor(scores_of(values), level) == rank


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_fewest_subjects_attain_the_level_and_one_less_does_not(level):
    fewest = fewest_subjects(level)
    assert attainable_level(fewest) >= level - 1e-12 > attainable_level(fewest - 1)
    assert conformal_factor(scores_of(range(fewest)), level) == fewest - 1  # the largest
    needs = f"needs {fewest} subjects. The highest level of these is"
    with pytest.raises(DataError, match=needs):
        conformal_factor(scores_of(range(fewest - 1)), level)


@pytest.mark.parametrize("level", [0, 1, 1.5, -0.1])
def test_levels_that_are_none(level):
    with pytest.raises(DataError, match="Expected: above 0 and below 1"):
        conformal_factor(scores_of(range(50)), level)


@pytest.mark.parametrize(("error", "scale"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, np.nan)])
def test_errors_that_are_not_defined(error, scale):
    with pytest.raises(DataError, match="An error of b is"):
        subject_scores(["a", "b"], [1.0, error], [1.0, scale])


def test_intervals_end_at_what_is_possible():
    assert conformal_intervals([10.0, 1.0], [2.0, 1.0], 1.5) == [(7.0, 13.0), (-0.5, 2.5)]
    assert conformal_intervals([10.0, 1.0, -9.0], [2.0, 1.0, 1.0], 1.5, lowest=0) == [(7, 13), (0, 2.5), (0, 0)]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential", "standard_cauchy"])
def test_all_visits_of_a_new_subject_are_covered_as_often_as_promised(draw, level):
    """Visits of a subject share an error; 12 subjects calibrate. The share is k / 13, whatever the distribution."""
    generator = np.random.default_rng(0)
    trials, covered = 2000, 0
    scales = np.array([1.0, 2.0, 4.0])
    for _ in range(trials):
        errors = scales * (getattr(generator, draw)((13, 3)) + getattr(generator, draw)((13, 1)))
        subjects = [str(number) for number in range(12) for _ in range(3)]
        scores = subject_scores(subjects, errors[:12].ravel().tolist(), np.tile(scales, 12).tolist())
        limits = conformal_intervals([0.0] * 3, scales.tolist(), conformal_factor(scores, level))
        covered += all(low <= error <= high for (low, high), error in zip(limits, errors[12], strict=True))
    promised = np.ceil(13 * level - 1e-9) / 13
    low, high = stats.binom.interval(0.999, trials, promised)
    assert low <= covered <= high


@pytest.mark.parametrize(("number", "level"), [(9, 0.9), (30, 0.8)])
def test_the_coverage_of_one_calibration_has_a_beta_distribution(number, level):
    """Of uniform scores the coverage is the factor itself: the k-th of n uniform values, Beta(k, n + 1 - k)."""
    generator = np.random.default_rng(1)
    coverage = [conformal_factor(scores_of(generator.random(number)), level) for _ in range(2000)]
    rank = int(np.ceil((number + 1) * level - 1e-9))
    assert stats.kstest(coverage, stats.beta(rank, number + 1 - rank).cdf).pvalue > 0.001


def test_the_numbers_of_the_page_on_uncertainty():
    """Levels are n / (n + 1); the probability of one calibration follows Beta(k, n + 1 - k) (Vovk 2012)."""
    text = (Path(__file__).parents[2] / "documentation" / "explanation" / "uncertainty.md").read_text()
    table = re.findall(r"^\| (\d+) \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert len(table) == 5
    for subjects, level in table:
        assert f"{100 * attainable_level(int(subjects)):.1f}" == level
        assert fewest_subjects(float(level) / 100) == int(subjects)
    below = re.search(r"is below (\d+) %\. With 99 patients it is below (\d+) %", text)
    found = [100 * stats.beta.ppf(0.1, rank, subjects + 1 - rank) for rank, subjects in ((9, 9), (90, 99))]
    assert [f"{share:.0f}" for share in found] == list(below.groups())
