"""Both losses against NumPy; views of one scan; what happens with one pair alone."""

import numpy as np
import pytest
import torch

from longflow.methods.pretraining.glcl import TEMPERATURE, contrast, random_gamma, two_views
from longflow.methods.registry import build_method
from longflow.plans import Plans
from tests.methods.pretraining.helpers import check_steps, encoder_gradient, pair_batch, step
from tests.methods.segmentation.helpers import segmentation_plans


def plans_of(dimensions: int = 2, channels: int = 1) -> Plans:
    """Patches large enough for several regions: a local map of 8 x 8 voxels."""
    content = segmentation_plans(dimensions, channels).model_dump()
    (configuration,) = content["configurations"].values()
    configuration["patch_size"] = [4, 16, 16][-dimensions:]
    return Plans.model_validate(content)


def make(dimensions: int = 2, channels: int = 1, **options):
    plans = plans_of(dimensions, channels)
    return build_method("glcl", plans, next(iter(plans.configurations)), options), plans


def expected_contrast(vectors: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = np.exp(vectors @ vectors.T / TEMPERATURE)
    losses = []
    for one, other in np.argwhere(positive):
        total = similarity[one, other] + similarity[one, negative[one]].sum()
        losses.append(-np.log(similarity[one, other] / total))
    return float(np.mean(losses))


def test_the_loss_is_that_of_the_equation():
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(7, 3))
    parts = np.array([0, 0, 1, 1, 1, 2, 2])
    alike = parts[:, None] == parts
    positive = alike & ~np.eye(7, dtype=bool)
    normal = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1)
    found = contrast(normal, torch.from_numpy(positive), torch.from_numpy(~alike))
    assert np.isclose(found.item(), expected_contrast(vectors, positive, ~alike))


@torch.no_grad()
def test_the_step_is_global_over_parts_plus_local_over_regions():
    method, plans = make()
    batch = pair_batch(plans, 3)
    batch.position = torch.tensor([0.05, 0.2, 0.95])
    batch.clean_pair = batch.pair = torch.rand(3, 1, 1, 16, 16).repeat(1, 2, 1, 1, 1)  # the coin does not matter
    method.eval()
    loss = step(method, batch)

    torch.manual_seed(0)
    features = method.network.features(two_views(batch).flatten(0, 1))
    slices = method.global_head(features.encoder[-1]).double().numpy()
    parts = np.array([0, 0, 0, 0, 3, 3])
    alike = parts[:, None] == parts
    found_global = expected_contrast(slices, alike & ~np.eye(6, dtype=bool), ~alike)

    regions = method.local_head(features.decoder[0]).double().numpy().reshape(3, 2, 128, 4)
    local = []
    for views in regions:
        places = np.tile(np.arange(4), 2)
        same = places[:, None] == places
        vectors = np.concatenate([view.T for view in views])
        local.append(expected_contrast(vectors, same & ~np.eye(8, dtype=bool), ~same))

    assert np.isclose(method.terms["global"].item(), found_global, rtol=1e-4)
    assert np.isclose(method.terms["local"].item(), np.mean(local), rtol=1e-4)
    assert np.isclose(loss.item(), found_global + np.mean(local), rtol=1e-4)


def test_a_region_is_seen_where_it_lies():
    """The local head is one linear map of each region of 3 x 3 voxels after its 1 x 1 convolutions."""
    method, _ = make()
    head = method.local_head.eval()
    stage = torch.randn(1, 8, 8, 8)
    with torch.no_grad():
        found = head(stage)[0, :, 1, 0].numpy()
        mapped = head[3](head[2](head[1](head[0](stage))))[0].numpy()
    weights = head[4].weight.detach().numpy()
    assert np.allclose(found, np.einsum("ofyx,fyx->o", weights, mapped[:, 3:6, 0:3]), atol=1e-5)


def test_views_are_of_one_scan_under_one_spatial_draw():
    batch = pair_batch(plans_of(), 6)
    views = two_views(batch)
    scans = [next(k for k in range(2) if torch.equal(view, batch.pair[n, k])) for n, view in enumerate(views[:, 0])]
    assert set(scans) == {0, 1}
    for number, scan in enumerate(scans):
        clean, view = batch.clean_pair[number, scan].flatten(), views[number, 1].flatten()
        assert torch.equal(clean.argsort(), view.argsort()) and not torch.allclose(clean, view)


def test_gamma_keeps_the_extremes_and_a_constant_image():
    image = torch.randn(2, 3, 4, 5)
    changed = random_gamma(image)
    assert torch.allclose(changed.amin((2, 3)), image.amin((2, 3)), atol=1e-6)
    assert torch.allclose(changed.amax((2, 3)), image.amax((2, 3)), atol=1e-6)
    constant = torch.full((1, 1, 2, 2), -0.5)
    assert torch.equal(random_gamma(constant), constant)


@pytest.mark.parametrize(("dimensions", "channels", "pairs"), [(2, 1, 1), (2, 1, 3), (3, 2, 2)])
def test_training(dimensions, channels, pairs):
    method, plans = make(dimensions, channels)
    check_steps(method, pair_batch(plans, pairs), {"global", "local"})


def test_one_pair_alone_has_no_global_loss():
    method, plans = make(local=0.0)
    loss = step(method, pair_batch(plans))
    assert loss.item() == pytest.approx(0, abs=1e-6) and encoder_gradient(method, loss) == 0


def test_the_decoder_learns_locally():
    method, plans = make()
    step(method, pair_batch(plans)).backward()
    stages = method.network.unet.decoder.stages
    assert all(weight.grad.abs().sum() > 0 for name, weight in stages[0].named_parameters() if "conv.weight" in name)


@pytest.mark.parametrize(("stages", "block"), [(3, 0), (4, 0), (6, 2)])
def test_the_local_map_is_the_third_finest_of_the_decoder(stages, block):
    content = plans_of().model_dump()
    configuration = content["configurations"]["2d"]
    configuration["patch_size"] = [64, 64]
    configuration["network"].update(
        features_per_stage=[8] * (stages - 1) + [16],
        strides=[[1, 1]] + [[2, 2]] * (stages - 1),
        kernel_sizes=[[3, 3]] * stages,
    )
    method = build_method("glcl", Plans.model_validate(content), "2d")
    assert method.block == block == max(0, (stages - 1) - 3)
    assert method.training_step(pair_batch(method.plans)).isfinite()
