"""Load the batches of a training. A batch depends on the seed and its number alone."""

from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from longflow.methods.batches import OnDevice
from longflow.parallel import worker_context


class Numbers(Sampler[int]):
    """Numbers of the batches of one process of a run: first, first + step, first + 2 step, ... without end.

    :param first: first number.
    :param step: number of processes.
    """

    def __init__(self, first: int, step: int):
        self.first, self.step = first, step

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += self.step


def training_loader(samples: Dataset, first: int, step: int, workers: int, pin: bool) -> DataLoader:
    """Make an endless loader of the batches ``first``, ``first + step``, ...; they do not depend on ``workers``.

    :param samples: gives the batch of each number.
    :param first: number of the first batch.
    :param step: number of processes of the run.
    :param workers: processes that prepare batches; 0: this process.
    :param pin: pin memory, for a GPU.
    :returns: the loader.
    """
    return DataLoader(
        samples,
        batch_size=None,
        sampler=Numbers(first, step),
        num_workers=workers,
        pin_memory=pin,
        multiprocessing_context=worker_context(type(samples).__module__) if workers else None,
        persistent_workers=workers > 0,
    )


def on_device(batches: Iterable[OnDevice], device: torch.device) -> Iterator[OnDevice]:
    """Yield batches on the device. A GPU copies a batch while it computes the step before.

    :param batches: on the host; pinned for a GPU.
    :param device: of the training.
    :returns: the batches, which the device's present stream may use.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copies, steps = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            copied = batch.to(device)
        steps.wait_stream(copies)
        copied.used_by(steps)
        yield copied
