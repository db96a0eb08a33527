"""The time of a run: the one clock that training reads, and the pace of a validation within a time budget."""

import math
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from longflow.distributed import ALONE, Processes, portable
from longflow.spread import evenly_spaced
from longflow.stop import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

#: a probe takes this many items in each process: the first one loads what the others find in memory
PROBED = 2


def now() -> float:
    """Return the seconds of a clock that only runs forwards."""
    return time.monotonic()


class ProbeEnds(Exception):
    """A probe has measured enough; :class:`Pace` catches it."""


@dataclass
class Pace:
    """Which items of a validation are worked on, and how long they take; in force within a ``with`` block.

    :param most: number of items at most, evenly spaced; None: all of them.
    :param until: time of the clock at which no further item is begun that would end later; the first one always is.
    :param probe: measure a few items, then break off.
    :param show: called before each item with its number, from 1, and how many there will be.
    :param processes: among which the items are shared out.
    :param stopped: tells before each item whether the work is to be stopped.
    :ivar of: number of items that there are.
    :ivar done: number of items that were worked on, in all processes.
    :ivar seconds: of the whole block.
    :ivar last_item: seconds of the last item, in the slowest process.
    """

    most: int | None = None
    until: float = math.inf
    probe: bool = False
    show: Callable[[int, int], None] = lambda number, of: None
    processes: Processes = ALONE
    stopped: Callable[[], bool] = lambda: False
    of: int = 0
    done: int = 0
    seconds: float = 0.0
    last_item: float = 0.0

    def __enter__(self) -> "Pace":
        self._begun, self._token = now(), _current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        _current.reset(self._token)
        self.seconds = now() - self._begun
        return kind is ProbeEnds

    def results(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Work on the items that there is time for, each in one of the processes; see :func:`results_in_time`.

        :raises Stopped: a process was told to stop.
        """
        self.of, self.done = len(items), 0
        count = self.processes.count
        most = PROBED * count if self.probe else len(items) if self.most is None else max(1, self.most)
        positions = evenly_spaced(self.of, most)
        share = Share(positions[self.processes.index :: count])
        try:
            self._work_on(share, work, items, len(positions))
        except Exception as error:
            if count == 1:
                raise
            share.error = portable(error, self.processes.index)  # the others wait for this share
        shares = self.processes.gather(share)
        self.done = sum(len(one.results) for one in shares)
        self.last_item = max(one.last_item for one in shares)
        if error := next((one.error for one in shares if one.error), None):
            raise error
        if any(one.stopped for one in shares):
            raise Stopped
        if self.probe:
            raise ProbeEnds
        results: dict[int, Result] = {}
        for one in shares:
            results.update(zip(one.positions, one.results, strict=False))  # the last ones may be missing
        return [results[position] for position in sorted(results)]

    def _work_on(self, share: "Share", work: Callable[[Item], Result], items: Sequence[Item], of: int) -> None:
        """Work on the share of this process, as long as there is time."""
        for number, position in enumerate(share.positions):
            begun = now()
            share.stopped = self.stopped()
            if share.stopped or (number and begun + share.last_item > self.until):
                return
            self.show(number * self.processes.count + self.processes.index + 1, of)
            share.results.append(work(items[position]))
            share.last_item = now() - begun

    @property
    def shortened(self) -> bool:
        """Whether items were left out."""
        return self.done < self.of

    @property
    def expected(self) -> float:
        """The seconds that all items take, judged by the last one; a validation that takes no items was measured."""
        return self.last_item * math.ceil(self.of / self.processes.count) if self.of else self.seconds


@dataclass
class Share:
    """What one process does of a validation.

    :param positions: of its items.
    :param results: of the first ones of them.
    :param last_item: seconds of its last item.
    :param stopped: whether it was told to stop.
    :param error: that ended its work.
    """

    positions: list[int]
    results: list = field(default_factory=list)
    last_item: float = 0.0
    stopped: bool = False
    error: Exception | None = None


_current: ContextVar[Pace | None] = ContextVar("pace", default=None)


def results_in_time(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Work on the items of a validation: on all of them, or on those that a time budget leaves time for.

    A validation that works on its items by this function can be shortened and stopped, is shown item by item, and is
    shared out over the processes of a run. All of them get all results.

    :param work: makes the result of an item. In several processes pickle writes it, and each process sees some of the
        items only.
    :param items: scans, targets or pairs.
    :returns: the results, in the order of the items.
    """
    pace = _current.get()
    return [work(item) for item in items] if pace is None else pace.results(work, items)


def writes_tables() -> bool:
    """Tell whether this process writes what belongs to all items of a validation: the first one, or the only one."""
    pace = _current.get()
    return pace is None or pace.processes.first
