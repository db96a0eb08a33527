"""Validation by the training loss on draws from the validation subjects, the same ones every time."""

import torch

from longflow.methods.method import Method
from longflow.networks.precision import autocast
from longflow.paths import DatasetPaths, FoldPaths
from longflow.plans import Plans
from longflow.training.samplers import sampler_of
from longflow.training.splits import SEED, Cohort
from longflow.training.validation import Score

BATCHES = 8


class LossValidation:
    """The mean loss of ``BATCHES`` batches, augmented as in training: without, nothing would have to be denoised."""

    def __init__(
        self,
        dataset: DatasetPaths,
        plans: Plans,
        configuration: str,
        fold: int,
        cohort: Cohort,
        device: torch.device,
    ):
        self.plans, self.configuration, self.cohort, self.device = plans, configuration, cohort, device

    @torch.no_grad()
    def score(self, method: Method) -> Score:
        """The mean loss, and the mean of each of its terms."""
        samples = sampler_of(method)(self.cohort, self.plans, self.configuration, SEED, method.augmented)
        sums: dict[str, float] = {}
        with torch.random.fork_rng():
            for number in range(BATCHES):
                torch.manual_seed(SEED + number)
                with autocast(self.device):
                    loss = method.training_step(samples[number].to(self.device))
                for name, value in {"loss": loss, **method.terms}.items():
                    sums[name] = sums.get(name, 0.0) + float(value) / BATCHES
        columns = {f"validation_{name}": value for name, value in sums.items()}
        return Score(sums["loss"], columns, f"validation loss {sums['loss']:.4f}")

    def finish(self, method: Method, paths: FoldPaths) -> None:
        """There is nothing to write."""
