import numpy as np
import pytest
import torch

from longflow.data.labels import label_manager
from longflow.methods.registry import build_method, method_class
from longflow.methods.segmentation.unet import DICE_SMOOTH, supervised_loss, uses_batch_dice
from tests.methods.segmentation.helpers import scan_batch, segmentation_plans

LABELS = {"background": 0, "left": 1, "right": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def soft_dice(shares: np.ndarray, truth: np.ndarray, batch_dice: bool) -> float:
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    overlap, total = (shares * truth).sum(axes), shares.sum(axes) + truth.sum(axes)
    return float(((2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)).mean())


def draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(2, 3, 2, 3, 4)).astype(np.float32), generator.integers(0, 3, (2, 1, 2, 3, 4))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_loss_is_soft_dice_of_the_structures_plus_cross_entropy(batch_dice):
    logits, labels = draw()
    shares, truth = softmax(logits), np.eye(3)[labels[:, 0]].transpose(0, 4, 1, 2, 3)
    cross_entropy = -np.log((shares * truth).sum(1)).mean()
    expected = cross_entropy - soft_dice(shares[:, 1:], truth[:, 1:], batch_dice)
    loss = supervised_loss(label_manager(LABELS, []), 1, batch_dice)
    assert loss([torch.tensor(logits)], [torch.tensor(labels).float()]).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_regions_is_soft_dice_plus_binary_cross_entropy():
    logits, _ = draw()
    logits, truth = logits[:, :2], np.random.default_rng(1).integers(0, 2, (2, 2, 2, 3, 4)).astype(float)
    shares = 1 / (1 + np.exp(-logits))
    cross_entropy = -(truth * np.log(shares) + (1 - truth) * np.log(1 - shares)).mean()
    loss = supervised_loss(label_manager(REGIONS, [1, 2]), 1, batch_dice=False)
    expected = cross_entropy - soft_dice(shares, truth, batch_dice=False)
    assert loss([torch.tensor(logits)], [torch.tensor(truth).float()]).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_voxels_of_the_ignore_label_do_not_matter(regions):
    labels, order = ({**REGIONS, "ignore": 3}, [1, 2]) if regions else ({**LABELS, "ignore": 3}, [])
    loss = supervised_loss(label_manager(labels, order), 1, batch_dice=False)
    logits, truth = draw()
    outputs = torch.tensor(logits[:, :2] if regions else logits)
    target = torch.tensor(truth).float()
    if regions:
        target = torch.cat([target > 0, target > 1, torch.zeros_like(target).bool()], 1).float()
    target[:, -1, 0] = 1 if regions else 3
    changed = outputs.clone()
    changed[:, :, 0] += 5
    assert torch.equal(loss([outputs], [target]), loss([changed], [target]))
    changed[:, 0, 1] += 5
    assert not torch.equal(loss([outputs], [target]), loss([changed], [target]))


def test_outputs_are_weighted_by_powers_of_a_half_and_the_coarsest_is_excluded():
    loss = supervised_loss(label_manager(LABELS, []), 4, batch_dice=False)
    np.testing.assert_allclose(loss.weight_factors, np.array([1, 0.5, 0.25, 0]) / 1.75)
    assert supervised_loss(label_manager(LABELS, []), 1, batch_dice=False).weight_factors == (1,)


def test_dice_is_over_the_batch_where_nnunets_planner_says_so():
    assert uses_batch_dice(segmentation_plans(dimensions=2), "2d")
    plans = segmentation_plans()
    assert not uses_batch_dice(plans, "3d_fullres")
    plans.configurations["3d_lowres"] = plans.configurations["3d_fullres"]
    assert uses_batch_dice(plans, "3d_fullres")
    assert not uses_batch_dice(plans, "3d_lowres")


@pytest.mark.parametrize("encoder", ["plain", "residual"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_step_has_gradients_and_a_prediction_is_the_finest_output(dimensions, encoder):
    plans = segmentation_plans(dimensions, channels=2, encoder=encoder)
    (configuration,) = plans.configurations
    method = build_method("unet", plans, configuration)
    batch = scan_batch(plans)
    loss = method(batch)
    loss.backward()
    assert method.terms["supervised"] == loss
    unused = [name for name, weight in method.named_parameters() if weight.grad is None]
    assert all("seg_layers.0" in name for name in unused)  # the coarsest output
    logits = method.predict(batch)["logits"]
    assert logits.shape == (2, 3, *plans.configuration(configuration).patch_size)
    assert torch.equal(logits, method.network(batch.image)[0])


def test_training_on_one_batch_finds_its_labels():
    torch.manual_seed(0)
    plans = segmentation_plans()
    method, batch = build_method("unet", plans, "3d_fullres"), scan_batch(plans)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    before = method(batch).item()
    for _ in range(40):
        optimizer.zero_grad()
        method(batch).backward()
        optimizer.step()
    assert method(batch).item() < before - 0.2


def test_regions_have_one_output_each():
    plans = segmentation_plans()
    plans.labels, plans.regions_class_order = REGIONS, [1, 2]
    method = build_method("unet", plans, "3d_fullres")
    assert method.predict(scan_batch(plans))["logits"].shape[1] == 2


def test_the_recipe_is_nnunets():
    recipe = build_method("unet", segmentation_plans(), "3d_fullres").recipe
    assert (recipe.optimizer, recipe.schedule, recipe.keep) == ("sgd", "polynomial", "last")
    assert (recipe.learning_rate, recipe.betas[0], recipe.weight_decay) == (0.01, 0.99, 3e-5)
    assert (recipe.gradient_clip, recipe.ema_decay) == (12, 0)
    kind = method_class("unet")
    assert (kind.task, kind.samples, kind.validation, kind.mirrors) == ("segment", "labelled", "labels", True)


def test_adam_is_that_of_unet_consistent():
    recipe = build_method("unet", segmentation_plans(), "3d_fullres", {"adam": "on"}).recipe
    assert recipe == build_method("unet_consistent", segmentation_plans(), "3d_fullres").recipe
    assert recipe.optimizer == "adam"
