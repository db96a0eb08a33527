import numpy as np
import pytest
from scipy.stats import chi2, t

from longflow.errors import DataError
from longflow.evaluation.repeatability import FEWEST_SUBJECTS, Repeatability, changed_subjects, repeatability


def names(number):
    return [f"s{index}" for index in range(number)]


def test_closed_forms():
    found = repeatability(names(4), [1.0, -1.0, 3.0, 1.0])
    variance = (1 + 1 + 9 + 1) / 4 / 2
    assert found.within_sd == pytest.approx(np.sqrt(variance))
    limits = np.sqrt(4 * variance / chi2.ppf([0.975, 0.025], 4))
    assert (found.within_sd_from, found.within_sd_to) == pytest.approx(tuple(limits))
    assert found.coefficient == pytest.approx(t.ppf(0.975, 4) * np.sqrt(2 * variance))
    assert (found.subjects, found.pairs) == (4, 4)


def test_for_many_subjects_it_is_bland_and_altmans():
    found = repeatability(names(100_000), [1.0] * 100_000)
    assert found.coefficient == pytest.approx(1.96 * np.sqrt(2) * found.within_sd, rel=1e-4)


def test_subjects_are_counted_not_pairs():
    found = repeatability(["a", "a", "a", "b", "c"], [2.0, 2.0, 2.0, 1.0, 0.0])
    assert found.within_sd == pytest.approx(np.sqrt((4 + 1 + 0) / 3 / 2)) and (found.subjects, found.pairs) == (3, 5)


@pytest.mark.parametrize("subjects", [3, 10])
def test_new_pairs_are_within_the_coefficient_and_intervals_hold_the_truth(subjects):
    """2,000 simulated studies with a within-subject SD of 1; also with few subjects."""
    generator = np.random.default_rng(0)
    held = within = 0
    for _ in range(2000):
        first, second = generator.standard_normal((2, subjects + 1))
        found = repeatability(names(subjects), (first - second)[:-1])
        held += found.within_sd_from <= 1 <= found.within_sd_to
        within += abs(first[-1] - second[-1]) <= found.coefficient
    assert held / 2000 == pytest.approx(0.95, abs=0.015) and within / 2000 == pytest.approx(0.95, abs=0.015)


def test_too_few_subjects():
    with pytest.raises(DataError, match=f"are of 2 subjects. Expected: {FEWEST_SUBJECTS} or more"):
        repeatability(["a", "a", "b"], [1.0, 2.0, 1.0])


def test_a_record_is_read_as_it_was_written():
    found = repeatability(names(4), [1.0, -1.0, 3.0, 1.0])
    assert Repeatability.of_record(found.record()) == found


@pytest.mark.parametrize("change", [{"coefficient": -1.0}, {"within_sd": float("nan")}, {"other": 1}, {"pairs": None}])
def test_another_record(change):
    with pytest.raises(DataError, match="no repeatability"):
        Repeatability.of_record({**repeatability(names(3), [1.0, 1.0, 1.0]).record(), **change})


def test_a_subject_that_changed_is_found():
    differences = [0.5, -0.4, 0.6, -0.5, 0.4, -0.6, 9.0]
    assert changed_subjects(names(7), differences) == ["s6"]
    assert changed_subjects(names(7), [*differences[:6], 0.7]) == []
    assert changed_subjects(names(4), [0.0, 0.0, 0.0, 1.0]) == ["s3"]
    assert changed_subjects(names(2), [0.1, 9.0]) == []  # one other subject is no spread


@pytest.mark.parametrize("subjects", [4, 12])
def test_false_alarms_of_changed_subjects(subjects):
    """1,000 studies in which nobody changed."""
    generator = np.random.default_rng(1)
    alarms = [bool(changed_subjects(names(subjects), generator.standard_normal(subjects))) for _ in range(1000)]
    assert np.mean(alarms) <= 0.07
