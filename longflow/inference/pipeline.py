"""Overlap the steps of many predictions: the next one is read and the one before is written while one is made."""

import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Given = TypeVar("Given")
Made = TypeVar("Made")


def overlapped(
    items: Sequence[Item],
    read: Callable[[Item], Given],
    make: Callable[[Item, Given], Made],
    write: Callable[[Item, Made], None],
    begin: Callable[[Item], None] = lambda item: None,
    alone: Callable[[Item], bool] = lambda item: False,
) -> list[Exception | None]:
    """Read, make and write each item, in order; a failure of one costs no other.

    Items are made in the thread of the caller. Another thread reads one item ahead, a third one writes one behind. In
    memory are what was read for two items and what was made of two, however many there are. Where the caller is
    interrupted, the steps that have begun are finished.

    :param items: what to work on.
    :param read: the first step.
    :param make: the second one, with what was read.
    :param write: the last one, with what was made.
    :param begin: called before an item is made, in the thread of the caller.
    :param alone: whether an item is too large to be in memory with another: no other one is read or written meanwhile.
    :returns: for each item None, or the error of the step that failed.
    """
    errors: list[Exception | None] = [None] * len(items)

    def write_behind(number: int, made: Made) -> None:
        try:
            write(items[number], made)
        except Exception as error:
            errors[number] = _without_variables(error)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: list[Future[Given]] = []
        behind: Future[None] = writer.submit(lambda: None)
        for number, item in enumerate(items):
            begin(item)
            if alone(item):
                behind.result()
            given = ahead.pop() if ahead else reader.submit(read, item)
            following = [] if alone(item) else items[number + 1 : number + 2]
            ahead = [reader.submit(read, one) for one in following if not alone(one)]
            try:
                made = make(item, given.result())
            except Exception as error:
                errors[number] = _without_variables(error)
                continue
            behind.result()
            behind = writer.submit(write_behind, number, made)
            del given, made  # what was read for a large item, and made of it, is freed
    return errors


def _without_variables(error: Exception) -> Exception:
    """Free the memory that an error holds on to: the variables of the functions in its traceback."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    return error
