import time

import pytest

from longflow.data.dataset import read_rows
from longflow.methods.weights import read_checkpoint
from longflow.reading import read_json
from longflow.stop import Stopped
from longflow.tasks.forecast import validation
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.training import loop
from longflow.training.logbook import read_progress
from longflow.training.loop import train_fold
from tests.training.helpers import job_of, plan_steps
from tests.training.test_loop import stop_at, train


@pytest.fixture
def dataset(dataset):
    """With one planned step, so that every validation takes the same time."""
    plan_steps(dataset, 1)
    return dataset


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch, step, scored, predicted):
        """Let a step, a scored forecast and an out-of-fold prediction take so many seconds."""
        self.time = 0.0
        monkeypatch.setattr("longflow.training.clock.now", lambda: self.time)
        for owner, name, seconds in (
            (loop, "train_step", step),
            (validation, "prepared_nrmse", scored / 4),  # of two reductions and of two baselines
            (ForecastValidation, "_write", predicted),
        ):
            monkeypatch.setattr(owner, name, self.slowed(getattr(owner, name), seconds))

    def slowed(self, function, seconds):
        def slow(*arguments):
            self.time += seconds
            return function(*arguments)

        return slow


def test_a_time_budget_holds_steps_validations_and_predictions_and_the_schedule_ends_with_it(dataset, monkeypatch):
    """Six targets: a validation takes 1.2 s, all predictions 12 s."""
    clock = Clock(monkeypatch, step=1.0, scored=0.2, predicted=2.0)
    rates, shares, activities = [], [], []
    rate = loop.schedule
    monkeypatch.setattr(loop, "schedule", lambda *given: rates.append(rate(*given)) or rates[-1])
    paths = train_fold(
        job_of(dataset, max_time=100.0),
        on_progress=lambda share, state: shares.append(share),
        on_activity=lambda share, activity: activities.append((share, activity)),
    )
    assert 95 < clock.time <= 100
    assert shares[0] == 0 and shares == sorted(shares) and 0.75 < shares[-1] < 0.9  # the end is still to come
    falling = rates[rates.index(max(rates)) :]
    assert max(rates) > 0.9 and falling == sorted(falling, reverse=True) and len(falling) > 60 and rates[-1] < 0.05
    records = read_progress(paths.progress_csv)
    assert records[-1].found["nrmse"] > 0
    validated = [record.seconds for record in records if record.found["nrmse"] is not None]
    assert len(validated) > 4 and min(validated) > 10  # a tenth of the time, after a tenth of it
    assert activities[0] == (pytest.approx(0.05), "measuring the time of validation, 1 of 2")
    assert activities[-6:] == [
        (pytest.approx((clock.time - 12 + 2 * index) / 100), f"predicting out of fold, {index + 1} of 6")
        for index in range(6)
    ]
    assert activities[-7][1] == "validating, 6 of 6"
    assert paths.final.is_file() and len(list(paths.validation("last").glob("s*.json"))) == 6


def test_an_end_too_long_for_the_budget_is_shortened_and_that_is_said(dataset, monkeypatch, caplog):
    """A validation would take 48 s, all predictions 180 s; a budget of 100 s is exceeded by a tenth at most."""
    clock = Clock(monkeypatch, step=1.0, scored=8.0, predicted=30.0)
    paths = train(dataset, iterations=None, max_time=100.0)
    assert 90 < clock.time <= 110
    assert "all 6 items of the validation would take about 48 s of a time budget of 100 s: 2 are scored" in caplog.text
    assert "About 50 s of the time budget are kept" in caplog.text
    assert "Only 1 of 6 out-of-fold predictions were written" in caplog.text and "--overwrite" in caplog.text
    assert paths.final.is_file()
    written = list(paths.validation("last").glob("s*.json"))
    assert len(written) == len(read_rows(paths.validation("last") / "scans.csv")) == 1
    header = read_checkpoint(paths.final).header
    assert header["validation"]["nrmse"] > 0


def test_a_resumed_run_keeps_its_time_and_what_it_measured(dataset, monkeypatch):
    clock = Clock(monkeypatch, step=1.0, scored=0.2, predicted=2.0)
    with pytest.raises(Stopped):
        train(dataset, iterations=None, max_time=100.0, on_progress=stop_at(40))
    before, activities = clock.time, []
    clock.time += 1000  # between the two commands
    train_fold(job_of(dataset, max_time=100.0), on_activity=lambda share, activity: activities.append(activity))
    assert before > 40 and 95 < clock.time - 1000 <= 100
    assert not any("measuring" in activity for activity in activities)


def test_a_few_items_that_show_nothing_are_no_error_where_all_show_something(dataset, monkeypatch, caplog):
    """There is time to score two, the first and the last, and those are constant."""
    train(dataset, fold=1, iterations=1)
    targets = read_json(dataset.validation_targets)["protocols"]["deployment"][0]
    ends = {targets[0]["target"], targets[-1]["target"]}
    monkeypatch.setattr(validation, "is_constant", lambda series, target: target.target in ends)
    clock = Clock(monkeypatch, step=1.0, scored=2.0, predicted=1.0)
    monkeypatch.setattr(validation, "is_constant", clock.slowed(validation.is_constant, 2.0))
    paths = train(dataset, iterations=None, max_time=20.0)
    assert "2 are scored" in caplog.text
    assert read_checkpoint(paths.final).header["validation"]["nrmse"] > 0


def test_a_time_budget_is_about_the_time_of_the_wall(dataset):
    """Generous: other programs may use the same cores."""
    train(dataset, "tfm", iterations=1)  # imports are not training
    begun = time.monotonic()
    paths = train(dataset, iterations=None, max_time=4.0)
    assert paths.final.is_file() and 2.0 < time.monotonic() - begun < 20.0
