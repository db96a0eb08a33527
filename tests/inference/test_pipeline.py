import gc
import threading
import weakref
from itertools import combinations

import pytest

from longflow.inference.pipeline import overlapped


class Noted:
    """Steps that note when they begin and end; what fails is said by (step, item)."""

    def __init__(self, fails=()):
        self.fails, self.events, self.lock = dict(fails), [], threading.Lock()

    def note(self, *event):
        with self.lock:
            self.events.append(event)

    def step(self, name, item, returned):
        self.note(name, item, threading.current_thread())
        if (name, item) in self.fails:
            raise self.fails[name, item]
        self.note(f"{name} ends", item, threading.current_thread())
        return returned

    def read(self, item):
        return self.step("read", item, f"scan {item}")

    def make(self, item, given):
        assert given == f"scan {item}"
        return self.step("make", item, f"forecast {item}")

    def write(self, item, made):
        assert made == f"forecast {item}"
        self.step("write", item, None)

    def begin(self, item):
        self.note("begin", item, threading.current_thread())

    def run(self, items):
        return overlapped(items, self.read, self.make, self.write, self.begin)

    def items_of(self, name):
        return [item for event, item, _ in self.events if event == name]

    def place(self, name, item):
        return next(place for place, event in enumerate(self.events) if event[:2] == (name, item))


@pytest.mark.parametrize("items", ["", "a", "abcdef"])
def test_every_item_takes_its_steps_in_order(items):
    noted = Noted()
    assert noted.run(items) == [None] * len(items)
    for name in ("begin", "read ends", "make ends", "write ends"):
        assert noted.items_of(name) == list(items)
    for item in items:
        assert noted.place("read ends", item) < noted.place("make", item) < noted.place("write", item)
        assert noted.place("begin", item) < noted.place("make", item)


@pytest.mark.parametrize("large", ["", "a", "c", "ab", "bd", "abcd"])
def test_no_other_item_is_worked_on_while_a_large_one_is(large):
    noted = Noted()
    steps = noted.read, noted.make, noted.write, noted.begin
    assert overlapped("abcd", *steps, alone=lambda item: item in large) == [None] * 4
    assert noted.items_of("write ends") == list("abcd")
    for item in large:
        first, last = noted.place("read", item), noted.place("make ends", item)
        assert {event[1] for event in noted.events[first:last]} == {item}


def test_items_are_made_in_the_thread_of_the_caller():
    noted = Noted()
    noted.run("abc")
    threads = {name: {thread for event, _, thread in noted.events if event == name} for name in ("make", "begin")}
    assert threads["make"] == threads["begin"] == {threading.current_thread()}


def test_the_next_item_is_read_and_the_one_before_is_written_while_one_is_made():
    """Each waits for the other two; one thread alone would wait forever."""
    together = threading.Barrier(3, timeout=20)
    meet = {("read", "c"), ("make", "b"), ("write", "a")}

    class Meeting(Noted):
        def step(self, name, item, returned):
            if (name, item) in meet:
                together.wait()
            return super().step(name, item, returned)

    noted = Meeting()
    assert noted.run("abc") == [None] * 3 and noted.items_of("write ends") == ["a", "b", "c"]


def test_no_more_than_one_item_is_read_ahead_and_one_written_behind():
    """Whichever step is slow: what was read for two items and what was made of two are in memory at most."""

    class Thing:
        pass

    for slow in ("read", "make", "write"):
        alive = {"read": weakref.WeakSet(), "make": weakref.WeakSet()}
        most = dict.fromkeys(alive, 0)

        def step(name, slow=slow, alive=alive, most=most):
            if name == slow:
                threading.Event().wait(0.01)
            for kind, things in alive.items():
                most[kind] = max(most[kind], len(things))
            thing = Thing()
            if name in alive:
                alive[name].add(thing)
            return thing

        errors = overlapped(
            range(8), lambda item: step("read"), lambda item, given: step("make"), lambda item, made: step("write")
        )
        assert errors == [None] * 8 and most["read"] <= 2 and most["make"] <= 2


@pytest.mark.parametrize("names", [*combinations(("read", "make", "write"), 1), ("read", "make", "write")])
def test_a_failure_costs_no_other_item(names):
    fails = {(name, item): ValueError(f"{name} {item}") for name, item in zip(names, "bcd", strict=False)}
    noted = Noted(fails)
    failed = {item: error for (_, item), error in fails.items()}
    assert noted.run("abcdef") == [failed.get(item) for item in "abcdef"]
    assert noted.items_of("write ends") == [item for item in "abcdef" if item not in failed]
    assert noted.items_of("begin") == list("abcdef")


@pytest.mark.parametrize("name", ["read", "make", "write"])
def test_an_error_does_not_keep_the_memory_of_its_step(name):
    class Large:
        pass

    kept = []

    def step(which, item=None):
        thing = Large()
        if which == name:
            kept.append(weakref.ref(thing))
            try:
                raise KeyError("deep below")
            except KeyError as error:
                raise MemoryError from error
        return None

    errors = overlapped(["a"], lambda item: step("read"), lambda item, given: step("make"), lambda *_: step("write"))
    gc.collect()
    assert isinstance(errors[0], MemoryError) and kept[0]() is None


def test_an_interruption_ends_after_the_steps_that_have_begun():
    noted = Noted({("make", "b"): KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        noted.run("abcdef")
    assert noted.items_of("write ends") == ["a"] and noted.items_of("read ends") == ["a", "b", "c"]
