import numpy as np
import pytest
import torch
from torch import nn

from longflow.networks import umamba_bot
from longflow.networks.umamba_bot import STEP_SIZES, Mamba, MambaLayer, UMambaBot
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake, in_bf16_and_float32


def plan(dimensions: int) -> NetworkPlan:
    return NetworkPlan(
        features_per_stage=[8, 16],
        strides=[[1] * dimensions, [2] * dimensions],
        kernel_sizes=[[3] * dimensions] * 2,
        attention=False,
    )


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def test_mamba_is_what_its_paper_says_step_by_step():
    """One sequence, in NumPy, position after position (Gu & Dao 2023, algorithm 2 and figure 3)."""
    torch.manual_seed(0)
    layer, x = Mamba(4), torch.randn(1, 6, 4)
    weights = {name: tensor.detach().double().numpy() for name, tensor in layer.named_parameters()}
    u, gate = np.split(x[0].double().numpy() @ weights["in_proj.weight"].T, 2, axis=1)
    past = np.concatenate([np.zeros((3, 8)), u])
    kernel = weights["conv1d.weight"][:, 0].T
    u = silu(np.stack([(past[place : place + 4] * kernel).sum(0) for place in range(6)]) + weights["conv1d.bias"])
    step, B, C = np.split(u @ weights["x_proj.weight"].T, [1, 17], axis=1)
    delta = np.log1p(np.exp(step @ weights["dt_proj.weight"].T + weights["dt_proj.bias"]))
    h, rows = np.zeros((8, 16)), []
    for place in range(6):
        decay = np.exp(-delta[place][:, None] * np.exp(weights["A_log"]))
        h = decay * h + delta[place][:, None] * B[place] * u[place][:, None]
        rows.append(h @ C[place] + weights["D"] * u[place])
    expected = (np.stack(rows) * silu(gate)) @ weights["out_proj.weight"].T
    np.testing.assert_allclose(layer(x)[0].detach(), expected, atol=1e-5)


def test_a_position_sees_those_before_it_alone():
    torch.manual_seed(0)
    layer, x = Mamba(8), torch.randn(1, 10, 8)
    changed = x.clone()
    changed[:, 6] += 1
    before, after = layer(x), layer(changed)
    torch.testing.assert_close(after[:, :6], before[:, :6])
    assert (after[:, 6:] - before[:, 6:]).abs().amax(2).min() > 0


def test_step_sizes_start_where_mambas_authors_have_them_and_states_decay_at_different_rates():
    layer = Mamba(32)
    steps = nn.functional.softplus(layer.dt_proj.bias.detach())
    assert steps.min() >= STEP_SIZES[0] * 0.999 and steps.max() <= STEP_SIZES[1] * 1.001
    torch.testing.assert_close(layer.A_log.detach().exp(), torch.arange(1.0, 17).repeat(64, 1))


def test_weights_have_the_names_of_mamba_ssm():
    assert set(Mamba(8).state_dict()) == {
        *("A_log", "D", "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight"),
        *("dt_proj.bias", "out_proj.weight"),
    }


def test_positions_of_a_map_are_read_row_by_row():
    layer, x = MambaLayer(8), torch.randn(2, 8, 2, 3, 4)
    sequence = torch.stack([x[:, :, i, j, k] for i in range(2) for j in range(3) for k in range(4)], dim=1)
    expected = layer.mamba(layer.norm(sequence))
    found = layer(x)
    assert found.shape == x.shape
    torch.testing.assert_close(found[:, :, 1, 2, 0], expected[:, 20])


def test_the_bottleneck_is_the_state_space_layer_which_scans(monkeypatch):
    lengths = []

    def scan(u, *further):
        lengths.append(u.shape[1])
        return u

    monkeypatch.setattr(umamba_bot, "selective_scan", scan)
    UMambaBot(1, 1, plan(2))(torch.randn(1, 1, 8, 12), torch.zeros(1))
    assert lengths == [4 * 6]


@pytest.mark.parametrize("shape", [(12, 10), (4, 8, 8)])
def test_gradients_in_bf16_are_those_of_float32(shape):
    torch.manual_seed(0)
    network = awake(UMambaBot(1, 1, plan(len(shape))))
    low, high = in_bf16_and_float32(network, torch.randn(2, 1, *shape), torch.rand(2))
    assert (low - high).norm() < 0.05 * high.norm()
