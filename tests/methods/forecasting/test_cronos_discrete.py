import torch

from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch


def test_the_stack_is_the_grid_before_the_target_filled_forward():
    method = build_method("cronos_discrete", minimal_plans(grid_length=5), "3d_fullres")
    batch = random_batch(scans=3)
    stack, mask = method.stack(batch)
    # horizon 1.5 intervals: slots end half an interval after the last scan, at -3.5, -2.5, -1.5, -0.5, 0.5;
    # scans at -2, -1, 0 lie halfway between two slots and go to the later one
    expected = [0, 0, 0, 1, 2]
    assert all(torch.equal(stack[:, slot], batch.context[:, scan]) for slot, scan in enumerate(expected))
    assert mask.all()


def test_a_longer_horizon_shows_as_a_longer_carry():
    method = build_method("cronos_discrete", minimal_plans(grid_length=5), "3d_fullres")
    batch = random_batch(scans=3)
    batch.target_time = torch.full((2,), 3.0)
    stack, _ = method.stack(batch)
    expected = [0, 1, 2, 2, 2]
    assert all(torch.equal(stack[:, slot], batch.context[:, scan]) for slot, scan in enumerate(expected))


def test_a_grid_of_one_slot_holds_the_last_scan():
    method = build_method("cronos_discrete", minimal_plans(grid_length=1), "3d_fullres")
    batch = random_batch(scans=3)
    assert torch.equal(method.stack(batch)[0][:, 0], batch.context[:, -1])
