import numpy as np
import pytest
from scipy import stats

from longflow.evaluation.intervals import mean_interval
from longflow.tasks.segment.trajectories import (
    bland_altman,
    calibration_slope,
    correlation,
    slope,
    summarise_trajectories,
    trajectory,
)


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
    assert [name for name, value in result.items() if value is not None] == ["volume_error", "slope_precision"]


def test_absent_everywhere_is_undefined():
    result = trajectory([0, 1], [0, 0], [0, 0])
    assert result.pop("slope_precision") == 0.5 and set(result.values()) == {None}


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
    """Errors 0, 2 | 4, 6 | 8, 10: means 1, 5, 9 of variance 16; mean squares around 5 are 17, 1, 17."""
    result = bland_altman(list("aabbcc"), [0, 2, 4, 6, 8, 10], np.zeros(6))
    assert (result["bias"], result["sd"]) == (5, pytest.approx(np.sqrt(35 / 3 + 16 / 3)))


def test_the_bias_counts_subjects_not_changes():
    result = bland_altman(list("aaab"), [1, 3, 5, 11], np.zeros(4))
    assert result["bias"] == (3 + 11) / 2
    assert result["bias_interval"] == mean_interval([3.0, 11.0])
    assert result["sd"] == pytest.approx(np.sqrt(((36 + 16 + 4) / 3 + 16) / 2 + 32 / 2))


@pytest.mark.parametrize("scans", [2, 3, 6])
def test_the_sd_is_right_although_changes_share_a_scan(scans):
    """Volumes with independent errors of SD 1: a change has the SD sqrt(2), however many scans a subject has."""
    generator = np.random.default_rng(scans)
    subjects = np.repeat(np.arange(6), scans - 1)
    squares = [
        bland_altman(subjects, np.diff(generator.normal(0, 1, (6, scans))).ravel(), np.zeros(len(subjects)))["sd"] ** 2
        for _ in range(1500)
    ]
    assert np.mean(squares) == pytest.approx(2, abs=4 * np.std(squares) / np.sqrt(1500))


def test_the_intervals_of_limits_are_exact_for_one_change_of_each_subject():
    """The interval of bias + 1.96 SD by the noncentral t distribution, from scipy.stats (Carkeet 2015)."""
    errors = np.random.default_rng(3).normal(1, 2, 9)
    (_, (low, high)) = bland_altman(list("abcdefghi"), errors, np.zeros(9))["limits_intervals"]
    mean, error = errors.mean(), errors.std(ddof=1) / 3
    quantiles = stats.nct.ppf([0.025, 0.975], 8, 1.96 * 3)
    assert [low, high] == pytest.approx((mean + quantiles * error).tolist())


@pytest.mark.parametrize(("number", "scans"), [(5, 2), (10, 2), (5, 4), (10, 4)])
def test_the_intervals_of_limits_cover_the_limits(number, scans):
    """Errors of volumes with a part of each subject, which grows with time, and one of each scan."""
    generator = np.random.default_rng(number + scans)
    subjects = np.repeat(np.arange(number), scans - 1)
    covered = 0
    for _ in range(500):
        drift = generator.normal(0, 1, (number, 1)) * np.arange(scans)
        errors = np.diff(drift + generator.normal(0, 1, (number, scans))).ravel()
        (_, (low, high)) = bland_altman(subjects, errors, np.zeros(len(errors)))["limits_intervals"]
        covered += low <= 1.96 * np.sqrt(3) <= high
    assert covered > stats.binom.ppf(0.001, 500, 0.95)


def test_equal_errors_leave_no_doubt_of_the_limits():
    result = bland_altman(list("ab"), [2.0, 2.0], [0.0, 0.0])
    assert (result["sd"], result["limits_intervals"]) == (0, [[2, 2], [2, 2]])


@pytest.mark.parametrize(("errors", "bias"), [([], None), ([2.0], 2.0), ([2.0, 4.0], 3.0)])
def test_one_subject_has_no_limits(errors, bias):
    result = bland_altman(["a"] * len(errors), errors, [0.0] * len(errors))
    assert result["bias"] == bias
    assert {result[name] for name in ("bias_interval", "sd", "limits", "limits_intervals")} == {None}


def test_the_interval_of_a_correlation_covers_it():
    """Two changes of each of eight subjects, with a part that both share; r = 0.8."""
    generator = np.random.default_rng(5)
    subjects, covered = np.repeat(np.arange(8), 2), 0
    mixed = np.linalg.cholesky([[1, 0.8], [0.8, 1]])
    for _ in range(400):
        of_subject, of_change = generator.normal(size=(8, 1, 2)), generator.normal(size=(8, 2, 2))
        found, true = ((of_subject + of_change) @ mixed.T).reshape(-1, 2).T
        low, high = correlation(subjects, found, true)["interval"]
        covered += low <= 0.8 <= high
    assert covered / 400 > 0.9


def test_a_calibration_slope_is_that_of_regression_through_0():
    generator = np.random.default_rng(6)
    d = generator.normal(0, 2, 20)
    r = 0.7 * d + generator.normal(0, 0.1, 20)
    result = calibration_slope(np.repeat(np.arange(10), 2), d, r)
    assert result["slope"] == pytest.approx(np.linalg.lstsq(d[:, None], r)[0][0])


def test_the_interval_of_a_calibration_slope_covers_it():
    generator = np.random.default_rng(7)
    subjects, covered = np.repeat(np.arange(8), 2), 0
    for _ in range(400):
        d = generator.normal(1, 2, 16)
        r = 0.7 * d + np.repeat(generator.normal(0, 0.3, 8), 2) + generator.normal(0, 0.3, 16)
        low, high = calibration_slope(subjects, d, r)["interval"]
        # the mean of d is 1 and that of r 0.7, so a part that a subject's changes share has no bias
        covered += low <= 0.7 <= high
    assert covered / 400 > 0.92


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_changes_of_half_the_size_have_a_calibration_slope_of_2(factor):
    true = np.array([1.0, -2.0, 3.0])
    assert calibration_slope(list("abc"), factor * true, true) == {"slope": 1 / factor, "interval": [1 / factor] * 2}


def test_no_predicted_change_no_calibration():
    assert calibration_slope(list("abc"), [0.0] * 3, [1.0, 2.0, 3.0]) == {"slope": None, "interval": None}


def test_a_week_does_not_count_like_a_year():
    """An error of 0.5 ml is 26 ml a year over 7 days, and 0.5 over a year: the mean is that of one common slope."""
    week, year = [0.0, 7 / 365], [0.0, 1.0]
    rows = [
        {"subject": "a", **trajectory(week, [10.0, 10.5], [10.0, 10.0])},
        {"subject": "b", **trajectory(year, [10.0, 10.5], [10.0, 10.0])},
    ]
    assert rows[0]["slope_error"] == pytest.approx(26.07, abs=0.01)
    result = summarise_trajectories(rows, [])
    centred = np.concatenate([np.array(times) - np.mean(times) for times in (week, year)])
    common = np.linalg.lstsq(centred[:, None], np.array([-0.25, 0.25] * 2))[0][0]
    assert result["slope_error"]["mean"] == pytest.approx(common) and common < 0.51
    assert result["slope_error"]["median"] == pytest.approx((26.07 + 0.5) / 2, abs=0.01)


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
