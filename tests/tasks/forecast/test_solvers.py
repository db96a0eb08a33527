"""The solver of the chosen flow, with a velocity whose forecasts are known for every number of Euler steps."""

import csv

import numpy as np
import pytest
import torch
from rich.console import Console

from longflow.data.images import read_scan
from longflow.inference.models import load_models
from longflow.inference.selection import recorded_best, select
from longflow.methods.forecasting.cronos import Cronos
from longflow.methods.registry import build_method
from longflow.reading import read_json
from longflow.tasks.forecast import best as best_module
from longflow.tasks.forecast.solvers import best_setting
from longflow.tasks.forecast.task import TASK
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.training.splits import cohorts_of_fold
from tests.tasks.forecast.helpers import best_of_trained
from tests.training.helpers import job_of, trained_model


@pytest.fixture
def bend(monkeypatch):
    """Give CRONOS the velocity 0.2 + c (1 - 2 tau), along which n Euler steps change a scan by 0.2 + c / n."""

    def to(curvature):
        def velocity(self, batch, stack, mask, tau):
            return (0.2 + curvature * (1 - 2 * tau)).view(-1, *[1] * (stack.ndim - 1)).expand_as(stack)

        monkeypatch.setattr(Cronos, "velocity", velocity)
        monkeypatch.setattr(best_module, "first_minimum", best_of_trained)

    return to


def find_best(dataset, method="cronos"):
    """Write the out-of-fold forecasts of fold 0 and choose."""
    job = job_of(dataset, method)
    trained_model(dataset, job.plans, method)
    validation = ForecastValidation(job, cohorts_of_fold(job)[1], torch.device("cpu"))
    validation.finish(build_method(method, job.plans, "3d_fullres").eval())
    return TASK.find_best(dataset, 1)


def of(best, solver, steps):
    (row,) = (row for row in best["solvers"]["table"] if (row["solver"], row["steps"]) == (solver, steps))
    return row


def test_the_cheapest_solver_of_a_straight_flow_is_recorded_and_used(dataset, bend):
    bend(0.0)
    best = find_best(dataset)
    assert best["shrinkage"] > 0 and (best["solver"], best["steps"]) == ("euler", 1)
    assert best["solvers"]["validated"] == ["euler", 10] and best["solvers"]["targets"] == 4
    rows = best["solvers"]["table"]
    assert [row["nrmse"] for row in rows] == pytest.approx([rows[0]["nrmse"]] * 11, rel=1e-3)
    assert of(best, "explicit_adams", 3)["evaluations"] == 9 and all(row["seconds"] > 0 for row in rows)
    assert read_json(dataset.best) == best
    with open(dataset.best_solvers, newline="") as file:
        assert len(list(csv.DictReader(file))) == 11
    assert (recorded_best(dataset).solver, recorded_best(dataset).steps) == ("euler", 1)
    method = load_models(select("1"), "forecast").members[0].methods[0]
    assert (method.solver, method.steps) == ("euler", 1)


def test_a_curved_flow_needs_more_than_one_euler_step(dataset, bend):
    """Of second order, one step is exact here; Euler's steps change too little of what is to come, ten of them half."""
    bend(-1.0)
    best = find_best(dataset)
    assert (best["solver"], best["steps"]) in (("heun2", 1), ("midpoint", 1))
    assert of(best, "heun2", 1)["nrmse"] == pytest.approx(of(best, "rk4", 1)["nrmse"], rel=1e-3)
    console = Console(width=200, record=True)
    TASK.show_best(best, console)
    shown = " ".join(console.export_text().split())
    difference = of(best, best["solver"], 1)["nrmse"] - of(best, "euler", 10)["nrmse"]
    assert f"longflow_predict uses {best['solver']} (1)" in shown
    assert f"the NRMSE of the chosen solver differs from it by {difference:+.5f}" in shown


def test_nrmse_of_a_solver_against_numpy(dataset, bend):
    """The forecast is LCI + s (0.2 + c / n) of the last scan's deviation, in the units of the files."""
    bend(0.5)
    best = find_best(dataset)
    targets = read_json(dataset.validation_targets)["protocols"]["deployment"][0]
    targets = sorted(targets, key=lambda target: (target["subject"], target["target"]))
    chosen = [targets[position] for position in np.linspace(0, len(targets) - 1, 4).round().astype(int)]

    def scan(case):
        return read_scan((dataset.raw / "imagesTr" / f"{case}_0000.nii.gz",)).array[0].astype(float)

    errors = {}
    for target in chosen:
        context = [scan(case) for case in target["context"]]
        last, reference = context[-1], scan(target["target"])
        kind = job_of(dataset).plans.channels[0].normal_form
        deviation = (context[0] if kind == "per_subject" else last).std()
        forecast = last + best["shrinkage"] * (0.2 + 0.5 / 2) * deviation
        error = np.sqrt(np.mean((forecast - reference) ** 2)) / np.ptp(reference)
        errors.setdefault(target["subject"], []).append(error)
    expected = np.mean([np.mean(values) for values in errors.values()])
    assert of(best, "euler", 2)["nrmse"] == pytest.approx(expected, rel=2e-3)


def test_what_integrates_nothing_has_no_solver(dataset):
    best = find_best(dataset, "simvp")
    assert best["solver"] is best["steps"] is best["solvers"] is None
    assert not dataset.best_solvers.exists() and recorded_best(dataset).solver is None


def test_differences_below_a_hundredth_of_the_skill_do_not_count():
    rows = [("euler", 1, 0.02110), ("euler", 2, 0.02009), ("rk4", 1, 0.02000)]
    table = [{"solver": solver, "steps": steps, "nrmse": error} for solver, steps, error in rows]
    assert best_setting({"lci_nrmse": 0.03, "table": table}) == ("euler", 2)
    assert best_setting({"lci_nrmse": 0.025, "table": table}) == ("rk4", 1)
    assert best_setting({"lci_nrmse": 0.2, "table": table}) == ("euler", 1)
