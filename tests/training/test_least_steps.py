"""The least number of solver steps, with scores made by hand and with velocities of known curvature."""

import numpy as np
import pytest

from longflow.cli import predict
from longflow.methods.forecasting.cronos import Cronos
from longflow.methods.registry import build_method
from longflow.methods.weights import read_checkpoint
from longflow.plans import read_plans
from longflow.reading import read_json
from longflow.tasks.forecast import validation
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.training.least_steps import MEASURED_AT, are_equal, could_take_fewer, least_steps
from longflow.training.validation import Score, sampled
from tests.training.helpers import plan_steps
from tests.training.test_loop import train
from tests.training.test_scoring import Clock

#: skill 0.1, so that errors may differ by 0.001
REFERENCE = Score(0.4, {}, "", 0.5, [[0.3, 0.4], [0.5, 0.6]], [np.ones(100), np.ones(100)])


def score(value=0.4, errors=((0.3, 0.4), (0.5, 0.6)), changes=(1.0, 1.0), baseline=0.5):
    return Score(value, {}, "", baseline, errors, [np.full(100, change) for change in changes])


def test_scores_are_equal_within_a_hundredth_of_the_skill():
    assert are_equal(score(), REFERENCE)
    assert are_equal(score(0.4009), REFERENCE) and not are_equal(score(0.4011), REFERENCE)
    assert are_equal(score(0.3991), REFERENCE) and not are_equal(score(0.3989), REFERENCE)


def test_errors_of_two_items_do_not_cancel():
    assert not are_equal(score(errors=((0.302, 0.4), (0.498, 0.6))), REFERENCE)
    assert are_equal(score(errors=((0.3009, 0.4), (0.4991, 0.6))), REFERENCE)


def test_one_of_two_reductions_is_enough_to_differ():
    assert not are_equal(score(errors=((0.3, 0.4012), (0.5, 0.6012))), REFERENCE)


def test_predictions_of_equal_error_can_differ():
    """A tenth of the change is a hundredth of its square."""
    assert are_equal(score(changes=(1.09, 0.91)), REFERENCE)
    assert not are_equal(score(changes=(1.0, 1.11)), REFERENCE)
    assert not are_equal(score(changes=(-1.0, 1.0)), REFERENCE)


def test_without_skill_nothing_but_the_same_is_equal():
    without = score(baseline=0.4)
    assert are_equal(without, without) and not are_equal(score(0.4 + 1e-9, baseline=0.4), without)


def test_an_error_that_is_not_defined_is_not_equal():
    undefined = score(errors=((float("nan"), 0.4), (0.5, 0.6)))
    assert not are_equal(undefined, undefined)


@pytest.mark.parametrize(
    ("value", "tried", "steps"), [(1, [10, 1], 1), (3, [10, 1, 2, 3], 3), (8, [10, 1, 2, 3, 5], 10)]
)
def test_the_fewest_steps_that_equal_the_planned_ones(value, tried, steps):
    """Scores that are those of ten steps from so many steps on."""
    asked = []

    def score_with(number):
        asked.append(number)
        return score() if number >= value else score(0.45)

    assert least_steps(10, score_with)[0] == steps
    assert asked == tried


def test_a_validation_that_cannot_be_compared_is_scored_once():
    asked = []
    assert least_steps(10, lambda number: asked.append(number) or Score(0.4, {}, "")) == (10, Score(0.4, {}, ""))
    assert asked == [10]


def test_it_is_measured_at_powers_of_ten():
    assert [number for number in range(1, 2000) if number in MEASURED_AT] == [1, 10, 100, 1000]


def test_a_sample_is_the_same_voxels_every_time():
    volume = np.arange(400_000, dtype=np.float32).reshape(4, 100, 1000)
    chosen = sampled(volume)
    assert len(chosen) == 100_000 and np.array_equal(chosen, sampled(volume))
    assert chosen.mean() == pytest.approx(volume.mean(), rel=0.01)
    assert np.array_equal(sampled(volume[0, :2]), np.arange(2000))


@pytest.fixture
def bend(monkeypatch):
    """Give CRONOS the velocity 0.2 + c (1 - 2 tau), along which n Euler steps change a scan by 0.2 + c / n."""
    network = Cronos.velocity
    curvature = {"now": 0.0}

    def velocity(self, batch, stack, mask, tau):
        known = 0.2 + curvature["now"] * (1 - 2 * tau)
        return 0 * network(self, batch, stack, mask, tau) + known.view(-1, *[1] * (stack.ndim - 1))

    monkeypatch.setattr(Cronos, "velocity", velocity)
    return lambda value: curvature.update(now=value)


def solver_steps(paths):
    """The number in run.json, and what is recorded with the weights."""
    return read_json(paths.run)["cost"]["solver_steps"], read_checkpoint(paths.final).header["solver_steps"]


@pytest.mark.parametrize(("curvature", "steps"), [(0.0, 1), (0.01, 5), (1.0, 10)])
def test_a_curved_velocity_takes_more_steps_than_a_straight_one(dataset, bend, curvature, steps):
    """With c = 0.01 the change is wrong by 4.5, 2, 1.2 and 0.5 % after 1, 2, 3 and 5 steps, with c = 1 by far more."""
    bend(curvature)
    paths = train(dataset)
    assert solver_steps(paths) == (steps, {"solver": "euler", "planned": 10, "equal": steps})
    for target in paths.validation("last").glob("s*.json"):
        sidecar = read_json(target)
        assert (sidecar["solver"], sidecar["steps"], sidecar["function_evaluations"]) == ("euler", steps, steps)


def test_steps_that_no_longer_suffice_at_the_end_are_noticed_and_the_best_is_scored_again(
    dataset, bend, caplog, monkeypatch
):
    """The velocity bends between the first validation and the last, after which the best weights are compared anew."""
    caplog.set_level("INFO")
    scored, original = [], ForecastValidation.score

    def note(self, method):
        score = original(self, method)
        scored.append((method.steps, score.value))
        return score

    monkeypatch.setattr(ForecastValidation, "score", note)
    paths = train(dataset, on_progress=lambda share, state: bend(1.0 if state.iteration == 5 else 0.0))
    # the first validation, the second, the last, the best weights so far, and these again since they are the kept ones
    measured = [10, 1, 2, 3, 5]
    assert [steps for steps, _ in scored] == [10, 1, 1, *measured, 10, *measured]
    assert "Solver steps of validations from here on: 10 (so far 1, planned 10)" in caplog.text
    assert solver_steps(paths)[0] == 10
    header = read_checkpoint(paths.final).header
    assert header["iteration"] == 2 and header["validation"]["nrmse"] == scored[8][1] != scored[1][1]


def test_a_time_budget_holds_while_steps_are_measured_and_is_used_up_where_they_are_few(dataset, bend, monkeypatch):
    """Forecasting a target takes 0.1 s for each solver step: 6 s with the planned ones, and 0.6 s with one."""
    bend(0.0)
    clock = Clock(monkeypatch, step=1.0, scored=0.0, predicted=0.0)

    def slow(methods, *rest):
        clock.time += 0.1 * methods[0].steps
        return forecast(methods, *rest)

    forecast = validation.predict_from_contexts
    monkeypatch.setattr(validation, "predict_from_contexts", slow)
    paths = train(dataset, iterations=None, max_time=100.0)
    assert solver_steps(paths)[0] == 1 and 88 < clock.time <= 100
    # the end took at most 6 s + 0.6 s for the last weights, as much for the best ones, and 0.6 s for the predictions
    assert read_json(paths.run)["cost"]["iterations"] > 70
    assert len(list(paths.validation("last").glob("s*.json"))) == 6


def test_a_time_budget_that_shortens_validations_leaves_the_planned_steps(dataset, bend, monkeypatch, caplog):
    bend(0.0)
    Clock(monkeypatch, step=1.0, scored=8.0, predicted=1.0)
    paths = train(dataset, iterations=None, max_time=100.0)
    assert "2 are scored" in caplog.text
    assert read_json(paths.run)["cost"]["solver_steps"] is None
    assert read_json(next(paths.validation("last").glob("s*.json")))["steps"] == 10


def test_longflow_predict_takes_the_recorded_steps_and_says_so(dataset, bend, tmp_path):
    bend(0.01)
    paths = train(dataset)
    out = tmp_path / "out"
    arguments = ("-d", "1", "-m", "cronos", "-f", "0", "-t", "50", "--device", "cpu")
    assert predict.main(["-i", str(dataset.raw / "imagesTr"), "-o", str(out), *arguments]) == 0
    predicted, validated = read_json(out / "s0_t50.json"), next(paths.validation("last").glob("s*.json"))
    for name in ("solver", "steps", "function_evaluations", "plan_identity"):
        assert predicted[name] == read_json(validated)[name]
    assert predicted["steps"] == 5 and predicted["digests"]["weights"] == read_json(validated)["digests"]["weights"]


def test_plans_that_name_one_step_have_nothing_to_measure(dataset):
    plan_steps(dataset, 1)
    paths = train(dataset, iterations=2)
    assert read_json(paths.run)["cost"]["solver_steps"] is None
    assert "solver_steps" not in read_checkpoint(paths.final).header


def test_only_fixed_steps_of_a_flow_can_be_fewer(dataset):
    plans = read_plans(dataset.plans())
    assert could_take_fewer(build_method("cronos", plans, "3d_fullres"))
    assert not could_take_fewer(build_method("simvp", plans, "3d_fullres"))
    plan_steps(dataset, 10, "dopri5")
    assert not could_take_fewer(build_method("cronos", read_plans(dataset.plans()), "3d_fullres"))
