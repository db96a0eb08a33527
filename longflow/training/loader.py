"""Which samples training draws. The sample of an iteration depends on the seed and its number alone."""

from collections.abc import Iterator
from importlib import import_module

from torch.utils.data import DataLoader, Dataset, Sampler

from longflow.errors import unknown_name
from longflow.methods.method import Method

#: what ``Method.samples`` may name: module and class, of which only the one that is used is imported. A class is made
#: of (cohort, plans, configuration, seed, augmented) and gives the batch of every number
SAMPLERS = {
    "forecast": ("longflow.tasks.forecast.samples", "ForecastSamples"),
    "labelled": ("longflow.tasks.segment.samples", "LabelledSamples"),
    "pairs": ("longflow.tasks.segment.samples", "PairSamples"),
    "labelled_pairs": ("longflow.tasks.segment.samples", "LabelledPairSamples"),
    "phases": ("longflow.tasks.translate.samples", "PhaseSamples"),
}


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


def sampler_of(method: Method | type[Method]) -> type[Dataset]:
    """The samples that a method wants."""
    if method.samples not in SAMPLERS:
        raise unknown_name("kind of samples", method.samples, SAMPLERS, hint="(The attribute 'samples' of a method.)")
    module, name = SAMPLERS[method.samples]
    return getattr(import_module(module), name)
