import math

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
