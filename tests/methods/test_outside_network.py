"""A network of an outside package, used by a method of longflow."""

from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from longflow import registry
from longflow.methods.registry import build_method, method_class, named_with_network
from longflow.methods.weights import Checkpoint, load_method, write_checkpoint
from tests.methods.helpers import minimal_plans, random_batch


class Scaled(nn.Module):
    """The stack times a number for each channel, made of the code; zero when fresh."""

    serves = "flow"

    def __init__(self, channels, plan, code_size):
        super().__init__()
        self.channels = channels
        self.gains = nn.Linear(code_size, channels)
        nn.init.zeros_(self.gains.weight)
        nn.init.zeros_(self.gains.bias)

    def forward(self, stack, code):
        gains = self.gains(code)[:, self.channels - stack.shape[1] :]
        return stack * gains.view(*gains.shape, *[1] * (stack.ndim - 2))


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    point = EntryPoint("scaled", f"{__name__}:Scaled", "longflow.networks")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "longflow.networks" else [])


@pytest.mark.parametrize("name", ["cronos", "cronos_discrete", "tfm"])
def test_a_flow_is_built_trained_and_predicts_with_it(name):
    assert named_with_network(name, "scaled") == f"{name}-scaled"
    method = build_method(f"{name}-scaled", minimal_plans(), "3d_fullres")
    assert isinstance(method.network, Scaled)
    batch = random_batch()
    assert torch.equal(method.predict(batch)["last"], batch.context[:, -1])
    method.training_step(batch).backward()
    torch.optim.SGD(method.parameters(), 0.1).step()
    assert method.network.gains.bias.any()
    assert not torch.equal(method.predict(batch)["last"], batch.context[:, -1])


def test_its_weights_are_read_again(tmp_path):
    plans = minimal_plans()
    method = build_method("cronos-scaled", plans, "3d_fullres")
    nn.init.normal_(method.network.gains.weight)
    header = {"method": "cronos-scaled", "plan_identity": plans.identity("3d_fullres"), "options": {}}
    weights = {f"weights.{name}": tensor for name, tensor in method.state_dict().items()}
    write_checkpoint(Checkpoint(weights, header), tmp_path / "x.safetensors")
    again = load_method(tmp_path / "x.safetensors", "cronos-scaled", plans, "3d_fullres")
    assert torch.equal(again.network.gains.weight, method.network.gains.weight)


def test_the_default_network_keeps_the_name_of_the_method():
    assert method_class("cronos").networks == ("film_unet", "diffusion_unet", "concatenation_unet", "scaled")
    assert named_with_network("cronos", "film_unet") == named_with_network("cronos", None) == "cronos"
    assert "scaled" not in method_class("mfm").networks
