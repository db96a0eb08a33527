import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch


def test_the_forecast_is_the_last_context_scan():
    batch = random_batch()
    found = build_method("lci", minimal_plans(), "3d_fullres").predict(batch)
    assert torch.equal(found["forecast"], batch.context[:, -1])


def test_there_is_nothing_to_train():
    with pytest.raises(ConfigurationError, match="nothing to train"):
        build_method("lci", minimal_plans(), "3d_fullres").training_step(random_batch())
