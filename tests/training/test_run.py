import pytest
import torch
from torch import nn

from longflow.job import FoldJob, FoldSettings
from longflow.methods.weights import read_checkpoint
from longflow.paths import DatasetPaths
from longflow.training.checkpoints import load_state, save_state
from longflow.training.distributed import Processes
from longflow.training.run import Run, compiled, set_up_run
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


def test_compilation_that_fails_is_left_out(monkeypatch, caplog):
    def breaks(module):
        def fast(*_):
            raise RuntimeError("no compiler\nand more")

        return fast

    monkeypatch.setattr(torch, "compile", breaks)
    module = nn.Linear(2, 2)
    step = compiled(module)
    x = torch.ones(1, 2)
    assert torch.equal(step(x), module(x)) and torch.equal(step(x), module(x))
    assert caplog.text.count("Compilation failed (no compiler): training continues without it.") == 1
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        step(torch.ones(1, 3))


def test_compilation_that_works_is_used(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module: lambda x: module(x) + 1)
    module = nn.Linear(2, 2)
    x = torch.ones(1, 2)
    assert torch.equal(compiled(module)(x), module(x) + 1)
