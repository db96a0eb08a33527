import time

import pytest

from longflow.training import clock
from longflow.training.clock import Pace, in_time, now


def worked_on(monkeypatch, seconds, **pace):
    """Work on items that take so many seconds each; return the items and the pace."""
    passed = [0.0]
    monkeypatch.setattr(clock, "now", lambda: passed[0])
    done = []
    with Pace(**pace) as result:
        for item in in_time(range(len(seconds))):
            passed[0] += seconds[item]
            done.append(item)
        done.append("end")
    return done, result


def test_without_a_pace_all_items_are_taken():
    assert list(in_time([3, 1, 2])) == [3, 1, 2]
    assert abs(now() - time.monotonic()) < 60


def test_all_items_or_so_many(monkeypatch):
    seen = []
    done, pace = worked_on(monkeypatch, [1, 2, 3], show=lambda *shown: seen.append(shown))
    assert done == [0, 1, 2, "end"] and seen == [(1, 3), (2, 3), (3, 3)]
    assert (pace.of, pace.done, pace.seconds, pace.last_item, pace.shortened) == (3, 3, 6, 3, False)
    done, pace = worked_on(monkeypatch, [1] * 6, most=3)
    assert done == [0, 2, 5, "end"] and pace.shortened
    assert worked_on(monkeypatch, [1] * 6, most=0)[0] == [0, "end"]
    assert list(in_time("ab")) == ["a", "b"]  # the pace ended with its block


def test_no_item_is_begun_that_would_end_too_late(monkeypatch):
    done, pace = worked_on(monkeypatch, [2] * 6, until=7.0)
    assert done == [0, 1, 2, "end"] and pace.shortened
    assert worked_on(monkeypatch, [9, 1], until=7.0)[0] == [0, "end"]  # one is always worked on


def test_a_probe_measures_and_breaks_off(monkeypatch):
    done, pace = worked_on(monkeypatch, [5, 1, 1, 1, 2], probe=True)
    assert done == [0, 4] and pace.expected == 2 * 5  # the first one is slower for reasons of its own
    done, pace = worked_on(monkeypatch, [5, 1, 1], probe=True, until=6.0)
    assert done == [0] and pace.expected == 5 * 3
    done, pace = worked_on(monkeypatch, [5], probe=True)
    assert done == [0] and pace.expected == 5


def test_a_validation_that_takes_no_items_is_measured_as_a_whole(monkeypatch):
    times = iter([1.0, 4.0])
    monkeypatch.setattr(clock, "now", lambda: next(times))
    with Pace(probe=True) as pace:
        pass
    assert pace.expected == 3 and not pace.shortened


def test_errors_pass_through(monkeypatch):
    with pytest.raises(ValueError, match="mine"), Pace():
        raise ValueError("mine")
