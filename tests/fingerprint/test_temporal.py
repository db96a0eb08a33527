from longflow.data.dataset import Scan, Series
from longflow.fingerprint.temporal import Distribution, relative_times, temporal_fingerprint


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
