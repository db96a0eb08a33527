"""Training steps on a GPU that is none: fake tensors have its device, and refuse what would need a number of them."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from longflow.methods.registry import build_method, known_methods, method_class, samples_of
from longflow.private import fake_tensors
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
def test_no_training_step_waits_for_the_device(name):
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
