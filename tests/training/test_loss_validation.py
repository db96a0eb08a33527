import pytest
import torch

from longflow.errors import DataError
from longflow.job import FoldJob
from longflow.methods.forecasting.cronos import Cronos
from longflow.paths import DatasetPaths
from longflow.tasks.forecast.samples import ForecastSamples
from longflow.training.loss_validation import BATCHES, LossValidation
from longflow.training.splits import SEED, Cohort
from tests.tasks.segment.cohort import filled, segment_plans, write_cohort
from tests.training.helpers import job_of


class Told(Cronos):
    """A forecast whose loss has a term, drawn on the way."""

    validation = "loss"

    def training_step(self, batch):
        self.terms = {"noise": torch.rand(())}
        return batch.target.square().mean() + self.terms["noise"]


def validation_of(dataset):
    job = job_of(dataset)
    cohort = Cohort(
        dataset.cache("longflowPlans", "3d_fullres"), {s: [f"{s}_{i}" for i in range(4)] for s in ("s0", "s1")}
    )
    return job.plans, cohort, LossValidation(job, cohort, torch.device("cpu"))


def test_the_mean_loss_of_the_same_draws_every_time(dataset):
    plans, cohort, validation = validation_of(dataset)
    method = Told(plans, "3d_fullres").eval()
    state = torch.random.get_rng_state()
    score = validation.score(method)
    assert torch.equal(torch.random.get_rng_state(), state)  # training goes on as if nothing had been drawn
    samples = ForecastSamples(cohort, plans, "3d_fullres", SEED)
    expected, noise = 0.0, 0.0
    for number in range(BATCHES):
        torch.manual_seed(SEED + number)
        drawn = float(torch.rand(()))
        noise += drawn / BATCHES
        expected += (float((samples[number].target.double().numpy() ** 2).mean()) + drawn) / BATCHES
    assert score.value == score.columns["validation_loss"] == pytest.approx(expected, rel=1e-4)
    assert score.columns["validation_noise"] == pytest.approx(noise, rel=1e-6)
    assert score.note == f"validation loss {expected:.4f}"
    assert validation.score(method) == score


def test_validation_subjects_without_pairs_are_said_before_training(tmp_path):
    plans = segment_plans()
    cohort = write_cohort(tmp_path, plans, {"a": [filled(1)], "b": [None]})
    with pytest.raises(DataError, match=r"Fold 2 cannot be validated: None of the 2 subjects has two scans.*splits"):
        job = FoldJob(DatasetPaths("Dataset001_Test"), plans, "3d_fullres", "spatiotemporal", 2)
        LossValidation(job, cohort, torch.device("cpu"))
