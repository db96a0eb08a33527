"""The loss against NumPy, its layers, and where its gradient goes."""

import numpy as np
import pytest
import torch

from longflow.methods.pretraining.patchnce import TEMPERATURE, patch_contrast
from longflow.methods.registry import build_method
from tests.methods.pretraining.helpers import check_steps, pair_batch, step
from tests.methods.segmentation.helpers import segmentation_plans


def make(dimensions: int = 2, channels: int = 1, **options):
    plans = segmentation_plans(dimensions, channels)
    return build_method("patchnce", plans, next(iter(plans.configurations)), options), plans


def expected_contrast(queries: np.ndarray, keys: np.ndarray) -> float:
    losses = []
    for query, key in zip(queries, keys, strict=True):
        for place in range(len(query)):
            total = sum(np.exp(query[place] @ other / TEMPERATURE) for other in key)
            losses.append(-np.log(np.exp(query[place] @ key[place] / TEMPERATURE) / total))
    return float(np.mean(losses))


def test_the_loss_is_that_of_the_equation_and_keys_have_no_gradient():
    queries, keys = (
        torch.nn.functional.normalize(torch.randn(2, 5, 3, dtype=torch.float64), dim=2).requires_grad_()
        for _ in range(2)
    )
    loss = patch_contrast(queries, keys)
    loss.backward()
    assert np.isclose(loss.item(), expected_contrast(queries.detach().numpy(), keys.detach().numpy()))
    assert queries.grad.abs().sum() > 0 and keys.grad is None


def test_the_step_is_the_mean_over_layers_and_both_directions():
    """All maps of this network are smaller than the number of places, so that their order alone is drawn."""
    method, plans = make()
    batch = pair_batch(plans, 2)
    with torch.no_grad():
        features = method.network.features(batch.pair.flatten(0, 1))
        layers = [*features.encoder, features.decoder[0]]
        expected = []
        for layer, head in zip(layers, method.heads, strict=True):
            vectors = head(layer.flatten(2).transpose(1, 2)).double().numpy()
            vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
            first, second = vectors[::2], vectors[1::2]
            expected.append((expected_contrast(first, second) + expected_contrast(second, first)) / 2)
    assert np.isclose(step(method, batch).item(), np.mean(expected), rtol=1e-4)
    assert np.isclose(method.terms["encoder"].item(), np.mean(expected[:3]), rtol=1e-4)
    assert np.isclose(method.terms["decoder"].item(), expected[3], rtol=1e-4)


@pytest.mark.parametrize(("dimensions", "channels", "pairs"), [(2, 1, 1), (3, 2, 2)])
def test_training(dimensions, channels, pairs):
    method, plans = make(dimensions, channels)
    check_steps(method, pair_batch(plans, pairs), {"encoder", "decoder"})


def test_cut_looks_at_the_encoder_alone():
    method, plans = make(decoder=False)
    step(method, pair_batch(plans)).backward()
    assert set(method.terms) == {"encoder"}
    assert all(weight.grad is None for weight in method.network.unet.decoder.stages.parameters())


def test_places_out_of_order_cost_and_in_order_cost_little():
    vectors = torch.eye(4)[None]
    assert patch_contrast(vectors, vectors) < 1e-4 < 10 < patch_contrast(vectors, vectors.roll(1, 1))
