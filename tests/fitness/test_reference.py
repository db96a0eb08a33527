import numpy as np
import pytest

from longflow.fitness.reference import (
    FEWEST_SUBJECTS,
    FitnessReference,
    distances,
    learn_reference,
    suspicion,
    thresholds,
)
from longflow.fitness.series import observe_scans, observe_series
from tests.fitness.test_looks import SPACING, look, scan

TIMES = [0.0, 10.0, 25.0]


def subject(seed, change=lambda array: array, times=TIMES, spacing=SPACING):
    """Three scans of a blob that grows."""
    generator = np.random.default_rng([seed, 1])
    size = 1 + 0.1 * generator.normal()
    looks = [look(change(size * scan(1000 * seed + visit) * (1 + 0.02 * visit)), spacing) for visit in range(3)]
    return observe_series(looks, [time * (1 + 0.05 * generator.normal()) for time in times])


@pytest.fixture(scope="module")
def reference():
    return learn_reference([subject(seed) for seed in range(12)])


def worst(observed, reference):
    return distances(observed, reference)[0]


def test_new_subjects_of_the_same_kind_are_below_the_thresholds(reference):
    scores = [worst(subject(seed), reference).score for seed in range(20, 40)]
    assert sum(score > reference.doubtful for score in scores) <= 3
    assert max(scores) < reference.unfit


@pytest.mark.parametrize(
    ("measure", "changes"),
    [
        ("spacing", {"spacing": (5.0, 2.0, 3.0)}),
        ("mirrored", {"change": lambda array: array[..., ::-1]}),
        ("histogram", {"change": lambda array: array.max() - array}),
        ("noise", {"change": lambda array: array + np.random.default_rng(0).normal(0, 200, array.shape)}),
        ("units", {"change": lambda array: 50 * array}),
        ("interval", {"times": [0.0, 300.0, 750.0]}),
    ],
)
def test_corruptions_are_beyond_the_threshold(reference, measure, changes):
    found = {
        one.measure.split()[0] for one in distances(subject(50, **changes), reference) if one.score > reference.unfit
    }
    assert measure in found


def test_it_survives_json_and_names_no_subject(reference):
    text = reference.model_dump_json()
    assert FitnessReference.model_validate_json(text) == reference
    assert worst(subject(60), reference) == worst(subject(60), FitnessReference.model_validate_json(text))


def test_few_subjects_have_no_reference():
    assert learn_reference([subject(seed) for seed in range(FEWEST_SUBJECTS - 1)]) is None
    assert learn_reference([]) is None


def test_phases_have_statistics_and_templates_of_their_own():
    pairs = [
        observe_scans([look(scan(seed)), look(scan(seed + 50)[..., ::-1])], ["native", "late"]) for seed in range(6)
    ]
    reference = learn_reference(pairs)
    assert set(reference.templates) == set(reference.spreads) == {"scan native", "scan late"}
    right = observe_scans([look(scan(99))], ["native"])
    wrong = observe_scans([look(scan(99))], ["late"])
    assert worst(right, reference).score < reference.doubtful < reference.unfit < worst(wrong, reference).score


def test_thresholds_follow_the_rank_rule():
    """Of 39 scores, the 38th: 2 of 40 new subjects are beyond it; of 8 the largest or more: 1 of 9."""
    scores = np.exp(np.random.default_rng(0).normal(size=39))
    doubtful, unfit, level = thresholds(scores)
    assert doubtful == np.sort(scores)[37] and level == pytest.approx(2 / 40)
    assert unfit >= scores.max()
    doubtful, unfit, level = thresholds(scores[:8])
    assert doubtful >= scores[:8].max() and level == pytest.approx(1 / 9) and unfit >= doubtful


@pytest.mark.parametrize("subjects", [8, 19, 60])
def test_false_alarms_are_as_promised(subjects):
    """Exchangeable scores of 4000 simulated cohorts, whatever their distribution."""
    generator = np.random.default_rng(subjects)
    promised, found = [], []
    for _ in range(4000):
        *scores, new = generator.gamma(1.0, size=subjects + 1)
        doubtful, _, level = thresholds(scores)
        promised.append(level)
        found.append(new > doubtful)
    assert np.mean(found) <= np.mean(promised) + 0.012


def test_scores_of_zero_are_no_fault():
    assert thresholds([0.0] * 6)[0] > 0


def test_low_or_high_values_alone_are_suspicious_where_the_measure_says_so():
    assert suspicion("anatomy", 3.0) == -3 and suspicion("pair mirrored x", -2.0) == 2
    assert suspicion("scans", -3.0) == -3 and suspicion("noise 0", -2.0) == 2
