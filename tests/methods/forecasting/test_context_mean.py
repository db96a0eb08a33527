import numpy as np

from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch


def test_the_forecast_is_the_mean_of_the_context():
    batch = random_batch()
    found = build_method("context_mean", minimal_plans(), "3d_fullres").predict(batch)["forecast"]
    np.testing.assert_allclose(found.numpy(), batch.context.numpy().mean(1), atol=1e-6)
