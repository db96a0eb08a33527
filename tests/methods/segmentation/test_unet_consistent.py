from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.registry import build_method
from longflow.methods.segmentation.unet import DICE_SMOOTH
from longflow.methods.segmentation.unet_consistent import consistency_loss
from tests.methods.segmentation.helpers import scan_batch, segmentation_plans


def dice(shares: np.ndarray, decision: np.ndarray) -> float:
    return (2 * (shares * decision).sum() + DICE_SMOOTH) / (shares.sum() + decision.sum() + DICE_SMOOTH)


def test_consistency_is_one_minus_the_mean_dice_of_each_scan_with_the_others_decision():
    generator = np.random.default_rng(0)
    shares = generator.uniform(size=(3, 2, 2, 2, 3, 4))
    decisions = generator.integers(0, 2, shares.shape)
    decisions[0, :, 1] = 0  # a structure that neither scan shows
    expected = 1 - np.mean(
        [
            dice(shares[pair, scan, structure], decisions[pair, 1 - scan, structure])
            for pair in range(3)
            for scan in range(2)
            for structure in range(2)
        ]
    )
    assert consistency_loss(torch.tensor(shares), torch.tensor(decisions)).item() == pytest.approx(expected, rel=1e-9)


def test_scans_that_agree_with_certainty_cost_nothing_and_those_that_do_not_overlap_cost_one():
    first = torch.zeros(1, 1, 1, 2, 4, 4)
    first[..., :2] = 1
    assert consistency_loss(torch.cat([first, first], 1), torch.cat([first, first], 1)) == 0
    apart = torch.cat([first, 1 - first], 1)
    assert consistency_loss(apart, apart).item() == pytest.approx(1, abs=1e-5)


def test_the_gradient_flows_to_both_scans():
    shares = torch.rand(1, 2, 2, 2, 4, 4, requires_grad=True)
    consistency_loss(shares, shares.detach() > 0.5).backward()
    assert (shares.grad.flatten(3).abs().sum(-1) > 0).all()


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
    values = [
        dice(shares[pair, scan, structure], decisions[pair, 1 - scan, structure])
        for pair in range(2)
        for scan in range(2)
        for structure in range(2)
    ]
    assert method.terms["consistency"].item() == pytest.approx(1 - np.mean(values), rel=1e-4)


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
