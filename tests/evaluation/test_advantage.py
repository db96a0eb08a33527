import numpy as np
import pytest

from longflow.evaluation.advantage import LEVEL, advantage, advantage_in_words, probability_better


def cohorts(number, subjects, candidates, draw, difference=0.0):
    """Errors of a baseline (0) and of candidates."""
    generator = np.random.default_rng(0)
    for _ in range(number):
        of_candidates = difference + draw(generator, (candidates, subjects))
        yield np.vstack([np.zeros((1, subjects)), of_candidates])


def normal(generator, shape):
    return generator.standard_normal(shape)


def alike(generator, shape):
    """Candidates that share most of what a subject has."""
    return np.sqrt(0.8) * generator.standard_normal((1, shape[1])) + np.sqrt(0.2) * generator.standard_normal(shape)


def heavy(generator, shape):
    return generator.standard_t(3, shape)


@pytest.mark.parametrize("draw", [normal, alike, heavy])
@pytest.mark.parametrize(("subjects", "candidates"), [(6, 1), (6, 10), (24, 5)])
def test_without_a_difference_chance_reaches_the_level_no_more_often_than_stated(draw, subjects, candidates):
    """200 cohorts: a true rate of 0.1 gives at most 29 with a probability of 0.98."""
    reached = [probability_better(errors, [0], 200) >= LEVEL for errors in cohorts(200, subjects, candidates, draw)]
    assert sum(reached) <= 29
    assert np.mean(reached) <= 1 - LEVEL + 0.02


def test_the_plain_share_of_resamples_is_too_high():
    """What the nested choice is for: judged where it was made, the best of ten is nearly always better."""
    reached = 0
    for errors in cohorts(100, 12, 10, normal):
        drawn = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=200)
        reached += ((drawn @ errors.T).min(axis=1) < 0).mean() >= LEVEL
    assert reached > 80


def test_a_real_difference_is_found():
    found = [probability_better(errors, [0], 200) for errors in cohorts(50, 24, 5, normal, difference=-1.2)]
    assert np.mean(np.array(found) >= LEVEL) > 0.9


def test_a_candidate_that_is_always_better_or_worse():
    better, worse = (np.array([[1.0] * 8, [1.0 + difference] * 8]) for difference in (-0.1, 0.1))
    assert probability_better(better, [0]) == 1 and probability_better(worse, [0]) == 0
    assert probability_better(np.ones((2, 8)), [0]) == 0  # a tie is not better


def test_the_best_baseline_is_chosen_in_each_resample():
    """A candidate between two baselines is not better than the better one."""
    errors = np.array([[3.0] * 8, [1.0] * 8, [2.0] * 8])
    assert probability_better(errors, [0, 1]) == 0
    assert probability_better(errors, [0]) == 1


def test_portions_change_nothing(monkeypatch):
    errors = np.random.default_rng(0).standard_normal((4, 9))
    whole = probability_better(errors, [0])
    monkeypatch.setattr("longflow.evaluation.advantage._AT_A_TIME", 100)
    assert probability_better(errors, [0]) == whole


def test_few_subjects_have_no_probability():
    found = advantage(np.ones((2, 5)), [0], "lci")
    assert found == {"baseline": "lci", "probability": None, "level": LEVEL, "subjects": 5, "recommended": None}
    assert "takes 6 subjects, and these are 5" in advantage_in_words(found, "LCI")


@pytest.mark.parametrize(
    ("difference", "recommended", "words"),
    [(-0.1, "choice", "better than LCI with a probability of 100%"), (0.1, "baseline", "90%: recommended is LCI.")],
)
def test_the_recommendation(difference, recommended, words):
    found = advantage(np.array([[1.0] * 8, [1.0 + difference] * 8]), [0], "lci")
    assert found["recommended"] == recommended
    text = advantage_in_words(found, "LCI")
    assert words in text and ("recommended" in text) == (recommended == "baseline")
