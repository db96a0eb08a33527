import numpy as np
import pytest
from scipy.stats import t

from longflow.evaluation.intervals import mean_interval
from longflow.evaluation.seeds import interval_over_runs


def study(generator, subjects, seeds, of_subjects, of_seeds, rest, folds=1):
    """Values with a mean of 0: effects of subjects, of trainings, and of both together."""
    runs = []
    for fold in range(folds):
        own = of_subjects * generator.standard_normal(subjects)
        for _ in range(seeds):
            values = own + of_seeds * generator.standard_normal() + rest * generator.standard_normal(subjects)
            runs.append({f"f{fold}s{subject}": float(value) for subject, value in enumerate(values)})
    return runs


def coverage(interval, studies=600, **settings):
    generator = np.random.default_rng(0)
    limits = [interval(study(generator, **settings)) for _ in range(studies)]
    return np.mean([low <= 0 <= high for low, high in limits])


@pytest.mark.parametrize(
    "settings",
    [
        {"subjects": 8, "seeds": 3, "of_subjects": 1.0, "of_seeds": 1.0, "rest": 0.5},
        {"subjects": 20, "seeds": 3, "of_subjects": 1.0, "of_seeds": 0.3, "rest": 0.3},
        {"subjects": 20, "seeds": 5, "of_subjects": 0.2, "of_seeds": 1.0, "rest": 1.0},
        {"subjects": 10, "seeds": 3, "of_subjects": 1.0, "of_seeds": 0.0, "rest": 0.5},
        {"subjects": 4, "seeds": 3, "of_subjects": 0.5, "of_seeds": 1.0, "rest": 0.5, "folds": 5},
        {"subjects": 12, "seeds": 2, "of_subjects": 1.0, "of_seeds": 0.5, "rest": 0.5},
    ],
)
def test_intervals_hold_the_mean_as_often_as_they_say(settings):
    assert coverage(interval_over_runs, **settings) >= 0.94


def test_an_interval_over_subjects_alone_is_too_narrow():
    def subjects_alone(runs):
        return mean_interval([float(np.mean([run[subject] for run in runs])) for subject in runs[0]])

    settings = {"subjects": 20, "seeds": 3, "of_subjects": 0.5, "of_seeds": 0.5, "rest": 0.2}
    assert coverage(subjects_alone, **settings) < 0.7 < 0.94 <= coverage(interval_over_runs, **settings)


def test_the_formula_for_one_fold():
    """Two subjects and two seeds by hand."""
    low, high = interval_over_runs([{"a": 0.0, "b": 4.0}, {"a": 2.0, "b": 8.0}])
    # means of subjects are 1 and 6, of seeds 2 and 5
    half = t.ppf(0.975, 1) * np.sqrt(12.5 / 2 + 4.5 / 2)
    assert (low, high) == pytest.approx((3.5 - half, 3.5 + half))


def test_one_training_of_each_fold_has_students_interval():
    runs = [{"a": 1.0, "b": 2.0}, {"c": 4.0}]
    assert interval_over_runs(runs) == mean_interval([1.0, 2.0, 4.0])
    assert interval_over_runs([{"a": 1.0}]) is None and interval_over_runs([]) is None


def test_equal_trainings_add_nothing():
    """Seeds that agree: the interval is the one over subjects."""
    values = {"a": 1.0, "b": 2.0, "c": 4.0}
    assert interval_over_runs([values] * 3) == pytest.approx(mean_interval([1.0, 2.0, 4.0]))
    assert interval_over_runs([{"a": 1.0, "b": 1.0}] * 2) == [1.0, 1.0]


def test_a_fold_without_further_seeds_has_the_variance_of_the_others():
    generator = np.random.default_rng(0)
    runs = study(generator, 6, 3, 0.1, 1.0, 0.1, folds=2)
    lacking = interval_over_runs(runs[:4])
    whole = interval_over_runs(runs)
    assert lacking[1] - lacking[0] > whole[1] - whole[0]
