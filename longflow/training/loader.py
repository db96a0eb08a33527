"""Load the batches of a training. A batch depends on the seed and its number alone."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from longflow.methods.batches import OnDevice
from longflow.parallel import start_server


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


def training_batches(samples: Dataset, first: int, step: int, workers: int, device: torch.device) -> Iterator[OnDevice]:
    """Yield the batches ``first``, ``first + step``, ... on the device, without end.

    On a GPU, samples that can defer their augmentation leave it to the GPU (``defer_augmentation``).

    :param samples: gives the batch of each number.
    :param first: number of the first batch.
    :param step: number of processes of the run.
    :param workers: processes that prepare batches; 0: this process.
    :param device: of the training.
    :returns: the batches.
    """
    on_gpu = device.type == "cuda"
    finish = samples.defer_augmentation() if on_gpu and hasattr(samples, "defer_augmentation") else None
    loader = training_loader(samples, first, step, workers, pin=on_gpu)
    return ahead_on_gpu(loader, device, finish) if on_gpu else (batch.to(device) for batch in loader)


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
        multiprocessing_context=start_server(type(samples).__module__) if workers else None,
        persistent_workers=workers > 0,
    )


def ahead_on_gpu(
    batches: Iterable[OnDevice], device: torch.device, finish: Callable[[OnDevice], OnDevice] | None
) -> Iterator[OnDevice]:
    """Yield batches that are copied and augmented while the GPU computes the step before.

    :param batches: in pinned memory.
    :param device: a GPU.
    :param finish: augments a batch on the GPU.
    :returns: batches which the device's present stream may use.
    """
    copies, steps = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            moved = batch.to(device)
            ready = finish(moved) if finish else moved
        steps.wait_stream(copies)
        ready.used_by(steps)
        yield ready
