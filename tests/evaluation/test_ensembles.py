import numpy as np
import pytest

from longflow.evaluation.ensembles import means_of_two, nested_choice, nested_estimate, subject_weights


def test_means_of_two_that_fit():
    assert means_of_two(["a"]) == {}
    assert means_of_two(["a", "b", "c"]) == {"a + b": (0, 1), "a + c": (0, 2), "b + c": (1, 2)}
    assert means_of_two(["a", "b", "c"], lambda one, other: other - one == 1) == {"a + b": (0, 1), "b + c": (1, 2)}


def test_weights_are_those_of_the_mean_over_subjects():
    values = np.array([1.0, 3.0, 7.0])
    assert values @ subject_weights(["a", "a", "b"]) == pytest.approx((2 + 7) / 2)


def test_a_choice_is_judged_on_the_fold_it_did_not_see():
    """In fold 0 the first candidate is lucky, in fold 1 the second; without a fold, the other one is chosen."""
    curves = np.array([[[0.0], [1.0]], [[1.0], [0.0]]])
    found = nested_choice(curves, ["a", "b"], np.array([0, 1]))
    assert found.choices == [(0, 1, 0), (1, 0, 0)]
    assert (found.error, found.optimism) == (1.0, 0.5)


def test_one_fold_has_no_estimate():
    assert nested_choice(np.zeros((2, 2, 1)), ["a", "b"], np.array([0, 0])) is None
    assert nested_estimate({"x": {(0, "a"): 1.0}, "y": {(0, "a"): 2.0}}, "dice", "higher") is None


@pytest.mark.parametrize(("better", "best"), [("higher", "y"), ("lower", "x")])
def test_the_estimate_of_a_clear_choice_is_its_mean(better, best):
    places = [(0, "a"), (0, "b"), (1, "c")]
    values = {"x": dict.fromkeys(places, 0.5), "y": dict(zip(places, (0.7, 0.8, 0.9), strict=True))}
    found = nested_estimate(values, "dice", better)
    assert found["dice"] == pytest.approx(np.mean(list(values[best].values())))
    assert found["optimism"] == pytest.approx(0)
    assert found["choices"] == [{"fold": 0, "candidate": best}, {"fold": 1, "candidate": best}]


def test_equal_candidates_the_first_is_chosen():
    values = {"simple": {(0, "a"): 1.0, (1, "b"): 1.0}, "simple + other": {(0, "a"): 1.0, (1, "b"): 1.0}}
    assert {one["candidate"] for one in nested_estimate(values, "dice", "higher")["choices"]} == {"simple"}
