"""Which samples training draws. The sample of an iteration depends on the seed and its number alone."""

from collections.abc import Iterator

from torch.utils.data import DataLoader, Dataset, Sampler


class Numbers(Sampler[int]):
    """first, first + step, first + 2 step ... without an end: the batches of one process of a run."""

    def __init__(self, first: int, step: int):
        self.first, self.step = first, step

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += self.step


def training_loader(samples: Dataset, first: int, step: int, workers: int, pin: bool) -> DataLoader:
    """An endless loader of the batches ``first``, ``first + step``, ...; the result does not depend on ``workers``."""
    return DataLoader(
        samples,
        batch_size=None,
        sampler=Numbers(first, step),
        num_workers=workers,
        pin_memory=pin,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
    )
