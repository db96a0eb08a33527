"""Refuse a loss that is not a finite number, without waiting for the device that computes it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from longflow.errors import DataError


class FiniteCheck:
    """Check the loss of each iteration; on a GPU, where it is still to be computed, one iteration late.

    There the loss is copied behind the work that is queued, and read when the next one is given. While the host waits
    for it, the GPU has a whole step to do.
    """

    def __init__(self):
        self._queued: tuple[Callable[[], float], int] | None = None

    def add(self, loss: Tensor, iteration: int) -> None:
        """Check a loss, or on a GPU that of the iteration before.

        :param loss: a scalar.
        :param iteration: number of earlier updates.
        :raises DataError: the checked loss is not a finite number.
        """
        self.read()
        self._queued = queue_copy(loss.detach()), iteration
        if not computes_later(loss.device):
            self.read()

    def read(self) -> None:
        """Check the loss that was given last, before anything that depends on it is written.

        :raises DataError: it is not a finite number.
        """
        if self._queued is None:
            return
        arrived, iteration = self._queued
        self._queued = None
        value = arrived()
        if not math.isfinite(value):
            raise DataError(
                f"The loss became {value} at iteration {iteration}. Look for extreme intensities "
                "(longflow_verify), or train with a smaller --lr."
            )


def computes_later(device: torch.device) -> bool:
    """Tell whether a device queues its work, and the host can wait for a part of it."""
    return device.type == "cuda"


def queue_copy(value: Tensor) -> Callable[[], float]:
    """Copy a scalar to the host once it is computed.

    :param value: of one element.
    :returns: waits for the copy alone, not for work that was queued after it, and returns the number.
    """
    if value.device.type != "cuda":
        return value.item
    host = torch.empty((), dtype=value.dtype, pin_memory=True)
    host.copy_(value, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(value.device))

    def arrived() -> float:
        copied.synchronize()
        return host.item()

    return arrived
