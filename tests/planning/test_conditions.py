import re

import pytest

from longflow.fingerprint.covariates import CovariateFingerprint
from longflow.fingerprint.recurrence import RecurrenceFingerprint
from longflow.planning.conditions import plan_conditions, plan_covariates
from longflow.planning.plan import make_plans
from longflow.planning.summary import summarize
from longflow.task import get_task
from tests.planning.helpers import description, fingerprint

AGE = CovariateFingerprint(name="age", scans=9, known=8, mean=61, standard_deviation=9.5, minimum=40, maximum=82)
CONSTANT = CovariateFingerprint(name="sex", scans=9, known=9, mean=1, standard_deviation=0, minimum=1, maximum=1)
UNKNOWN = CovariateFingerprint(name="dose", scans=9, known=0)


def of(*covariates, **keys):
    found = fingerprint([[0, 30, 90]] * 3, [16, 32, 32], [1, 1, 1])
    return found.model_copy(update={"covariates": list(covariates)}), description(**keys)


def test_covariates_are_scaled_by_mean_and_deviation_and_the_reason_says_so():
    (age,), excluded = plan_covariates([AGE])
    assert (age.name, age.mean, age.standard_deviation, age.minimum, age.maximum) == ("age", 61, 9.5, 40, 82)
    assert age.reason.startswith("known for 8 of 9 scans, 40 to 82") and not excluded


def test_constant_and_unknown_covariates_are_excluded_with_a_reason():
    used, excluded = plan_covariates([CONSTANT, AGE, UNKNOWN])
    assert [one.name for one in used] == ["age"]
    assert excluded["sex"] == "each of the 9 known values is 1, which says nothing."
    assert excluded["dose"] == "none of the 9 scans has a value."


@pytest.mark.parametrize(("task", "period"), [("forecast", "rr"), ("segment", None)])
def test_only_tasks_that_use_conditions_have_a_period(task, period):
    found, about = of(period="rr", task=task)
    temporal = get_task("forecast").plan_time(found.temporal, 2)
    assert plan_conditions(temporal, found, about)["temporal"].period == period


def test_plans_and_their_summary_hold_them(capsys):
    from rich.console import Console

    found, about = of(AGE, CONSTANT, period=400, covariates=["age", "sex"])
    plans = make_plans(found, about, "tiny")
    assert plans.temporal.period == 400 and [one.name for one in plans.covariates] == ["age"]
    Console(width=200).print(summarize(found, plans))
    shown = capsys.readouterr().out
    assert "known for 8 of 9 scans" in shown and "excluded: each of the 9 known values is 1" in shown
    without = make_plans(*of(), "tiny")
    assert without.covariates == [] and without.temporal.period is None


@pytest.mark.parametrize(
    ("error", "better", "period", "reason"),
    [
        (
            0.6,
            9,
            None,
            "Scans repeat: .*0.60 of the error .*9 of 9 subjects. Each subject's period .*5 days",
        ),
        (0.6, 9, 30, "Scans repeat: .*9 of 9 subjects.$"),
        (0.99, 9, None, "Scans are not taken to repeat: .*0.99 of the error.*needed are 0.98 and 75%"),
        (0.6, 6, None, "Scans are not taken to repeat: .*6 of 9 subjects; needed"),
    ],
)
def test_scans_repeat_where_training_scans_are_forecast_better_by_it(error, better, period, reason):
    found, about = of(period=period)
    measured = {"periods": [4.0, 5.0], "probabilities": [0.3, 0.7], "length": 1.0, "noise": 0.1, "subjects": 9}
    found.recurrence = RecurrenceFingerprint(relative_error=error, better=better, **measured)
    temporal = make_plans(found, about, "tiny").temporal
    assert (temporal.recurrence is not None) == reason.startswith("Scans repeat")
    assert any(re.match(reason, one) for one in temporal.reasons)
    assert temporal.repeats == (temporal.recurrence is not None or period is not None)
