import pytest
import torch

from longflow.planning.memory import HOLES, LiveBytes, largest_batch, training_memory
from longflow.planning.plan import make_plans
from tests.planning.helpers import description, fingerprint


@pytest.fixture(scope="module")
def plans():
    found = fingerprint([[0, 1, 2, 3]] * 2, [8, 32, 32], [3, 1, 1])
    return make_plans(found, description(), "tiny")


def test_live_bytes_follow_tensors_from_making_to_end():
    with LiveBytes("cuda") as memory:
        first = torch.zeros(1000)
        view = first.view(10, 100)
        assert memory.live == 4000
        second = first + 1
        del second
        assert (memory.live, memory.peak) == (4000, 8000)
        del first
        assert memory.live == 4000
        del view
        assert memory.live == 0


def test_resident_memory_has_holes():
    with LiveBytes("cpu") as memory:
        memory.fragments = True
        kept = torch.zeros(1000)
        assert memory.live == pytest.approx(4000 * (1 + HOLES))
        del kept


def test_saved_activations_are_counted():
    """Two layers of SiLU on a leaf: input, both activations, and their gradients on the way back."""
    with LiveBytes("cuda") as memory:
        x = torch.zeros(1000, requires_grad=True)
        y = torch.nn.functional.silu(torch.nn.functional.silu(x))
        assert memory.live == 3 * 4000
        y.sum().backward()
    assert memory.peak >= 4 * 4000


def test_memory_grows_with_batch_scans_and_precision(plans):
    one = training_memory("cronos", plans, "3d_fullres", "cuda", batch_size=1)
    four = training_memory("cronos", plans, "3d_fullres", "cuda", batch_size=4)
    half = training_memory("cronos", plans, "3d_fullres", "cuda", bf16=True, batch_size=4)
    assert one < four < 4 * one
    assert 0.4 * four < half < 0.8 * four
    longer = plans.model_copy(update={"temporal": plans.temporal.model_copy(update={"sequence_length": 12})})
    assert training_memory("cronos", longer, "3d_fullres", "cuda", batch_size=1) > one


def test_no_real_tensor_is_made(plans):
    """A patch that no machine could hold is estimated all the same."""
    plan = plans.configuration("3d_fullres").model_copy(update={"patch_size": [1024, 2048, 2048]})
    huge = plans.model_copy(update={"configurations": {"huge": plan}})
    assert training_memory("cronos", huge, "huge", "cuda") > 1e12


def test_a_method_without_weights_has_no_training_step(plans):
    assert training_memory("lci", plans, "3d_fullres") == 0


def test_the_batch_is_a_real_one(plans):
    batch = largest_batch(plans, [8, 32, 32], 2)
    assert batch.context.shape == (2, plans.temporal.sequence_length, 1, 8, 32, 32)
    assert batch.context_times[0, -1] == 0
