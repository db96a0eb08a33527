"""Neighbours and their weights against NumPy; the bank fills, forgets, leaves out one's own subject, and rests."""

import numpy as np
import pytest
import torch

from longflow.methods.pretraining.lne import BANK, neighbour_weights
from longflow.methods.registry import build_method
from tests.methods.pretraining.helpers import check_steps, encoder_gradient, pair_batch, step
from tests.methods.segmentation.helpers import segmentation_plans


def make(dimensions: int = 2, channels: int = 1, **options):
    plans = segmentation_plans(dimensions, channels)
    return build_method("lne", plans, next(iter(plans.configurations)), options), plans


def expected_weights(latents, candidates, allowed, neighbours):
    """Gaussian weights of the nearest, sigma = longest - shortest distance, rows divided by their sum."""
    weights = np.zeros((len(latents), len(candidates)))
    for row, latent in enumerate(latents):
        places = np.flatnonzero(allowed[row])
        distance = np.array([np.linalg.norm(latent - candidates[place]) for place in places])
        sigma = distance.max() - distance.min()
        for nearest in np.argsort(distance)[:neighbours]:
            weights[row, places[nearest]] = np.exp(-(distance[nearest] ** 2) / (2 * sigma**2))
        weights[row] /= weights[row].sum()
    return weights


def test_weights_are_gaussian_over_the_nearest_neighbours():
    draw = np.random.default_rng(0)
    latents, candidates = draw.normal(size=(3, 4)), draw.normal(size=(7, 4))
    allowed = draw.random((3, 7)) > 0.2
    found = neighbour_weights(*(torch.from_numpy(array) for array in (latents, candidates, allowed)), neighbours=2)
    assert (found > 0).sum(1).tolist() == [2, 2, 2]
    assert np.allclose(found, expected_weights(latents, candidates, allowed, 2))


def test_one_candidate_or_several_equally_far_weigh_the_same_and_none_weighs_nothing():
    latents = torch.zeros(3, 2)
    candidates = torch.tensor([[3.0, 0], [0, 3], [-3, 0], [9, 9]])
    allowed = torch.tensor([[True, True, True, False], [False, True, False, False], [False] * 4])
    found = neighbour_weights(latents, candidates, allowed, neighbours=5)
    assert torch.allclose(found, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0], [0, 1, 0, 0], [0, 0, 0, 0]]))


def test_the_loss_of_a_batch_is_that_of_the_equations():
    method, plans = make(neighbours=2)
    batch = pair_batch(plans, pairs=4)
    batch.pair_times = torch.tensor([[0, 1.0], [0, 2], [0, 0.5], [0, 4]])
    with torch.no_grad():
        features = method.network.features(batch.pair.flatten(0, 1))
        rebuilt = method.network.logits(features)[0].view_as(batch.pair).numpy()
    z = features.encoder[-1].reshape(4, 2, -1).double().numpy()
    dz = (z[:, 1] - z[:, 0]) / np.array([1, 2, 0.5, 4])[:, None]
    dh = expected_weights(z[:, 0], z[:, 0], ~np.eye(4, dtype=bool), 2) @ dz
    cosine = (dz * dh).sum(1) / np.linalg.norm(dz, axis=1) / np.linalg.norm(dh, axis=1)
    direction, reconstruction = np.mean(1 - cosine), ((rebuilt - batch.pair.numpy()) ** 2).mean()

    loss = step(method, batch)
    assert np.isclose(method.terms["direction"].item(), direction, rtol=1e-4)
    assert np.isclose(method.terms["reconstruction"].item(), reconstruction, rtol=1e-4)
    assert np.isclose(loss.item(), 2 * reconstruction + direction, rtol=1e-4)


@pytest.mark.parametrize(("dimensions", "channels", "pairs"), [(2, 1, 1), (3, 2, 2)])
def test_training(dimensions, channels, pairs):
    method, plans = make(dimensions, channels)
    check_steps(method, pair_batch(plans, pairs), {"reconstruction", "direction"})


def test_a_single_pair_finds_its_neighbours_in_earlier_steps():
    method, plans = make(reconstruction=0.0)
    alone = step(method, pair_batch(plans, subjects=[0]))
    assert alone == 0 and encoder_gradient(method, alone) == 0
    loss = step(method, pair_batch(plans, subjects=[1], seed=1))
    assert loss > 0 and encoder_gradient(method, loss) > 0
    assert method.bank_subjects[:3].tolist() == [0, 1, -1]


def test_ones_own_subject_is_no_neighbour_in_training():
    method, plans = make()
    for seed in range(2):
        step(method, pair_batch(plans, pairs=2, subjects=[7, 7], seed=seed))
        assert method.terms["direction"] == 0
    # numbers of validation subjects count among themselves, not against the bank
    method.eval()
    step(method, pair_batch(plans, subjects=[7], seed=3))
    assert method.terms["direction"] > 0


def test_the_bank_forgets_the_oldest():
    method, plans = make()
    for number in range(0, BANK + 3, 3):
        step(method, pair_batch(plans, pairs=3, subjects=[number, number + 1, number + 2]))
    assert sorted(method.bank_subjects.tolist()) == list(range(number + 3 - BANK, number + 3))
    step(method, pair_batch(plans, pairs=BANK + 1))
    assert sorted(method.bank_subjects.tolist()) == list(range(1, BANK + 1))


def test_scans_of_one_time_and_equal_scans_are_no_division_by_zero():
    method, plans = make()
    batch = pair_batch(plans, pairs=2)
    batch.pair_times = torch.zeros(2, 2)
    batch.pair = batch.pair[:, :1].repeat(1, 2, 1, 1, 1)
    loss = step(method, batch)
    assert loss.isfinite() and encoder_gradient(method, loss) > 0
