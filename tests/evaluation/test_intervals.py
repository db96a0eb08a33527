import numpy as np
import pytest
from scipy import stats

from longflow.evaluation.intervals import (
    jackknife_interval,
    mean_interval,
    share_interval,
    t_quantile,
    weighted_mean_interval,
)


def coverage_is(covered, trials, nominal=0.95):
    """Whether a count of covered truths is within the central 99.9 % of the binomial distribution."""
    low, high = stats.binom.interval(0.999, trials, nominal)
    return low <= covered <= high


@pytest.mark.parametrize("number", [2, 5, 30])
def test_the_interval_of_a_mean_is_students(number):
    values = np.random.default_rng(number).normal(3, 2, number)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, 0.9) == pytest.approx([theirs.low, theirs.high])


@pytest.mark.parametrize("number", [3, 5, 10, 20])
def test_it_covers_the_mean_of_few_normal_values_as_often_as_it_says(number):
    generator = np.random.default_rng(number)
    intervals = np.array([mean_interval(generator.normal(0, 1, number)) for _ in range(2000)])
    assert coverage_is(((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)).sum(), 2000)


@pytest.mark.parametrize("number", [3, 5, 10, 20])
@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_t"])
def test_it_covers_more_than_the_bootstraps_that_it_was_chosen_over(number, draw):
    """Percentile and BCa intervals from 500 resamples, of 300 samples: normal, skewed and heavy-tailed."""
    generator = np.random.default_rng(number)
    sample = getattr(generator, draw)(*([3] if draw == "standard_t" else []), size=(300, number))
    mean = 1.0 if draw == "exponential" else 0.0
    ours = np.array([mean_interval(values) for values in sample]).T
    theirs = [
        stats.bootstrap((sample,), np.mean, axis=1, n_resamples=500, method=method, rng=0).confidence_interval
        for method in ("percentile", "BCa")
    ]
    covered = [np.mean((low <= mean) & (mean <= high)) for low, high in (ours, *theirs)]
    assert covered[0] > max(covered[1:]) - 0.01 and covered[0] > 0.84


@pytest.mark.parametrize("values", [[], [0.3]])
def test_no_interval_from_fewer_than_two_subjects(values):
    assert mean_interval(values) is None
    assert weighted_mean_interval(values, [1.0] * len(values)) is None


def test_equal_values_leave_no_doubt():
    assert mean_interval([0.1] * 3) == pytest.approx([0.1, 0.1])
    assert weighted_mean_interval([0.1] * 3, [1, 2, 3]) == pytest.approx([0.1, 0.1])


def test_a_quantile_of_t_is_scipys():
    assert t_quantile(4.5, 0.9) == pytest.approx(stats.t.ppf(0.95, 4.5))


# ---- shares


@pytest.mark.parametrize("better", range(9))
def test_one_target_for_each_subject_is_clopper_and_pearson(better):
    theirs = stats.binomtest(better, 8).proportion_ci(0.95, "exact")
    assert share_interval([1] * better + [0] * (8 - better), [1] * 8) == pytest.approx([theirs.low, theirs.high])


def test_sixteen_of_sixteen_targets_of_eight_subjects_are_eight():
    low, high = share_interval([2] * 8, [2] * 8)
    assert low == pytest.approx(0.025 ** (1 / 8)) and low == pytest.approx(0.63, abs=0.002) and high == 1


def test_one_subject_with_most_targets_leaves_the_share_open():
    low, high = share_interval([40, 0, 0, 0], [40, 1, 1, 1])
    assert low < 0.2 and high == pytest.approx(1, abs=0.02)


def test_subjects_that_all_have_the_same_share_count_every_target():
    theirs = stats.binomtest(4, 8).proportion_ci(0.95, "exact")
    assert share_interval([1] * 4, [2] * 4) == pytest.approx([theirs.low, theirs.high])


def test_one_subject_has_no_interval_of_a_share():
    assert share_interval([3], [4]) is None


@pytest.mark.parametrize("number", [5, 8, 20])
@pytest.mark.parametrize(("spread", "share"), [(0.5, 0.5), (4, 0.5), (1, 0.85)])
def test_it_covers_the_share_of_clustered_targets(number, spread, share):
    """Shares of subjects from a beta distribution, two to four targets for each subject."""
    generator = np.random.default_rng(number)
    covered = 0
    for _ in range(1000):
        targets = generator.integers(2, 5, number)
        successes = generator.binomial(targets, generator.beta(spread * share, spread * (1 - share), number))
        low, high = share_interval(successes.tolist(), targets.tolist())
        covered += low <= share <= high
    assert covered > stats.binom.ppf(0.001, 1000, 0.95)  # exact intervals cover at least what they say


# ---- weighted means


def test_equal_weights_are_students_interval():
    values = np.random.default_rng(0).normal(3, 2, 7)
    assert weighted_mean_interval(values, [2.5] * 7) == pytest.approx(mean_interval(values))


@pytest.mark.parametrize("weights", [[1, 1, 1, 8], [1, 2, 4, 8, 16], [1] * 5 + [10] * 5])
def test_it_covers_the_weighted_mean_of_values_with_these_precisions(weights):
    generator = np.random.default_rng(1)
    values = generator.normal(0, 1 / np.sqrt(weights), (2000, len(weights)))
    intervals = np.array([weighted_mean_interval(one, weights) for one in values])
    covered = ((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)).sum() / 2000
    assert 0.93 < covered < 0.99  # the degrees of freedom are approximate, and too few where one weight dominates


def test_the_variance_of_a_weighted_mean_is_unbiased():
    """Half the interval over the quantile is the standard error; its square is 1 / sum of weights on average."""
    weights = np.array([1.0, 3.0, 6.0])
    values = np.random.default_rng(2).normal(0, 1 / np.sqrt(weights), (20_000, 3))
    share = weights / weights.sum()
    error = (share**2 * (values - values @ share[:, None]) ** 2 / (1 - share)).sum(axis=1)
    assert error.mean() == pytest.approx(1 / weights.sum(), rel=0.03)
    one = weighted_mean_interval(values[0], weights)
    assert np.mean(one) == pytest.approx(values[0] @ share)
    degrees = np.linspace(1, 2, 10_001)  # between one subject that dominates and three alike
    halves = stats.t.ppf(0.975, degrees) * np.sqrt(error[0])
    assert np.abs(halves - np.diff(one) / 2).min() < 1e-3 * np.diff(one)


# ---- jackknife


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(3).normal(3, 2, 9)
    found = jackknife_interval(lambda positions: values[positions].mean(), list("abcdefghi"))
    assert found == pytest.approx(mean_interval(values))


def test_subjects_are_left_out_with_all_their_values():
    values = np.array([1.0, 3.0, 5.0, 7.0, 9.0, 11.0])
    found = jackknife_interval(lambda positions: values[positions].mean(), list("aabbcc"))
    assert found == pytest.approx(mean_interval([2.0, 6.0, 10.0]))


def test_limits_are_brought_back():
    values = np.random.default_rng(4).random(9)
    found = jackknife_interval(lambda positions: np.log(values[positions].mean()), list("abcdefghi"), np.exp)
    assert 0 < found[0] < values.mean() < found[1]


@pytest.mark.parametrize("subjects", [["a", "b"], ["a", "a", "b"], []])
def test_no_jackknife_of_fewer_than_three_subjects(subjects):
    assert jackknife_interval(lambda positions: 1.0, subjects) is None


def test_no_jackknife_where_one_subject_alone_makes_it_defined():
    assert jackknife_interval(lambda positions: 1.0 if 0 in positions else None, list("abc")) is None
