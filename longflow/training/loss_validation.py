"""Validate by the training loss on draws from the validation subjects, the same ones every time."""

from functools import lru_cache

import torch

from longflow.errors import DataError
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.methods.registry import method_class_for, samples_of
from longflow.networks.precision import autocast
from longflow.random_state import isolated_randomness
from longflow.training.clock import results_in_time
from longflow.training.progress import ProgressColumns
from longflow.training.splits import SEED, Cohort
from longflow.training.validation import Score

BATCHES = 8


class LossValidation:
    """Mean loss of ``BATCHES`` batches, augmented as in training: some methods learn to undo the augmentation.

    :param job: the fold.
    :param cohort: the subjects that validate it.
    :param device: that the method works on.
    :raises DataError: the validation subjects do not give the samples of the method.
    """

    progress = ProgressColumns("loss")

    def __init__(self, job: FoldJob, cohort: Cohort, device: torch.device):
        samples = samples_of(method_class_for(job.method, job.plans))
        self.device = device
        #: by whether they are augmented; made once
        self.samples = lru_cache(lambda augmented: samples(cohort, job.plans, job.configuration, SEED, augmented))
        try:
            self.samples(True)
        except DataError as error:
            raise DataError(
                f"Fold {job.fold} cannot be validated: {error} Or give it other validation subjects in "
                f"{job.dataset.splits}."
            ) from error

    @torch.no_grad()
    def score(self, method: Method) -> Score:
        """Compute the mean loss, and the mean of each of its terms.

        :param method: in evaluation mode.
        :returns: the mean loss.
        """
        samples = self.samples(method.augmented)

        def losses_of(number: int) -> dict[str, float]:
            with isolated_randomness(SEED + number, devices=None):
                batch = samples[number].to(self.device)  # not in bf16: its augmentation computes, too
                with autocast(self.device):
                    loss = method.training_step(batch)
            return {name: float(value) for name, value in {"loss": loss, **method.terms}.items()}

        losses = results_in_time(losses_of, range(BATCHES))
        sums: dict[str, float] = {}
        for one in losses:
            for name, value in one.items():
                sums[name] = sums.get(name, 0.0) + value
        means = {name: value / len(losses) for name, value in sums.items()}
        columns = {f"validation_{name}": value for name, value in means.items()}
        return Score(means["loss"], columns, f"validation loss {means['loss']:.4f}")

    def finish(self, method: Method) -> None:
        """Write nothing: there are no predictions."""
