import math

import numpy as np
import pytest

from longflow.errors import DataError
from longflow.evaluation.horizon_intervals import (
    ForecastError,
    HorizonIntervals,
    Scale,
    calibrate_by_horizon,
    fit_scale,
    horizon_groups,
    scales_of_folds,
)


def errors_of(sizes, horizons=None, folds=5):
    horizons = horizons or [1.0] * len(sizes)
    return [
        ForecastError(f"s{index:03}", index % folds, horizon, size)
        for index, (size, horizon) in enumerate(zip(sizes, horizons, strict=True))
    ]


def test_the_scale_is_the_line_that_errors_are_on():
    scale = fit_scale(errors_of([-3.0, 5.0, 7.0, -9.0], [1.0, 2.0, 3.0, 4.0]), 0.001)
    assert (scale.at_zero, scale.per_time_unit) == pytest.approx((1, 2))
    assert scale.at(10) == pytest.approx(21)


def test_a_scale_does_not_fall_with_the_horizon_and_is_never_below_the_smallest():
    falling = fit_scale(errors_of([4.0, 2.0], [1.0, 2.0]), 0.001)
    assert (falling.at_zero, falling.per_time_unit) == pytest.approx((3, 0))
    assert fit_scale(errors_of([0.0, 0.0]), 0.5).at(100) == 0.5


def test_each_subject_has_the_same_weight_in_the_scale():
    errors = [ForecastError("a", 0, 1.0, 1.0)] * 9 + [ForecastError("b", 0, 1.0, 3.0)]
    assert fit_scale(errors, 0.001).at(1) == pytest.approx(2)


def test_a_fold_has_the_scale_of_the_others():
    errors = errors_of([1.0, 2.0, 9.0], folds=3)
    scales = scales_of_folds(errors, 0.001)
    assert [scales[fold].at(1) for fold in range(3)] == pytest.approx([5.5, 5, 1.5])
    # a subject that two folds validate takes part in the scale of neither
    errors.append(ForecastError("s000", 1, 1.0, 7.0))
    assert scales_of_folds(errors, 0.001)[1].at(1) == pytest.approx(9)


def test_a_single_fold_has_a_constant_scale():
    found = calibrate_by_horizon(errors_of([1.0, 2.0, 3.0], folds=1), 0.75, 0.5)
    assert found.scale == Scale(0.5, 0, 0.5)
    assert found.interval(10, 1) == pytest.approx((7, 13))


def test_the_interval_is_the_conformal_one():
    """With equal sizes of errors all scales are 2, and the k-th score is 1 for every k."""
    found = calibrate_by_horizon(errors_of([2.0, -2.0] * 5), 0.9, 0.001)
    assert found.interval(10, 1) == pytest.approx((8, 12))
    assert found.interval(1, 1) == pytest.approx((0, 3))  # no volume is below 0
    assert found.sample(10, 1) == pytest.approx([8] * 10 + [12] * 10)


def test_horizons_outside_of_the_calibration_have_none():
    found = calibrate_by_horizon(errors_of([1.0] * 10, [30.0] * 5 + [60.0] * 5), 0.5, 0.001)
    assert found.interval(10, 29) is found.interval(10, 61) is found.sample(10, 61) is None
    assert found.interval(10, 45) and found.interval(10, 30 * (1 - 1e-12)) and found.interval(10, 60 * (1 + 1e-12))


def test_groups_have_enough_subjects():
    errors = errors_of([1.0] * 40, [float(index % 4 + 1) for index in range(40)])
    assert horizon_groups(errors, 10) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert horizon_groups(errors, 11) == horizon_groups(errors, 20) == [(1, 2), (3, 4)]
    assert horizon_groups(errors, 41) == [(1, 4)]
    twice = [*errors, *errors]
    assert horizon_groups(twice, 20) == [(1, 2), (3, 4)]  # subjects are counted


def test_a_group_has_its_own_factor_where_the_line_does_not_fit():
    """No error at the short horizon: the line cannot be below 0 at zero, so it is too high there."""
    errors = errors_of([0.1, 0.1, 3.0, 3.0] * 10, [1.0, 1.0, 2.0, 2.0] * 10)
    found = calibrate_by_horizon(errors, 0.9, 0.001)
    short, long = (found.interval(10, horizon) for horizon in (1, 2))
    assert short == pytest.approx((9.9, 10.1), abs=0.02) and long == pytest.approx((7, 13), abs=0.2)


def test_too_few_subjects():
    with pytest.raises(DataError, match=r"8 subjects cannot give intervals of 90%: that needs 9"):
        calibrate_by_horizon(errors_of([1.0] * 8), 0.9, 0.001)


def test_an_error_that_is_not_a_number():
    with pytest.raises(DataError, match="error of s000 is nan"):
        calibrate_by_horizon(errors_of([math.nan] + [1.0] * 9, folds=1), 0.5, 0.001)


def test_a_record_is_read_back():
    found = calibrate_by_horizon(errors_of([1.0, 2.0, 3.0, 5.0] * 5), 0.8, 0.001)
    assert HorizonIntervals.of_record(found.record()) == found


@pytest.mark.parametrize(
    "change",
    [
        {"level": 1.5},
        {"level": None},
        {"groups": []},
        {"scale": {"at_zero": 1.0}},
        {"groups": [{"shortest": 1.0, "longest": 2.0, "scores": ["x"], "factor": 1.0}]},
        {"groups": [{"shortest": 1.0, "longest": 2.0, "scores": [1.0], "factor": math.inf}]},
        {"groups": [{"shortest": 1.0, "longest": 2.0, "scores": [1.0], "factor": -1.0}]},
    ],
)
def test_a_record_that_was_changed(change):
    record = calibrate_by_horizon(errors_of([1.0] * 4), 0.5, 0.001).record()
    with pytest.raises(DataError, match="no intervals as longflow_calibrate writes them"):
        HorizonIntervals.of_record({**record, **change})


def cohort(generator, subjects, heavy):
    """Errors that grow with the horizon, in a way that is no line: sqrt(1 + 3 h^2) x noise."""
    horizons = generator.uniform(0.5, 4, subjects)
    noise = generator.standard_t(3, subjects) if heavy else generator.normal(size=subjects)
    return errors_of(list(noise * np.sqrt(1 + 3 * horizons**2)), list(horizons))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize(("subjects", "heavy"), [(12, False), (40, True), (80, False)])
def test_coverage_of_200_cohorts_is_nominal(level, subjects, heavy):
    """By groups of horizons, too. Coverage is k / (n + 1) of a group of n: at least the level, and little above."""
    generator = np.random.default_rng(1)
    covered = {"short": [], "long": []}
    for _ in range(200):
        found = calibrate_by_horizon(cohort(generator, subjects, heavy), level, 1e-6)
        for one in cohort(generator, 40, heavy):
            limits = found.interval(1000.0, one.horizon)
            if limits is not None:
                own = "short" if one.horizon < 2 else "long"
                covered[own].append(limits[0] <= 1000 + one.error <= limits[1])
    shares = {name: np.mean(values) for name, values in covered.items()}
    # 200 cohorts: the coverage of one varies by sqrt(level (1 - level) / n)
    smallest_group = min(subjects, 2 * level / (1 - level))
    error = 4 * np.sqrt(level * (1 - level) / smallest_group / 200)
    for share in shares.values():
        assert level - error <= share <= level + error + 1 / (smallest_group + 1)
