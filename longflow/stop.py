"""End in order on a signal: Ctrl-C, SIGTERM, and the warnings SIGUSR1 and SIGUSR2 that Slurm sends before a time limit.

Slurm sends them to every process of a job step. The main process of a command handles them. The processes that it
starts are shielded (:func:`shielded_children`): without a handler a warning would kill them. SIGCONT, which comes
before SIGTERM, needs no handler.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

#: warnings of a batch system; Windows has none
WARNINGS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
#: signals that end the work
STOPPING = (signal.SIGINT, signal.SIGTERM, *WARNINGS)


class Stopped(KeyboardInterrupt):
    """The work was stopped by a signal; what is finished is saved."""


class StopSignal:
    """A flag that the signals set within the block; the loop reads it between two steps.

    Batch systems repeat themselves: a warning, then SIGTERM. Only a second Ctrl-C ends the process at once.

    :ivar received: whether a signal has come.
    """

    def __init__(self):
        self.received = False
        self._interrupted = False

    def __enter__(self) -> "StopSignal":
        self._handled = _handled_by(self._receive, STOPPING)
        self._handled.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handled.__exit__(None, None, None)

    def _receive(self, number: int, *_: object) -> None:
        if number == signal.SIGINT and self._interrupted:
            os._exit(130)
        self._interrupted |= number == signal.SIGINT
        if not self.received:
            self.received = True
            logger.warning(
                "Stopping after this step (%s); the state will be saved. (Ctrl-C twice: stop at once, without saving.)",
                signal.Signals(number).name,
            )


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise :class:`Stopped` in the main thread on SIGTERM or a warning, as Ctrl-C raises KeyboardInterrupt.

    Only the first one counts: the next ones would interrupt the saving. Once the work is stopped, they are ignored
    until the process has ended, whose exit code they would change. An inner :class:`StopSignal` has precedence.
    """
    came = False

    def stop(*_: object) -> None:
        nonlocal came
        if not came:
            came = True
            raise Stopped

    with _handled_by(stop, (signal.SIGTERM, *WARNINGS), ignored_after=lambda: came):
        try:
            yield
        except KeyboardInterrupt:
            came = True  # an inner flag may have received the first one
            raise


@contextmanager
def shielded_children() -> Iterator[None]:
    """Let the processes that this thread starts in the block never receive the signals, except SIGKILL.

    They inherit that the signals are blocked. A signal to this process is handled at the end of the block, or at once
    where another thread receives it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled_by(
    handler: Callable[..., None], numbers: tuple[int, ...], ignored_after: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Handle signals in the block, those that came while a parent had them blocked included.

    Python handles signals in the main thread only; in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        yield
    finally:
        for number, earlier in before.items():
            last = signal.SIG_DFL if earlier is None else earlier  # None: a handler that is not Python's
            signal.signal(number, signal.SIG_IGN if ignored_after() else last)
