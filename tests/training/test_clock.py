import time
from dataclasses import replace

import pytest

from longflow.errors import DataError
from longflow.stop import Stopped
from longflow.training import clock
from longflow.training.clock import Pace, Share, now, results_in_time, writes_tables


def worked_on(monkeypatch, seconds, **pace):
    """Work on items that take so many seconds each; return the items and the pace."""
    passed = [0.0]
    monkeypatch.setattr(clock, "now", lambda: passed[0])
    done = []

    def work(item):
        passed[0] += seconds[item]
        done.append(item)
        return -item

    with Pace(**pace) as result:
        assert results_in_time(work, range(len(seconds))) == [-item for item in done]
        done.append("end")
    return done, result


def test_without_a_pace_all_items_are_taken():
    assert results_in_time(str, [3, 1, 2]) == ["3", "1", "2"] and writes_tables()
    assert abs(now() - time.monotonic()) < 60


def test_all_items_or_so_many(monkeypatch):
    seen = []
    done, pace = worked_on(monkeypatch, [1, 2, 3], show=lambda *shown: seen.append(shown))
    assert done == [0, 1, 2, "end"] and seen == [(1, 3), (2, 3), (3, 3)]
    assert (pace.of, pace.done, pace.seconds, pace.last_item, pace.shortened) == (3, 3, 6, 3, False)
    done, pace = worked_on(monkeypatch, [1] * 6, most=3)
    assert done == [0, 2, 5, "end"] and pace.shortened
    assert worked_on(monkeypatch, [1] * 6, most=0)[0] == [0, "end"]
    assert results_in_time(str.upper, "ab") == ["A", "B"]  # the pace ended with its block


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


def test_a_signal_ends_the_work_between_two_items(monkeypatch):
    seen = []
    with pytest.raises(Stopped), Pace(stopped=lambda: len(seen) == 2):
        results_in_time(seen.append, range(5))
    assert seen == [0, 1]


class Others:
    """Process ``index`` of several, whose counterparts did the same work on their own shares."""

    def __init__(self, index, count, work, items):
        self.index, self.count, self.first = index, count, index == 0
        self.work, self.items = work, items
        self.changed = {}

    def gather(self, share):
        shares = []
        for index in range(self.count):
            positions = list(range(index, len(self.items), self.count))
            other = Share(positions, [self.work(self.items[position]) for position in positions], last_item=index + 1.0)
            shares.append(share if index == self.index else replace(other, **self.changed.get(index, {})))
        return shares


def test_each_process_does_its_share_and_gets_all_results():
    done, shown = [], []
    others = Others(1, 3, str, range(8))
    with Pace(processes=others, show=lambda *given: shown.append(given)) as pace:
        assert results_in_time(lambda item: done.append(item) or str(item), range(8)) == list(map(str, range(8)))
        assert not writes_tables()
    assert done == [1, 4, 7] and shown == [(2, 8), (5, 8), (8, 8)]
    assert (pace.done, pace.last_item, pace.shortened) == (8, 3.0, False)
    assert pace.expected == 3.0 * 3  # the slowest process does three of the eight


def test_more_processes_than_items():
    with Pace(processes=Others(4, 5, str, "ab")):
        assert results_in_time(str, "ab") == ["a", "b"]


def test_an_error_or_a_signal_in_one_process_ends_the_work_of_all():
    others = Others(0, 2, str, range(4))
    others.changed = {1: {"error": DataError("of the other"), "results": []}}
    with pytest.raises(DataError, match="of the other"), Pace(processes=others):
        results_in_time(str, range(4))
    others.changed = {1: {"stopped": True, "results": []}}
    with pytest.raises(Stopped), Pace(processes=others):
        results_in_time(str, range(4))
    others.changed = {}

    def fail(item):
        raise OSError(f"item {item}")

    with pytest.raises(OSError, match="item 0"), Pace(processes=others):
        results_in_time(fail, range(4))


def test_a_probe_of_several_processes_takes_two_items_in_each():
    done = []
    with Pace(probe=True, processes=Others(1, 2, str, range(4))):
        results_in_time(done.append, range(9))
    assert done == [3, 8]
