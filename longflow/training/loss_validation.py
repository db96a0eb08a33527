"""Validation by the training loss on draws from the validation subjects, the same ones every time."""

from functools import lru_cache

import torch

from longflow.errors import DataError
from longflow.methods.method import Method
from longflow.methods.registry import samples_of
from longflow.networks.precision import autocast
from longflow.paths import DatasetPaths, FoldPaths
from longflow.plans import Plans
from longflow.random_state import isolated_randomness
from longflow.training.splits import SEED, Cohort
from longflow.training.validation import Score

BATCHES = 8


class LossValidation:
    """The mean loss of ``BATCHES`` batches, augmented as in training: without, nothing would have to be denoised.

    :raises DataError: the validation subjects do not give the samples that the method wants.
    """

    def __init__(
        self,
        method: type[Method],
        dataset: DatasetPaths,
        plans: Plans,
        configuration: str,
        fold: int,
        cohort: Cohort,
        device: torch.device,
    ):
        self.device, sampler = device, samples_of(method)
        #: by whether they are augmented; made once
        self.samples = lru_cache(lambda augmented: sampler(cohort, plans, configuration, SEED, augmented))
        try:
            self.samples(True)
        except DataError as error:
            raise DataError(
                f"Fold {fold} cannot be validated: {error} Or give it other validation subjects in {dataset.splits}."
            ) from error

    @torch.no_grad()
    def score(self, method: Method) -> Score:
        """The mean loss, and the mean of each of its terms."""
        samples = self.samples(method.augmented)
        sums: dict[str, float] = {}
        for number in range(BATCHES):
            with isolated_randomness(SEED + number, devices=None), autocast(self.device):
                loss = method.training_step(samples[number].to(self.device))
            for name, value in {"loss": loss, **method.terms}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / BATCHES
        columns = {f"validation_{name}": value for name, value in sums.items()}
        return Score(sums["loss"], columns, f"validation loss {sums['loss']:.4f}")

    def finish(self, method: Method, paths: FoldPaths) -> None:
        """There is nothing to write."""
