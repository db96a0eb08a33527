"""Training steps on a GPU that is none: fake tensors have its device, and refuse what would need a number of them."""

from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode

from longflow.distributed import Processes
from longflow.job import FoldJob, FoldSettings
from longflow.methods.registry import build_method, known_methods, method_class, samples_of
from longflow.paths import DatasetPaths
from longflow.private import fake_tensors
from longflow.training import loop, losses
from longflow.training.run import set_up_run
from tests.methods.helpers import minimal_plans
from tests.methods.segmentation.helpers import segmentation_plans
from tests.tasks.translate.cohort import phase_plans

PLANS = {"forecast": minimal_plans, "segment": segmentation_plans, "translate": lambda: phase_plans(2)}


class Waits(TorchFunctionMode):
    """Note the calls that wait for a GPU: copies between host and GPU, where they do not say ``non_blocking``."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not (kwargs or {}).get("non_blocking"):
            given = args[0].device if args and isinstance(args[0], torch.Tensor) else torch.device("cpu")
            copies = function in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda, torch.tensor, torch.as_tensor)
            if copies and given.type != result.device.type:
                self.found.append(function.__name__)
        return result


def test_what_waits_is_noticed():
    with fake_tensors(), Waits() as waits:
        on_gpu = torch.ones(3).to("cuda", non_blocking=True)
        assert not waits.found
        with pytest.raises(RuntimeError):
            on_gpu.sum().item()
        with pytest.raises(RuntimeError):
            on_gpu[on_gpu > 0]
        torch.ones(3).to(on_gpu.device), torch.tensor(1.0, device="cuda"), on_gpu.cpu()
    assert waits.found == ["to", "tensor", "cpu"]


@pytest.mark.parametrize("name", [name for name in known_methods() if method_class(name).trains])
def test_no_training_step_waits_for_the_device(name, monkeypatch):
    # a backward pass needs the device itself
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, parameters, **_: [torch.zeros_like(p) for p in parameters])
    kind = method_class(name)
    plans = PLANS[kind.task]()
    (configuration,) = plans.configurations
    samples = samples_of(kind)
    with fake_tensors():
        with torch.device("cuda"):
            method = build_method(name, plans, configuration)
        batch = samples.largest_batch(plans, configuration, 4).to("cuda")
        for stage in range(len(kind.stages)):
            if stage:
                method.begin_stage(stage, batch)
            with Waits() as waits:
                loss = method.training_step(batch)
            assert loss.device.type == "cuda" and waits.found == []
            assert all(term.device.type == "cuda" and not term.requires_grad for term in method.terms.values())


@pytest.mark.parametrize("name", ["cronos", "mfm"])
def test_nor_does_the_loop_around_it(monkeypatch, name):
    """Clipping, optimizer, averages and sums; the pass backward, which only queues, is left out."""
    kind = method_class(name)
    plans = PLANS[kind.task]()
    (configuration,) = plans.configurations
    job = FoldJob(DatasetPaths("Dataset001_Test"), plans, configuration, name, 0, FoldSettings(compile=False))
    samples, queued = samples_of(kind), []
    monkeypatch.setattr(losses, "queue_copy", lambda value: queued.append(value.device.type) or (lambda: 1.0))
    monkeypatch.setattr(loop, "autocast", lambda device: nullcontext())
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)  # fake weights cannot move
    with fake_tensors():
        with torch.device("cuda"):
            run = set_up_run(job, Processes(0, 1, torch.device("cuda")), None)

        def backward(loss):
            for weight in run.method.parameters():
                weight.grad = torch.empty_like(weight)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        batch = samples.largest_batch(plans, configuration, 2).to("cuda")
        with Waits() as waits:
            for run.state.iteration in range(2):
                loop.add_losses(run.state, loop.train_step(run, batch))
        assert waits.found == [] and queued == ["cuda"] * 2
        assert run.optimizer.defaults["fused"] and run.state.loss_sums["loss"].device.type == "cuda"
