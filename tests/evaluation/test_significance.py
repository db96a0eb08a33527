import numpy as np
import pytest
from scipy import stats

from longflow.evaluation.significance import (
    FEWEST_FOR_A_VERDICT,
    LEVEL,
    compared_with_best,
    holm,
    is_difference,
    sign_flip_p,
)


@pytest.mark.parametrize("number", [1, 2, 5, 6, 10])
def test_all_of_one_sign_is_the_smallest_p_value(number):
    values = np.random.default_rng(number).random(number) + 0.1
    assert sign_flip_p(values) == sign_flip_p(-values) == pytest.approx(2.0 ** (1 - number))


def test_the_fewest_subjects_for_a_verdict():
    values = np.ones(FEWEST_FOR_A_VERDICT)
    assert sign_flip_p(values) <= LEVEL < sign_flip_p(values[1:])


def test_by_hand():
    """1, 2, -4: sums of all patterns are 7, 5, 3, 1 and their negatives; |-1| is reached by all of them."""
    assert sign_flip_p([1, 2, -4]) == 1
    assert sign_flip_p([1, 2, 4]) == 0.25
    assert sign_flip_p([-1, 2, 4]) == 0.5


@pytest.mark.parametrize("number", [9, 12])
def test_it_is_scipys_permutation_test(number):
    values = np.random.default_rng(number).normal(0.4, 1, number)
    theirs = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(values) == pytest.approx(theirs.pvalue)


def test_equal_sums_in_another_order_are_equal():
    assert sign_flip_p([0.1, 0.2, 0.3, 0.0]) == 0.25


@pytest.mark.parametrize(("number", "shift"), [(20, 0.5), (50, 0.2), (300, 0.1)])
def test_of_many_values_patterns_are_drawn(number, shift):
    values = np.random.default_rng(number).normal(shift, 1, number)
    p = sign_flip_p(values)
    assert p == sign_flip_p(values)
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)


def test_a_drawn_p_value_is_never_0():
    assert sign_flip_p(np.ones(40)) == pytest.approx(1 / 20_001)


@pytest.mark.parametrize("number", [6, 10])
def test_it_finds_differences_by_chance_no_more_often_than_its_level(number):
    generator = np.random.default_rng(number)
    found = sum(is_difference(sign_flip_p(generator.laplace(0, 1, number))) for _ in range(2000))
    assert found <= stats.binom.ppf(0.999, 2000, LEVEL)


def test_no_value_no_test():
    assert sign_flip_p([]) is None and not is_difference(None)


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 and never below the one before, 0.5 x 1."""
    found = holm({"c": 0.03, "a": 0.01, "d": 0.5, "b": 0.02, "undefined": None})
    assert found == {"c": 0.06, "a": 0.04, "d": 0.5, "b": 0.06, "undefined": None}


def test_holm_never_exceeds_1_and_one_test_needs_no_correction():
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.04}) == {"a": 0.04} and holm({}) == {}


def test_holm_keeps_the_chance_of_any_false_finding():
    p_values = np.random.default_rng(0).random((4000, 8))
    any_found = sum(min(holm(dict(enumerate(values))).values()) <= LEVEL for values in p_values)
    assert any_found <= stats.binom.ppf(0.999, 4000, LEVEL)


def test_candidates_are_corrected_for_all_pairs():
    """Seven subjects of one sign: 2 / 2^7 for each of the pairs of x with the others."""
    values = {
        name: {str(subject): base + 0.01 * (subject % step) for subject in range(7)}
        for name, base, step in (("x", 0, 2), ("y", 1, 3), ("z", 2, 5))
    }
    assert compared_with_best(values, "x") == pytest.approx({"y": 3 / 64, "z": 3 / 64})


def test_choosing_the_best_of_equal_candidates_finds_no_difference():
    """Without the correction for all pairs, the best of six equal candidates is better than the worst by chance."""
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        errors = generator.normal(0, 1, (6, 10))
        values = {name: dict(zip("abcdefghij", one, strict=True)) for name, one in enumerate(errors)}
        best = int(errors.mean(axis=1).argmin())
        found += any(map(is_difference, compared_with_best(values, best).values()))
    assert found <= stats.binom.ppf(0.999, 200, LEVEL)
