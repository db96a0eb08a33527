import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from longflow.methods.forecasting.vivit import MOST_PLACES, Layer, ViViTNetwork, tubelet
from longflow.plans import NetworkPlan


def network(scans: int = 3, channels: int = 1, patch_size: Sequence[int] = (4, 8, 8), features: int = 32):
    torch.manual_seed(0)
    plan = NetworkPlan(
        features_per_stage=[8, features],
        strides=[[1] * len(patch_size), [2] * len(patch_size)],
        kernel_sizes=[[3] * len(patch_size)] * 2,
        attention=False,
    )
    return ViViTNetwork(scans, channels, plan, patch_size)


EVERY = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize("patch_size", [(5, 14, 9), (14, 9)])
def test_an_image_of_the_patch_and_gradients_reach_every_parameter(patch_size):
    """Also where boxes reach beyond the patch."""
    model = network(channels=2, patch_size=patch_size, features=40)
    assert any(size % edge for size, edge in zip(patch_size, model.tubelet, strict=True))
    found = model(torch.randn(2, 3, 2, *patch_size), EVERY)
    assert found.shape == (2, 2, *patch_size)
    found.square().mean().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    assert model.slot.shape == (4, 1, 64)


def test_nothing_of_a_missing_scan_is_seen():
    model, stack = network(), torch.randn(2, 3, 1, 4, 8, 8)
    occupied = torch.tensor([[True, False, True], [False, True, True]])
    other = torch.where(occupied.view(2, 3, 1, 1, 1, 1), stack, torch.randn_like(stack))
    torch.testing.assert_close(model(other, occupied), model(stack, occupied))
    assert (model(other, EVERY) - model(stack, EVERY)).abs().max() > 1e-4


def test_an_empty_scan_is_not_a_missing_one():
    model, stack = network(), torch.randn(2, 3, 1, 4, 8, 8)
    stack[:, 1] = 0
    missing = torch.tensor([[True, False, True]] * 2)
    assert (model(stack, missing) - model(stack, EVERY)).abs().max() > 1e-4


def test_a_layer_is_torchs():
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(64, 2, 256, 0.0, "gelu", batch_first=True, norm_first=True)
    ours, x, seen = Layer(64, 2), torch.randn(3, 5, 64), torch.rand(3, 5) > 0.3
    seen[:, -1] = True
    pairs = [
        (ours.norm, theirs.norm1),
        (ours.out, theirs.self_attn.out_proj),
        (ours.perceptron[0], theirs.norm2),
        (ours.perceptron[1], theirs.linear1),
        (ours.perceptron[3], theirs.linear2),
    ]
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    ours.to_qkv.weight, ours.to_qkv.bias = theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias
    torch.testing.assert_close(ours(x, seen), theirs(x, src_key_padding_mask=~seen), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_without_position_embeddings_neither_order_nor_place_would_count():
    """Exchanging two scans, or two boxes of all scans and of the forecast, is seen by the positions alone."""
    model, stack = network(patch_size=(8, 8)), torch.randn(2, 3, 1, 8, 8)
    edge = model.tubelet[1]
    swapped = stack[:, [1, 0, 2]]
    rolled = stack.roll(edge, dims=-1)
    assert (model(swapped, EVERY) - model(stack, EVERY)).abs().max() > 1e-3
    assert (model(rolled, EVERY) - model(stack, EVERY).roll(edge, dims=-1)).abs().max() > 1e-3
    with torch.no_grad():
        model.slot[:3] = 0
    torch.testing.assert_close(model(swapped, EVERY), model(stack, EVERY), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        model.place.zero_()
    torch.testing.assert_close(model(rolled, EVERY), model(stack, EVERY).roll(edge, dims=-1), atol=1e-5, rtol=1e-4)


def test_what_one_box_shows_reaches_all_of_the_forecast():
    model = network(patch_size=(8, 8))
    stack = torch.randn(2, 3, 1, 8, 8)
    changed = stack.clone()
    changed[:, 0, :, 0, 0] += 5
    assert ((model(changed, EVERY) - model(stack, EVERY)).abs().amax((0, 1)) > 1e-6).all()


@pytest.mark.parametrize(
    ("patch_size", "per_place", "most", "expected"),
    [
        ([4, 8, 8], 1, 1, [1, 1, 1]),
        ([4, 8, 8], 8, 1, [2, 2, 2]),
        ([4, 8, 8], 2, 1, [1, 2, 1]),
        ([4, 8, 8], 64, 1, [4, 4, 4]),
        ([4, 8, 8], 1e9, 1, [4, 8, 8]),
        ([6, 6], 4, 1, [2, 2]),
        ([64, 64], 1, 1e9, [2, 1]),
    ],
)
def test_boxes_grow_along_the_axis_that_has_most_of_them(patch_size, per_place, most, expected):
    assert tubelet(patch_size, per_place, most) == expected


@pytest.mark.parametrize("scans", [1, 4, 22])
@pytest.mark.parametrize("patch_size", [[13, 96, 104], [256, 320], [7, 7]])
def test_boxes_hold_the_layers_within_their_share(patch_size, scans):
    edges = tubelet(patch_size, 4 * 64 * scans, 16)
    places = math.prod(math.ceil(size / edge) for size, edge in zip(patch_size, edges, strict=True))
    assert places == 1 or (places <= MOST_PLACES and places * 4 * 64 * scans <= 16 * math.prod(patch_size))
