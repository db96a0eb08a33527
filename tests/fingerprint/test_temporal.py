import numpy as np
import pytest

from longflow.data.dataset import Scan, Series
from longflow.fingerprint.temporal import (
    Distribution,
    interval_percentiles,
    relative_times,
    temporal_fingerprint,
    weighted_percentiles,
)


def series(subject: str, *times: float) -> Series:
    return Series(subject, tuple(Scan(f"{subject}{time}", subject, time, ()) for time in times))


def test_numbers_by_hand():
    found = temporal_fingerprint([series("a", 10, 12, 16), series("b", 5), series("c", 0, 10)], "days")
    assert found.times == [[0, 2, 6], [0], [0, 10]]
    assert (found.intervals.count, found.intervals.median, found.intervals.maximum) == (3, 4, 10)
    assert (found.scans_per_subject.minimum, found.scans_per_subject.maximum) == (1, 3)
    assert (found.spans.count, found.spans.median) == (2, 8)


def test_subtraction_makes_up_no_digits():
    assert relative_times([0.1, 0.3, 0.4]) == [0, 0.2, 0.3]


def test_nothing_to_count():
    assert Distribution.of([]) == Distribution(count=0)
    assert temporal_fingerprint([series("b", 5)], "ms").intervals.median is None


def test_every_subject_weighs_the_same():
    """40 visits of one subject, two of each other."""
    often, seldom = [10.0 * visit for visit in range(40)], [0.0, 365.0]
    found = temporal_fingerprint([series("a", *often), *(series(name, *seldom) for name in "bcde")], "days").intervals
    assert (found.count, found.median, found.percentile_25, found.percentile_5) == (43, 365, 365, 10)
    assert (found.minimum, found.maximum) == (10, 365)
    # as if the intervals of every subject had been repeated to the same number
    random = np.random.default_rng(0)
    times = [np.cumsum(random.integers(1, 1000, count)) for count in (2, 3, 4, 5, 7)]
    repeated = np.sort(np.concatenate([np.repeat(np.diff(one), 12 // (len(one) - 1)) for one in times]))
    for percentile in (1, 7, 33, 50, 77, 99):  # none falls between two of the 60
        assert interval_percentiles(times, [percentile])[0] == repeated[int(percentile / 100 * 60)]


def test_subjects_with_as_many_scans_have_the_percentiles_of_numpy():
    random = np.random.default_rng(1)
    times = np.cumsum(random.exponential(100, (7, 5)), axis=1)
    percentiles = np.arange(101)
    expected = np.percentile(np.diff(times, axis=1).ravel(), percentiles)
    assert interval_percentiles(times, percentiles).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("weights", "percentile", "expected"),
    [((3, 1, 1), 50, 10), ((1, 1, 3), 50, 30), ((2, 1, 1), 50, 20), ((1, 1, 2), 50, 20), ((1, 1, 2), 100, 30)],
)
def test_weighted_percentiles_by_hand(weights, percentile, expected):
    """Half of the weight below 10 and half above: the plain median, 20, decides between 10 and 20."""
    order = [2, 0, 1]
    values, weights = np.array([10.0, 20, 30])[order], np.array(weights)[order]
    assert weighted_percentiles(values, weights, [percentile]).tolist() == [expected]
