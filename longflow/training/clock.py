"""The time of a run: the one clock that training reads, and the pace of a validation within a time budget."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from longflow.training.validation import evenly_spaced

Item = TypeVar("Item")

#: a probe takes this many items: the first one loads what the others find in memory
PROBED = 2


def now() -> float:
    """Return the seconds of a clock that only runs forwards."""
    return time.monotonic()


class ProbeEnds(Exception):
    """A probe has measured enough; :class:`Pace` catches it."""


@dataclass
class Pace:
    """How many items of a validation are worked on, and how long they took; in force within a ``with`` block.

    :param most: number of items at most, evenly spaced; None: all of them.
    :param until: time of the clock at which no further item is begun that would end later; the first one always is.
    :param probe: measure a few items, then break off.
    :param show: called before each item with its number, from 1, and how many there will be.
    :ivar of: number of items that there are.
    :ivar done: number of items that were worked on.
    :ivar seconds: of the whole block.
    :ivar last_item: seconds of the last item.
    """

    most: int | None = None
    until: float = math.inf
    probe: bool = False
    show: Callable[[int, int], None] = lambda number, of: None
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

    def take(self, items: Sequence[Item]) -> Iterator[Item]:
        """Yield the items that there is time for."""
        self.of = len(items)
        most = PROBED if self.probe else len(items) if self.most is None else max(1, self.most)
        positions = evenly_spaced(self.of, most)
        for position in positions:
            begun = now()
            if self.done and begun + self.last_item > self.until:
                break
            self.show(self.done + 1, len(positions))
            yield items[position]
            self.last_item = now() - begun
            self.done += 1
        if self.probe:
            raise ProbeEnds

    @property
    def shortened(self) -> bool:
        """Whether items were left out."""
        return self.done < self.of

    @property
    def expected(self) -> float:
        """The seconds that all items take, judged by the last one; a validation that takes no items was measured."""
        return self.last_item * self.of if self.of else self.seconds


_current: ContextVar[Pace | None] = ContextVar("pace", default=None)


def in_time(items: Sequence[Item]) -> Iterator[Item]:
    """Yield the items of a validation: all of them, or those that a time budget leaves time for.

    A validation that iterates over its items with this function can be shortened, and is shown item by item.

    :param items: scans, targets or pairs.
    :returns: the items to work on, in their order.
    """
    pace = _current.get()
    return iter(items) if pace is None else pace.take(items)
