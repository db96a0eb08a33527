from typing import ClassVar

import pytest
import torch
from torch import nn

from longflow.distributed import Processes
from longflow.methods.method import Recipe
from longflow.private import fake_tensors
from longflow.training import run
from longflow.training.run import Run, State, compiled, set_up_run
from tests.training.helpers import job_of


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


@pytest.mark.parametrize(
    ("device", "setting", "expected"),
    [("cpu", None, False), ("cpu", True, True), ("cuda", None, True), ("cuda", False, False)],
)
def test_the_step_is_compiled_on_a_gpu_unless_it_is_switched_off(monkeypatch, device, setting, expected):
    module = nn.Linear(2, 2)
    monkeypatch.setattr(run, "compiled", lambda module: "compiled")
    alone = Processes(0, 1, torch.device(device))
    assert run.step_of(module, alone, setting) is ("compiled" if expected else module)


def test_several_processes_know_that_a_stage_uses_the_same_weights(monkeypatch):
    given = {}
    monkeypatch.setattr(run, "DistributedDataParallel", lambda module, **settings: given.update(settings) or module)
    module = nn.Linear(2, 2)
    assert run.step_of(module, Processes(0, 2, torch.device("cpu")), None) is module
    assert given == {"static_graph": True, "gradient_as_bucket_view": True}


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_weights_are_updated_by_one_kernel_on_a_gpu_alone(kind):
    with fake_tensors():
        for device, fused in (("cuda", True), ("cpu", None)):
            optimizer = run.optimizer_of(Recipe(kind), [nn.Parameter(torch.zeros(2, device=device))], 0.1)
            assert optimizer.defaults["fused"] is fused


def test_processes_decide_together_about_once_a_second():
    """At the pace of the slowest: 0.3 s a step, validation included, then 10 s."""
    alone = Processes(0, 1, torch.device("cpu"))
    several = Several(1, 2, torch.device("cpu"))
    state = State(iteration=10, seconds=1.0)
    one = Run(None, several, *[None] * 6, state=state)
    assert one.decides
    several.slowest.append(0.3)
    one.plan_decision()
    due = []
    for state.iteration in range(11, 20):
        due.append(one.decides)
    assert due == [False] * 3 + [True] * 6
    several.slowest.append(10.0)
    state.iteration = 14
    one.plan_decision()
    assert one.next_decision == 15
    assert Run(None, alone, *[None] * 6, state=state, next_decision=99).decides


class Several(Processes):
    """One of two processes; the other one says ``slowest``."""

    slowest: ClassVar[list[float]] = []

    def agree(self, value):
        return max(value, self.slowest.pop())


@pytest.mark.parametrize(("free", "returned"), [(2.9, True), (3.1, False)])
def test_freed_memory_is_returned_where_less_than_three_times_the_planned_is_free(dataset, monkeypatch, free, returned):
    job, called = job_of(dataset), []
    monkeypatch.setattr(run, "free_memory", lambda: free * job.plans.gpu_memory * 1024**3)
    monkeypatch.setattr(run, "return_freed_memory", lambda: called.append(True))
    set_up_run(job, Processes(0, 1, torch.device("cpu")), validation=None)
    assert called == [True] * returned
