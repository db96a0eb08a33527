"""Turn SIGTERM and Ctrl-C into a flag."""

import logging
import os
import signal
import threading

logger = logging.getLogger(__name__)


class StopSignal:
    """A flag that SIGTERM and Ctrl-C set within the block; the loop reads it between two steps.

    The second signal ends the process at once, without saving.
    """

    def __init__(self):
        self.received = False
        self.handlers: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        # Python handles signals in the main thread only
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _receive(self, *_: object) -> None:
        if self.received:
            os._exit(130)
        self.received = True
        logger.warning("Stopping after this step; the state will be saved. (Once more: stop at once, without saving.)")
