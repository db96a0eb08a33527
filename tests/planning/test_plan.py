import numpy as np
import pytest

from longflow.errors import ConfigurationError
from longflow.planning import plan as planning
from longflow.planning.plan import make_plans
from longflow.plans import read_plans, write_plans
from tests.planning.helpers import description, fingerprint

CINE = [[float(frame) for frame in range(6)]] * 3


@pytest.fixture
def quick_memory(monkeypatch):
    """Voxels of a batch times 4 kB instead of a training step."""

    def voxels(method, plans, configuration, device, bf16):
        plan = plans.configuration(configuration)
        return float(np.prod(plan.patch_size) * plan.batch_size * 4000)

    monkeypatch.setattr(planning, "training_memory", voxels)


def test_plans_are_valid_and_survive_the_disk(tmp_path, quick_memory):
    plans = make_plans(fingerprint(CINE, [9, 250, 216], [10, 1.5, 1.5], "frames"), description("frames"), "tiny")
    write_plans(plans, tmp_path / "plans.json")
    assert read_plans(tmp_path / "plans.json") == plans
    assert plans.temporal.sequence_length == 5
    assert plans.channels[0].normal_form == "per_subject"
    for plan in plans.configurations.values():
        assert plan.reasons
        assert set(plan.memory_estimate) == {"cronos", "cronos_discrete", "tfm"}
        assert max(plan.memory_estimate.values()) <= plans.gpu_memory


def test_more_memory_gives_larger_patches(quick_memory):
    found = fingerprint(CINE, [64, 256, 256], [3, 1, 1])
    small, large = (make_plans(found, description(), "M", memory).configurations["3d_fullres"] for memory in (4, 16))
    assert np.prod(small.patch_size) < np.prod(large.patch_size)


def test_the_preset_gives_the_memory(quick_memory):
    found = fingerprint(CINE, [16, 64, 64], [3, 1, 1])
    assert make_plans(found, description(), "S").gpu_memory == 4
    assert make_plans(found, description(), "L").training.epochs == 1000


def test_a_task_that_cannot_be_planned_yet():
    with pytest.raises(ConfigurationError, match="'translate'"):
        make_plans(fingerprint(CINE, [8, 8, 8], [1, 1, 1]), description(task="translate"), "tiny")


def test_the_real_estimate_fits_the_budget():
    found = fingerprint([[0.0, 1]] * 3, [6, 64, 64], [10, 1.5, 1.5])
    plans = make_plans(found, description(), "tiny", gpu_memory=0.05)
    for plan in plans.configurations.values():
        assert max(plan.memory_estimate.values()) <= 0.05
    assert plans.configurations["3d_fullres"].patch_size != [6, 64, 64]
