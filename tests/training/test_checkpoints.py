import math

import pytest
import torch

from longflow.distributed import Processes
from longflow.errors import ModelError
from longflow.job import FoldJob, FoldSettings
from longflow.methods.weights import read_checkpoint, write_checkpoint
from longflow.paths import DatasetPaths
from longflow.training.checkpoints import averaged_weights, load_state, record_score, save_state, update_average
from longflow.training.run import Run, set_up_run
from longflow.training.validation import Score
from tests.methods.helpers import minimal_plans
from tests.methods.segmentation.helpers import segmentation_plans


def run_of(method, plans, seed=0) -> Run:
    dataset, alone = DatasetPaths("Dataset001_Test"), Processes(0, 1, torch.device("cpu"))
    return set_up_run(FoldJob(dataset, plans, "3d_fullres", method, 0, FoldSettings(seed=seed)), alone, None)


@pytest.mark.parametrize(
    ("method", "plans", "averages"), [("unet", segmentation_plans(), False), ("tfm", minimal_plans(), True)]
)
def test_weights_are_held_and_stored_twice_only_where_they_are_averaged(tmp_path, monkeypatch, method, plans, averages):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    run = run_of(method, plans)
    assert (run.recipe.ema_decay > 0) == averages
    before = {name: tensor.clone() for name, tensor in run.average.items()}
    with torch.no_grad():
        for parameter in run.method.parameters():
            parameter.add_(1)
    weights = run.method.state_dict()
    expected = before if averages else weights
    assert all(torch.equal(tensor, expected[name]) for name, tensor in run.average.items())
    save_state(run)
    assert bool(read_checkpoint(run.job.paths.latest).part("average")) == averages
    again = run_of(method, plans, seed=1)
    load_state(again)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.method.state_dict().items())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.average.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": None}, "state of this training"),
        ({"state": {"iteration": "many"}}, "state of this training"),
        ({"state": {"stage": 7}}, r"state of this training \(stage 7\)"),
        ({"optimizer.0.exp_avg": torch.zeros(1, 2, 3)}, r"optimizer.0.exp_avg has shape \[1, 2, 3\]"),
        ({"optimizer.9999.exp_avg": torch.zeros(3)}, "state of this training"),
        ({"optimizer.x.exp_avg": torch.zeros(3)}, "state of this training"),
        ({"optimizer.0": torch.zeros(3)}, "state of this training"),
        ({"average.network.head.weight": torch.zeros(1)}, r"network.head.weight has shape \[1\], expected"),
        ({"average.further": torch.zeros(1)}, "tensors that the method does not have: further"),
    ],
)
def test_a_state_of_another_training_is_explained(tmp_path, monkeypatch, changes, message):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    run = run_of("tfm", minimal_plans())
    save_state(run)
    checkpoint = read_checkpoint(run.job.paths.latest)
    for name, value in changes.items():
        (checkpoint.tensors if isinstance(value, torch.Tensor) else checkpoint.header)[name] = value
    write_checkpoint(checkpoint, run.job.paths.latest)
    with pytest.raises(ModelError, match=message):
        load_state(run_of("tfm", minimal_plans()))


def test_weights_are_recorded_with_the_reduction_of_their_score(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    run = run_of("tfm", minimal_plans())
    checkpoint = averaged_weights(run, Score(0.5, {"nrmse": 0.5}, "", reduction="mean"))
    assert checkpoint.header["reduction"] == "mean" and checkpoint.header["validation"] == {"nrmse": 0.5}
    record_score(checkpoint, Score(0.4, {"nrmse": 0.4}, "", reduction="last"))  # with other solver steps
    assert checkpoint.header["reduction"] == "last" and checkpoint.header["validation"] == {"nrmse": 0.4}
    assert "reduction" not in averaged_weights(run, Score(0.5, {}, "")).header


def test_the_average_against_its_closed_form():
    """a_n = sum of d^(n-i) (1 - d) v_i, with the decay of each step; integers are the present ones."""
    average = {"weight": torch.tensor([1.0, 2.0]), "steps": torch.tensor(0)}
    values = [torch.tensor([float(i), -float(i)]) for i in range(1, 40)]
    for iteration, value in enumerate(values):
        update_average(average, {"weight": value, "steps": torch.tensor(iteration)}, 0.5, iteration)
    decays = [min(0.5, (1 + i) / (10 + i)) for i in range(39)]
    assert decays[0] == 0.1 and decays[-1] == 0.5
    expected = math.prod(decays) * torch.tensor([1.0, 2.0])
    for index, value in enumerate(values):
        expected = expected + (1 - decays[index]) * math.prod(decays[index + 1 :]) * value
    torch.testing.assert_close(average["weight"], expected)
    assert average["steps"] == 38


def test_the_number_of_the_next_batch_follows_from_the_iteration_where_it_is_not_stored(tmp_path, monkeypatch):
    """longflow 0.1 did not store it; a run of several processes counts the batches of all."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    run = run_of("tfm", minimal_plans())
    run.state.iteration, run.state.batches = 7, 21
    save_state(run)
    load_state(run)
    assert (run.state.iteration, run.state.batches) == (7, 21)
    checkpoint = read_checkpoint(run.job.paths.latest)
    del checkpoint.header["state"]["batches"]
    write_checkpoint(checkpoint, run.job.paths.latest)
    load_state(run)
    assert (run.state.iteration, run.state.batches) == (7, 7)
