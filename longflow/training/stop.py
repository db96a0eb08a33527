"""Being asked to stop: SIGTERM and Ctrl-C as a flag."""

import logging
import os
import signal
import threading

logger = logging.getLogger(__name__)


class StopSignal:
    """Within its block, SIGTERM and Ctrl-C are a flag that the loop reads between two steps."""

    def __init__(self):
        self.asked = False
        self.handlers: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        # Python hears signals in the main thread alone
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True
        logger.warning("Stopping after this step; the state will be saved. (Once more: stop at once, without saving.)")
