"""Swaps keep all voxels, move whole patches, and follow the seed; the loss is the restoration's."""

import numpy as np
import pytest
import torch

from longflow.methods.pretraining.context_restoration import swap_patches
from longflow.methods.registry import build_method
from tests.methods.pretraining.helpers import check_steps, pair_batch, step
from tests.methods.segmentation.helpers import segmentation_plans


def _numbered(batch: int, channels: int, *spatial: int) -> torch.Tensor:
    return torch.arange(batch * channels * int(np.prod(spatial))).view(batch, channels, *spatial).float()


@pytest.mark.parametrize("spatial", [(16, 16), (8, 16, 16)])
def test_one_swap_exchanges_two_patches_and_nothing_else(spatial):
    image = _numbered(1, 2, *spatial)
    edges = [size // 8 for size in spatial]
    torch.manual_seed(1)
    swapped = swap_patches(image, edges, 1)
    moved = (swapped != image)[0]
    assert torch.equal(moved[0], moved[1]), "channels move together"
    assert moved[0].sum() == 2 * np.prod(edges)

    here = moved[0].nonzero()[0]
    there = (image[0, 0] == swapped[0, 0][tuple(here)]).nonzero()[0]
    here, there = (
        (0, slice(None), *(slice(start, start + edge) for start, edge in zip(corner.tolist(), edges, strict=True)))
        for corner in (here, there)
    )
    assert torch.equal(swapped[here], image[there]) and torch.equal(swapped[there], image[here])


def test_swaps_follow_the_equation_of_repeated_exchange():
    """Against NumPy: the same corners, exchanged one after the other."""
    image, edges, swaps = _numbered(2, 1, 6, 7), (2, 3), 5
    torch.manual_seed(2)
    found = swap_patches(image, edges, swaps).numpy()
    torch.manual_seed(2)
    draws = torch.rand(swaps, 2, 2, 2).numpy()
    expected = image.numpy().copy()
    exchanged = 0
    for number in range(2):
        for (y1, x1), (y2, x2) in np.floor(draws[:, :, number] * [5, 5]).astype(int):
            if abs(y1 - y2) < 2 and abs(x1 - x2) < 3:
                continue
            exchanged += 1
            one = expected[number, 0, y1 : y1 + 2, x1 : x1 + 3].copy()
            expected[number, 0, y1 : y1 + 2, x1 : x1 + 3] = expected[number, 0, y2 : y2 + 2, x2 : x2 + 3]
            expected[number, 0, y2 : y2 + 2, x2 : x2 + 3] = one
    assert exchanged > 2
    assert np.array_equal(found, expected)


def test_images_of_a_batch_have_their_own_swaps_and_keep_their_voxels():
    image = _numbered(1, 1, 16, 16).repeat(2, 1, 1, 1)
    swapped = swap_patches(image, (2, 2), 8)
    assert not torch.equal(swapped[0], swapped[1])
    assert torch.equal(swapped.flatten(1).sort(1).values, image.flatten(1))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_requested_share_of_the_voxels_is_swapped(dimensions):
    plans = segmentation_plans(dimensions)
    name = next(iter(plans.configurations))
    method = build_method("context_restoration", plans, name, {"swapped": 0.5})
    assert method.edges == [1] * dimensions
    assert 2 * method.swaps == 0.5 * np.prod(plans.configuration(name).patch_size)


@pytest.mark.parametrize(("dimensions", "channels", "pairs"), [(2, 1, 1), (3, 2, 2)])
def test_training(dimensions, channels, pairs):
    plans = segmentation_plans(dimensions, channels)
    method = build_method("context_restoration", plans, next(iter(plans.configurations)))
    check_steps(method, pair_batch(plans, pairs), {"restoration"})


def test_the_loss_is_the_mean_squared_difference_to_the_image_before_the_swaps():
    plans = segmentation_plans(2)
    method = build_method("context_restoration", plans, "2d")
    torch.nn.init.zeros_(method.network.unet.decoder.seg_layers[-1].weight)
    torch.nn.init.constant_(method.network.unet.decoder.seg_layers[-1].bias, 0.5)
    batch = pair_batch(plans)
    assert np.isclose(step(method, batch).item(), ((batch.pair.numpy() - 0.5) ** 2).mean(), rtol=1e-5)
