import pytest
import torch

from longflow.inference.selection import recorded_best
from longflow.methods.forecasting.cronos import Cronos
from longflow.methods.registry import build_method
from longflow.plans import read_plans, write_plans
from longflow.tasks.forecast.context import DEFAULT_RULE, RULES, choose_contexts
from longflow.tasks.forecast.rules import FORECASTS, best_rule
from longflow.tasks.forecast.task import TASK
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.tasks.forecast.windows import Times
from longflow.training.splits import cohorts_of_fold
from tests.training.helpers import job_of, plan_steps, trained_model


@pytest.fixture
def copies_the_first(monkeypatch):
    """A flow that goes most of the way from the last scan of its context to the first."""

    def velocity(self, batch, stack, mask, tau):
        return (0.8 * (batch.context[:, :1] - batch.context[:, -1:])).expand_as(stack)

    monkeypatch.setattr(Cronos, "velocity", velocity)


def find_best(dataset, sequence_length):
    """Write the out-of-fold forecasts of fold 0 of a model that takes so many scans, and choose."""
    plan_steps(dataset, 1)
    plans = read_plans(dataset.plans())
    plans.temporal.sequence_length = sequence_length
    write_plans(plans, dataset.plans())
    job = job_of(dataset)
    trained_model(dataset, job.plans)
    validation = ForecastValidation(job, cohorts_of_fold(job)[1], torch.device("cpu"))
    validation.finish(build_method("cronos", job.plans, "3d_fullres").eval())
    return TASK.find_best(dataset, 1)


def test_rules_are_not_compared_where_every_scan_is_taken(dataset, copies_the_first):
    best = find_best(dataset, 4)
    assert best["context_rules"] is None and best["context_rule"] == recorded_best(dataset).context_rule == DEFAULT_RULE


@pytest.mark.parametrize(
    ("errors", "lci", "chosen"),
    [
        ((0.9, 0.8, 0.7), 1.0, "subsets"),
        ((0.9, 0.702, 0.7), 1.0, "spread"),  # three times the work for less than 1 % of the skill
        ((0.70, 0.701, 0.71), 1.0, "latest"),
        ((1.2, 1.1, 1.0), 1.0, "subsets"),
    ],
)
def test_the_lowest_error_counts_and_work_where_errors_are_alike(errors, lci, chosen):
    table = [{"rule": rule, "nrmse": error} for rule, error in zip(RULES, errors, strict=True)]
    assert best_rule({"lci_nrmse": lci, "table": table}) == chosen


def test_every_rule_has_its_number_of_forecasts():
    given = Times([float(frame) for frame in range(30)], 31.0)
    assert {rule: len(choose_contexts(rule, given, 5)) for rule in RULES} == FORECASTS
