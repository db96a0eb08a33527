"""The loss against NumPy; what is near is a positive pair; what happens without negatives."""

import numpy as np
import pytest
import torch

from longflow.methods.pretraining.pcl import TEMPERATURE, positional_contrast
from longflow.methods.registry import build_method
from tests.methods.pretraining.helpers import check_steps, encoder_gradient, pair_batch, step
from tests.methods.segmentation.helpers import segmentation_plans


def make(dimensions: int = 2, channels: int = 1, **options):
    plans = segmentation_plans(dimensions, channels)
    return build_method("pcl", plans, next(iter(plans.configurations)), options), plans


def test_the_loss_is_that_of_the_equation():
    draw = np.random.default_rng(0)
    vectors, positions = draw.normal(size=(6, 3)), np.array([0.1, 0.1, 0.15, 0.5, 0.5, 0.19])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    losses = []
    for one in range(6):
        others = [other for other in range(6) if other != one]
        total = sum(np.exp(vectors[one] @ vectors[other] / TEMPERATURE) for other in others)
        positives = [other for other in others if abs(positions[one] - positions[other]) < 0.07]
        logs = [np.log(np.exp(vectors[one] @ vectors[other] / TEMPERATURE) / total) for other in positives]
        losses.append(-np.mean(logs))
    found = positional_contrast(torch.from_numpy(vectors), torch.from_numpy(positions), 0.07)
    assert np.isclose(found.item(), np.mean(losses))


def test_alike_where_near_costs_less_than_alike_where_far():
    vectors = torch.eye(2).repeat_interleave(2, 0)
    near, far = torch.tensor([0.1, 0.1, 0.9, 0.9]), torch.tensor([0.1, 0.9, 0.1, 0.9])
    assert positional_contrast(vectors, near, 0.1) < 0.01 < 5 < positional_contrast(vectors, far, 0.1)


@pytest.mark.parametrize(("dimensions", "channels", "pairs"), [(2, 1, 3), (3, 2, 2)])
def test_training(dimensions, channels, pairs):
    method, plans = make(dimensions, channels)
    check_steps(method, pair_batch(plans, pairs), {"contrast"})


def test_one_pair_alone_has_nothing_to_contrast():
    method, plans = make()
    loss = step(method, pair_batch(plans, 1))
    assert loss == 0 and encoder_gradient(method, loss) == 0


def test_a_batch_of_one_pair_is_warned_of(caplog):
    plans = segmentation_plans(2)
    plans.configurations["2d"].batch_size = 4
    build_method("pcl", plans, "2d")
    assert not caplog.records
    plans.configurations["2d"].batch_size = 3
    build_method("pcl", plans, "2d")
    assert "'2d' has one pair (batch_size 3)" in caplog.text


def test_equal_positions_are_near_whatever_the_threshold():
    vectors = torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    positions = torch.tensor([0.2, 0.2, 0.9, 0.9])
    assert positional_contrast(vectors, positions, 0.0) == positional_contrast(vectors, positions, 0.5)


def test_the_threshold_is_an_option():
    """Positions 1/4 and 3/4: far from each other, or all of one kind."""
    batch = pair_batch(segmentation_plans(2), 2)
    (narrow, _), (wide, _) = make(), make(threshold=0.6)
    wide.load_state_dict(narrow.state_dict())
    assert step(narrow, batch) != step(wide, batch)
