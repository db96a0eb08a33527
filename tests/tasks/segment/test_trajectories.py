import numpy as np
import pytest

from longflow.tasks.segment.trajectories import bland_altman, correlation, slope, summarise_trajectories, trajectory


def test_slope_of_a_line():
    times = np.array([1000.0, 1001.5, 1004.0])
    assert slope(times, 3 - 0.25 * times) == pytest.approx(-0.25)


def test_slope_is_that_of_least_squares():
    generator = np.random.default_rng(0)
    times, volumes = np.sort(generator.random(7)), generator.random(7)
    assert slope(times, volumes) == pytest.approx(np.polyfit(times, volumes, 1)[0])


def test_a_volume_that_never_changes_has_no_slope_at_all():
    assert slope([0.0, 8.7, 25.3, 46.1], [0.1625] * 4) == 0


@pytest.mark.parametrize("times", [[2.0], [2.0, 2.0, 2.0]])
def test_no_slope_without_two_different_times(times):
    assert slope(times, [1.0, 2.0, 3.0][: len(times)]) is None


def test_errors_of_a_known_slope():
    """True growth of 2 ml per unit; found 1.5, and 1 ml too much on average."""
    times = np.array([0.0, 1.0, 3.0, 4.0])
    result = trajectory(times, 12 + 1.5 * times, 10 + 2 * times)
    assert result["slope"] == pytest.approx(1.5)
    assert result["true_slope"] == pytest.approx(2)
    assert result["slope_error"] == pytest.approx(-0.5)
    assert result["absolute_slope_error"] == pytest.approx(0.5)
    assert result["relative_slope_error"] == pytest.approx(0.25)
    # |2 - t / 2| at 0, 1, 3, 4 is 2, 1.5, 0.5, 0; the means are 15 and 14
    assert result["volume_error"] == pytest.approx(1 / 14.5)


@pytest.mark.parametrize("true", [[5.0, 5.0, 5.0], [1.1, 2.3, 1.1], [0.0, 0.0, 0.0]])
def test_a_truth_that_does_not_change_has_no_relative_error(true):
    result = trajectory([0.1, 0.2, 0.3], [4.0, 5.0, 6.0], true)
    assert result["relative_slope_error"] is None
    assert result["absolute_slope_error"] == pytest.approx(10)


def test_one_scan_has_no_slope_but_a_volume_error():
    result = trajectory([3.0], [4.0], [5.0])
    assert [name for name, value in result.items() if value is not None] == ["volume_error"]


def test_absent_everywhere_is_undefined():
    assert set(trajectory([0, 1], [0, 0], [0, 0]).values()) == {None}


def test_correlation_is_pearsons():
    generator = np.random.default_rng(1)
    found, true = generator.random(12), generator.random(12)
    subjects = [f"s{number // 3}" for number in range(12)]
    result = correlation(subjects, found, true)
    assert result["r"] == pytest.approx(np.corrcoef(found, true)[0, 1])
    assert result["interval"][0] < result["r"] < result["interval"][1]
    assert (result["changes"], result["subjects"]) == (12, 4)


def test_perfect_correlation_has_a_perfect_interval():
    true = np.arange(6.0)
    result = correlation(list("abcdef"), 2 * true - 1, true)
    assert result["r"] == pytest.approx(1)
    assert result["interval"] == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("found", "true"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([], [])]
)
def test_undefined_correlation(found, true):
    result = correlation([f"s{number}" for number in range(len(found))], found, true)
    assert (result["r"], result["interval"]) == (None, None)


def test_limits_of_agreement_of_one_change_for_each_subject():
    generator = np.random.default_rng(2)
    found, true = generator.random(9), generator.random(9)
    result = bland_altman(list("abcdefghi"), found, true)
    errors = found - true
    assert result["bias"] == pytest.approx(errors.mean())
    assert result["limits"] == pytest.approx(
        [errors.mean() - 1.96 * errors.std(ddof=1), errors.mean() + 1.96 * errors.std(ddof=1)]
    )


def test_limits_of_agreement_with_several_changes_of_a_subject():
    """Errors 0, 2 | 4, 6 | 8, 10 by hand: MS within 2, MS between 32, m 2: variance of one 2 + (32 - 2) / 2 = 17."""
    result = bland_altman(list("aabbcc"), [0, 2, 4, 6, 8, 10], np.zeros(6))
    assert (result["bias"], result["sd"]) == (5, pytest.approx(np.sqrt(17)))


def test_variance_between_subjects_is_never_negative():
    """Means alike: the variance within is all there is: four squares of 9 over four degrees of freedom."""
    assert bland_altman(list("aabb"), [-3, 3, -3, 3], np.zeros(4))["sd"] == pytest.approx(np.sqrt(36 / 2))


def test_unequal_numbers_of_changes():
    """a: 1, 3, 5; b: 11. MSW 8 / 2, MSB (3 * 4 + 1 * 36) / 1, m0 = 4 - 10 / 4 = 1.5."""
    assert bland_altman(list("aaab"), [1, 3, 5, 11], np.zeros(4))["sd"] == pytest.approx(np.sqrt(4 + (48 - 4) / 1.5))


@pytest.mark.parametrize(("errors", "bias"), [([], None), ([2.0], 2.0)])
def test_too_few_changes_have_no_limits(errors, bias):
    result = bland_altman(["a"] * len(errors), errors, [0.0] * len(errors))
    assert (result["bias"], result["sd"], result["limits"]) == (bias, None, None)


def test_summary_counts_what_is_undefined():
    rows = [
        {"subject": subject, **trajectory([0, 1], [1, 2], true)} for subject, true in (("a", [1, 3]), ("b", [2, 2]))
    ]
    changes = [{"subject": "a", "change": 1, "true_change": 2}, {"subject": "b", "change": 1, "true_change": 0}]
    result = summarise_trajectories(rows, changes)
    assert result["absolute_slope_error"]["mean"] == pytest.approx(1)
    assert result["slope_error"]["mean"] == pytest.approx(0)
    assert (result["relative_slope_error"]["mean"], result["relative_slope_error"]["undefined"]) == (0.5, 1)
    assert result["bland_altman"]["bias"] == 0
    assert result["change_correlation"]["r"] is None
