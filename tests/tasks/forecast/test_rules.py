import numpy as np
import pytest
import torch

from longflow.data.images import read_scan
from longflow.inference.selection import recorded_best
from longflow.methods.forecasting.cronos import Cronos
from longflow.methods.registry import build_method
from longflow.plans import read_plans, write_plans
from longflow.reading import read_json
from longflow.tasks.forecast import best as best_module
from longflow.tasks.forecast.context import DEFAULT_RULE, RULES, choose_contexts
from longflow.tasks.forecast.rules import FORECASTS, best_rule
from longflow.tasks.forecast.targets import ForecastTarget
from longflow.tasks.forecast.task import TASK
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.tasks.forecast.windows import Times
from longflow.training.splits import cohorts_of_fold
from tests.tasks.forecast.helpers import best_of_trained
from tests.training.helpers import job_of, plan_steps, trained_model

PLANNED = ("longflowPlans", "3d_fullres")


@pytest.fixture
def extrapolates(monkeypatch):
    """A flow that adds half of the change from the first scan of its context to the last."""

    def velocity(self, batch, stack, mask, tau):
        return (0.5 * (batch.context[:, -1:] - batch.context[:, :1])).expand_as(stack)

    monkeypatch.setattr(Cronos, "velocity", velocity)
    monkeypatch.setattr(best_module, "first_minimum", best_of_trained)


def find_best(dataset, sequence_length):
    """Write the out-of-fold forecasts of fold 0 of a model that takes so many scans, and choose."""
    plan_steps(dataset, 1)
    plans = read_plans(dataset.plans())
    plans.temporal.sequence_length = sequence_length
    write_plans(plans, dataset.plans())
    job = job_of(dataset)
    trained_model(dataset, job.plans)
    validation = ForecastValidation(job, cohorts_of_fold(job)[1], torch.device("cpu"))
    subjects = sorted({target.subject for target in validation.targets})
    validation.targets = [
        ForecastTarget(subject, f"{subject}_{given}", tuple(f"{subject}_{index}" for index in range(given)))
        for subject in subjects
        for given in (1, 3)
    ]
    validation.finish(build_method("cronos", job.plans, "3d_fullres").eval())
    return TASK.find_best(dataset, 1)


def test_rules_are_not_compared_where_every_scan_is_taken(dataset, extrapolates):
    best = find_best(dataset, 4)
    assert best["context_rules"] is None and best["context_rule"] == recorded_best(dataset).context_rule == DEFAULT_RULE


def test_rules_are_compared_on_targets_with_more_scans_than_the_model_takes(dataset, extrapolates):
    """Of three scans two are taken, the first or the second and the last: LCI + s (last - first) / 2, with NumPy."""
    best = find_best(dataset, 2)
    rules = best["context_rules"]
    subjects = {
        path.name.split("_")[0] for path in dataset.model("cronos", *PLANNED).fold(0).validations.rglob("s*.json")
    }
    assert rules["targets"] == rules["subjects"] == len(subjects)
    found = {row["rule"]: row["nrmse"] for row in rules["table"]}
    for rule, first in (("latest", 1), ("spread", 0), ("subsets", 0)):
        errors = []
        for subject in subjects:
            scans = [
                read_scan((dataset.raw / "imagesTr" / f"{subject}_{index}_0000.nii.gz",)).array for index in range(4)
            ]
            # networks see each scan in its own normal form
            change = (scans[2] - scans[2].mean()) - scans[2].std() / scans[first].std() * (
                scans[first] - scans[first].mean()
            )
            forecast = scans[2] + best["shrinkage"] * 0.5 * change
            errors.append(np.sqrt(np.mean((forecast - scans[3]) ** 2)) / np.ptp(scans[3]))
        assert found[rule] == pytest.approx(np.mean(errors), rel=0.01)
    assert best["context_rule"] == best_rule(rules) == recorded_best(dataset).context_rule
    assert read_json(dataset.best) == best


@pytest.mark.parametrize(
    ("errors", "lci", "chosen"),
    [
        ((0.9, 0.8, 0.7), 1.0, "subsets"),
        ((0.9, 0.71, 0.7), 1.0, "spread"),  # three times the work for less than 5 % of the skill
        ((0.70, 0.71, 0.71), 1.0, "spread"),  # the default, unless another one is clearly better
        ((0.70, 0.72, 0.71), 1.0, "latest"),
        ((1.2, 1.1, 1.0), 1.0, "subsets"),
    ],
)
def test_the_lowest_error_counts_and_work_where_errors_are_alike(errors, lci, chosen):
    table = [{"rule": rule, "nrmse": error} for rule, error in zip(RULES, errors, strict=True)]
    assert best_rule({"lci_nrmse": lci, "table": table}) == chosen


def test_every_rule_has_its_number_of_forecasts():
    given = Times([float(frame) for frame in range(30)], 31.0)
    assert {rule: len(choose_contexts(rule, given, 5)) for rule in RULES} == FORECASTS
