from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.registry import build_method
from longflow.methods.segmentation.unet import DICE_SMOOTH
from longflow.methods.segmentation.unet_consistent import consistency_loss
from longflow.planning.memory import training_memory
from tests.methods.segmentation.helpers import scan_batch, segmentation_plans


def dice(shares: np.ndarray, decision: np.ndarray) -> float:
    return (2 * (shares * decision).sum() + DICE_SMOOTH) / (shares.sum() + decision.sum() + DICE_SMOOTH)


def expected_consistency(shares: np.ndarray, decisions: np.ndarray) -> float:
    """1 - mean Dice over the directions and those structures of a pair that one of the decisions shows."""
    values = [
        dice(shares[scan, structure], decisions[1 - scan, structure])
        for scan in range(2)
        for structure in range(shares.shape[1])
        if decisions[:, structure].any()
    ]
    return 1 - np.mean(values) if values else 0.0


def test_consistency_is_one_minus_the_mean_dice_of_each_scan_with_the_others_decision():
    generator = np.random.default_rng(0)
    shares = generator.uniform(size=(2, 3, 2, 3, 4))
    decisions = generator.integers(0, 2, shares.shape)
    decisions[1, 1] = 0  # one scan alone shows it: a disagreement
    loss = consistency_loss(torch.tensor(shares), torch.tensor(decisions)).item()
    assert loss == pytest.approx(expected_consistency(shares, decisions), rel=1e-9)


def test_a_structure_that_neither_scan_shows_is_not_counted():
    generator = np.random.default_rng(0)
    shares = generator.uniform(size=(2, 2, 2, 3, 4))
    decisions = generator.integers(0, 2, shares.shape)
    decisions[:, 1], shares[:, 1] = 0, 1e-3
    loss = consistency_loss(torch.tensor(shares), torch.tensor(decisions)).item()
    alone = consistency_loss(torch.tensor(shares[:, :1]), torch.tensor(decisions[:, :1])).item()
    assert loss == pytest.approx(alone, rel=1e-9)
    assert loss == pytest.approx(expected_consistency(shares, decisions), rel=1e-9)


def test_scans_that_show_nothing_cost_nothing_and_change_nothing():
    shares = torch.full((2, 2, 2, 3, 4), 1e-3, requires_grad=True)
    loss = consistency_loss(shares, torch.zeros(shares.shape, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and not shares.grad.any()


def test_scans_that_agree_with_certainty_cost_nothing_and_those_that_do_not_overlap_cost_one():
    first = torch.zeros(1, 1, 2, 4, 4)
    first[..., :2] = 1
    assert consistency_loss(torch.cat([first, first]), torch.cat([first, first])) == 0
    apart = torch.cat([first, 1 - first])
    assert consistency_loss(apart, apart).item() == pytest.approx(1, abs=1e-5)


def test_the_gradient_flows_to_both_scans():
    shares = torch.rand(2, 2, 2, 4, 4, requires_grad=True)
    consistency_loss(shares, shares.detach() > 0.5).backward()
    assert (shares.grad.flatten(2).abs().sum(-1) > 0).all()


@pytest.mark.parametrize("regions", [False, True])
def test_the_loss_of_a_step_is_supervision_plus_consistency_of_the_structures(regions):
    plans = segmentation_plans()
    batch = scan_batch(plans, pairs=2)
    if regions:
        plans.labels, plans.regions_class_order = {"background": 0, "whole": [1, 2], "core": 2}, [1, 2]
        batch.labels = [torch.cat([label > 0, label > 1], 1).float() for label in batch.labels]
    method = build_method("unet_consistent", plans, "3d_fullres")
    loss = method(batch)
    assert loss.item() == pytest.approx((method.terms["supervised"] + method.terms["consistency"]).item())
    logits = np.stack([method.predict(replace(batch, image=pair))["logits"].detach().numpy() for pair in batch.pair])
    if regions:
        shares = 1 / (1 + np.exp(-logits))
        decisions = shares > 0.5
    else:
        shares = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
        decisions = (np.arange(3)[:, None, None, None] == shares.argmax(2)[:, :, None])[:, :, 1:]
        shares = shares[:, :, 1:]
    expected = np.mean([expected_consistency(*of_pair) for of_pair in zip(shares, decisions, strict=True)])
    assert method.terms["consistency"].item() == pytest.approx(expected, rel=1e-4)


def test_gradients_are_those_of_one_backward_pass_through_the_whole_loss():
    plans = segmentation_plans()
    batch = scan_batch(plans, pairs=3)
    method = build_method("unet_consistent", plans, "3d_fullres", {"consistency": 0.7})
    method(batch).backward()
    found = {name: weight.grad for name, weight in method.named_parameters()}
    method.zero_grad()
    losses = []
    for pair in batch.pair:
        shares = torch.softmax(method.network.finest(pair), 1)
        decisions = torch.nn.functional.one_hot(shares.argmax(1), 3).movedim(-1, 1)
        losses.append(consistency_loss(shares[:, 1:], decisions[:, 1:]))
    whole = method.supervised_loss(method.network(batch.image), batch.labels) + 0.7 * sum(losses) / 3
    whole.backward()
    for name, weight in method.named_parameters():
        if weight.grad is None:
            assert found[name] is None
        else:
            torch.testing.assert_close(found[name], weight.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pairs", [None, 3])
def test_a_step_takes_the_memory_of_unet(pairs):
    """But for the images of the pairs, which this small network makes a large part."""
    plans = segmentation_plans()
    plan = plans.configurations["3d_fullres"]
    plan.patch_size, plan.pairs_per_batch = [32, 64, 64], pairs
    labelled = training_memory("unet", plans, "3d_fullres", options={"adam": True})
    images = 4 * 4 * plan.pairs * 32 * 64 * 64
    assert training_memory("unet_consistent", plans, "3d_fullres") < 1.02 * labelled + images


def test_consistency_can_be_weighted_and_switched_off():
    plans = segmentation_plans()
    batch = scan_batch(plans)
    double = build_method("unet_consistent", plans, "3d_fullres", {"consistency": 2})
    loss = double(batch)
    assert loss.item() == pytest.approx((double.terms["supervised"] + 2 * double.terms["consistency"]).item())
    off = build_method("unet_consistent", plans, "3d_fullres", {"consistency": 0})
    off.load_state_dict(double.state_dict())
    assert off(replace(batch, pair=None)).item() == pytest.approx(double.terms["supervised"].item())
    assert list(off.terms) == ["supervised"]


def test_without_pairs_the_message_names_unet():
    plans = segmentation_plans()
    method = build_method("unet_consistent", plans, "3d_fullres")
    with pytest.raises(ConfigurationError, match=r"no training subject with two scans.*-m unet"):
        method(replace(scan_batch(plans), pair=None))


def test_the_recipe_is_the_papers():
    recipe = build_method("unet_consistent", segmentation_plans(), "3d_fullres").recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.betas) == ("adam", 2e-4, (0.5, 0.999))
    assert (recipe.schedule, recipe.keep) == ("linear", "last")
