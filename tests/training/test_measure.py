from pathlib import Path

import pytest

from longflow.errors import ConfigurationError
from longflow.plans import read_plans
from longflow.training import measure
from longflow.training.measure import measure_training
from longflow.training.measured import read_measured
from tests.training.helpers import job_of, trained_model


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(measure, "SECONDS", 0.0)
    monkeypatch.setattr(measure, "LEAST_STEPS", 2)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_measurement_leaves_the_fold_as_it_is(dataset, caplog):
    plans = read_plans(dataset.plans())
    trained_model(dataset, plans)
    before = contents(dataset.results)
    with caplog.at_level("INFO", "longflow"):
        found = measure_training(job_of(dataset, iterations=1000))
    model = dataset.model("cronos", "longflowPlans", "3d_fullres")
    after = contents(dataset.results)
    assert {path for path in after if path not in before} == {model.measured(1)}
    assert all(after[path] == content for path, content in before.items())
    assert read_measured(model, 1, plans) == found
    assert found.steps == 2 and found.device == "cpu" and found.main_memory >= 0.5 * found.peak_memory > 0
    assert found.seconds_per_step > 0 < found.seconds_per_validation and 0 <= found.data_wait_share <= 1
    assert "A training of 1000 steps takes about" in caplog.text


def test_every_stage_of_a_method_is_measured_by_its_share(dataset, monkeypatch):
    seconds, begun = iter([10.0, 1.0]), []
    clock = [0.0]
    step = measure.train_step

    def timed(run, batch):
        if run.state.stage == len(begun):
            begun.append(next(seconds))
        clock[0] += begun[run.state.stage]
        return step(run, batch)

    monkeypatch.setattr(measure, "train_step", timed)
    monkeypatch.setattr(measure.clock, "now", lambda: clock[0])
    found = measure_training(job_of(dataset, "latent_diffusion"))
    first = measure.trained_kind(job_of(dataset, "latent_diffusion")).stages[1]
    assert found.steps == 4
    assert found.seconds_per_step == pytest.approx(first * 10 + (1 - first) * 1)


def test_first_weights_need_not_exist_yet(dataset):
    assert measure_training(job_of(dataset, pretrained="tfm")).steps == 2


def test_a_method_without_training_is_refused(dataset):
    with pytest.raises(ConfigurationError, match="nothing to train"):
        measure_training(job_of(dataset, "lci"))
