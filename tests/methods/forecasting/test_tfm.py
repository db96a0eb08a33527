import math

import pytest
import torch

from longflow.methods.forecasting.tfm import sinusoidal_embedding
from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch


def test_embedding_is_the_printed_formula():
    found = sinusoidal_embedding(torch.tensor([3.0]), 8)[0].tolist()
    angles = [3.0 * 10_000 ** (-index / 4) for index in range(4)]
    expected = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
    assert all(abs(a - b) < 1e-6 for a, b in zip(found, expected, strict=True))


def test_holes_take_the_nearest_earlier_scan_and_the_front_the_earliest():
    method = build_method("tfm", minimal_plans(grid_length=6), "3d_fullres")
    batch = random_batch(scans=2)
    batch.context_times = torch.tensor([[-3.0, 0.0]]).expand(2, 2)
    batch.target_time = torch.ones(2)
    stack, _ = method.stack(batch)
    expected = [0, 0, 0, 0, 0, 1]
    assert all(torch.equal(stack[:, slot], batch.context[:, scan]) for slot, scan in enumerate(expected))


def test_the_code_tells_flow_steps_apart():
    method, batch = build_method("tfm", minimal_plans(), "3d_fullres"), random_batch()
    code = method.code(batch, torch.tensor([0.5, 0.6]))
    assert (code[0] - code[1]).norm() > 0.5


@pytest.mark.parametrize("network", ["diffusion_unet", "concatenation_unet"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_with_each_network_it_starts_at_the_last_scan_and_learns_a_sample_by_heart(network, dimensions):
    torch.manual_seed(0)
    plans = minimal_plans(dimensions=dimensions)
    method = build_method(f"tfm-{network}", plans, next(iter(plans.configurations)))
    batch = random_batch(shape=(4, 8, 8)[-dimensions:])
    assert torch.equal(method.predict(batch)["last"], batch.context[:, -1])
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
