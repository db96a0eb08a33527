from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.registry import build_method
from longflow.plans import RecurrencePlan
from tests.methods.helpers import minimal_plans, random_batch


def recurrent_plans():
    plans = minimal_plans()
    plans.temporal.recurrence = RecurrencePlan(periods=[4.0, 5.0], probabilities=[0.5, 0.5], length=1.0, noise=0.03)
    return plans


def recurrent_batch(scans=3):
    batch = random_batch(scans=scans)
    weights = torch.softmax(torch.randn(len(batch.context), scans), dim=1)
    return replace(batch, recurrence=weights, period=torch.full((len(batch.context),), 4.5))


def expected(batch):
    return np.einsum("bs,bs...->b...", batch.recurrence.numpy(), batch.context.numpy())


def test_it_is_the_weighted_sum_of_the_scans():
    batch = recurrent_batch()
    found = build_method("recurrence", recurrent_plans(), "3d_fullres").predict(batch)["forecast"]
    np.testing.assert_allclose(found.numpy(), expected(batch), atol=1e-6)


def test_scans_that_do_not_repeat_are_refused_with_the_reason():
    with pytest.raises(ConfigurationError, match="not better than the last context image"):
        build_method("recurrence", minimal_plans(), "3d_fullres").predict(random_batch())


@pytest.mark.parametrize("scans", [1, 2, 3])
def test_cronos_starts_at_the_expected_scan(scans):
    batch = recurrent_batch(scans)
    method = build_method("cronos", recurrent_plans(), "3d_fullres").eval()
    with torch.no_grad():
        found = method.predict(batch)["last"]
    np.testing.assert_allclose(found.numpy(), expected(batch), atol=1e-5)


def test_every_place_starts_on_its_way_to_the_expected_scan():
    """So the first loss is that of the expected scan, for each place."""
    batch = recurrent_batch()
    loss = build_method("cronos", recurrent_plans(), "3d_fullres").training_step(batch)
    loss.backward()
    assert loss.item() == pytest.approx(float(np.square(batch.target.numpy() - expected(batch)).mean()), rel=1e-4)


@pytest.mark.parametrize(
    "options", [{"recurrence": False}, {"context": "last"}, {"explicit_time": False}], ids=lambda one: next(iter(one))
)
def test_cronos_can_do_without(options):
    batch = recurrent_batch()
    method = build_method("cronos", recurrent_plans(), "3d_fullres", options).eval()
    with torch.no_grad():
        found = method.predict(batch)["last"]
    torch.testing.assert_close(found, batch.context[:, -1])
