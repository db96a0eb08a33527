import numpy as np
import pytest
import torch
from torch import nn

from longflow.networks.conv_lstm import (
    ConvLSTMCell,
    ConvLSTMLayers,
    ScanDecoder,
    ScanEncoder,
    StateDecoder,
    recurrent_stage,
    where_seen,
    without_keeping,
)
from longflow.planning.memory import LiveBytes
from longflow.plans import NetworkPlan
from longflow.private import cpu_has_bf16


def plan(strides=((1, 1, 1), (1, 2, 2)), features=(8, 16), kernel=3) -> NetworkPlan:
    dimensions = len(strides[0])
    return NetworkPlan(
        features_per_stage=list(features),
        strides=[list(stride) for stride in strides],
        kernel_sizes=[[kernel] * dimensions] * len(strides),
        attention=False,
    )


def of_lstm(kernel: int) -> tuple[ConvLSTMCell, nn.LSTMCell]:
    """A cell whose kernel is zero but in the middle, and torch's LSTM with the same weights."""
    torch.manual_seed(0)
    cell, lstm = ConvLSTMCell(nn.Conv3d, 2, 4, [kernel] * 3), nn.LSTMCell(2, 4)
    middle = kernel // 2
    order = [0, 1, 3, 2]  # torch's gates: in, forget, new, out
    with torch.no_grad():
        for convolution, weight in ((cell.seen, lstm.weight_ih), (cell.before, lstm.weight_hh)):
            convolution.weight.zero_()
            convolution.weight[:, :, middle, middle, middle] = weight.view(4, 4, -1)[order].flatten(0, 1)
        cell.seen.bias.copy_((lstm.bias_ih + lstm.bias_hh).view(4, 4)[order].flatten())
    return cell, lstm


@pytest.mark.parametrize("kernel", [1, 3])
def test_at_every_voxel_it_is_an_lstm(kernel):
    cell, lstm = of_lstm(kernel)
    series = torch.randn(3, 2, 2, 2, 3, 3)
    state, expected = (torch.zeros(2, 4, 2, 3, 3), torch.zeros(2, 4, 2, 3, 3)), None
    for x in series:
        state = cell(x, state)
        expected = lstm(x.movedim(1, -1).reshape(-1, 2), expected)
    for found, one in zip(state, expected, strict=True):
        torch.testing.assert_close(found.movedim(1, -1).reshape(-1, 4), one)


def test_it_sees_the_neighbours_of_the_scan_and_of_the_state():
    torch.manual_seed(0)
    cell = ConvLSTMCell(nn.Conv2d, 1, 4, [3, 3])
    image, hidden = torch.zeros(1, 1, 5, 5), torch.zeros(1, 4, 5, 5)
    still = cell(image, (hidden, hidden))[0]
    neighbour = image.clone()
    neighbour[0, 0, 2, 2] = 1
    changed = (cell(neighbour, (hidden, hidden))[0] - still).abs().sum((0, 1)) > 0
    assert changed.nonzero().min() == 1 and changed.nonzero().max() == 3 and changed.sum() == 9
    moved = hidden.clone()
    moved[:, :, 2, 2] = 1
    assert ((cell(image, (moved, hidden))[0] - still).abs().sum((0, 1)) > 0).sum() == 9


def test_the_forget_gate_starts_open():
    bias = ConvLSTMCell(nn.Conv3d, 2, 4, [1, 3, 3]).seen.bias
    assert (bias[4:8] == 1).all() and not (bias[:4] == 1).any()


@pytest.mark.parametrize(
    ("strides", "coarse"),
    [(((1, 1, 1), (1, 2, 2)), (4, 4, 4)), (((1, 1, 1), (2, 2, 2)), (2, 4, 4)), (((1, 1, 1),), (4, 8, 8))],
)
def test_maps_have_the_size_and_features_of_the_second_stage(strides, coarse):
    network = plan(strides, (8, 16)[: len(strides)])
    features = network.features_per_stage[recurrent_stage(network)]
    scans = torch.randn(2, 3, 2, 4, 8, 8)
    maps = ScanEncoder(2, network)(scans)
    assert maps.shape == (2, 3, features, *coarse)
    image = ScanDecoder(2, network)(maps[:, 0])
    assert image.shape == (2, 2, 4, 8, 8) and image.dtype == torch.float32


def test_slices_work_too():
    network = plan(((1, 1), (2, 2)))
    maps = ScanEncoder(1, network)(torch.randn(2, 3, 1, 8, 8))
    assert maps.shape == (2, 3, 16, 4, 4)
    assert ScanDecoder(1, network)(maps[:, 0]).shape == (2, 1, 8, 8)


def test_scans_are_encoded_one_by_one():
    encoder, scans = ScanEncoder(1, plan()), torch.randn(2, 3, 1, 4, 8, 8)
    torch.testing.assert_close(encoder(scans)[:, 1:2], encoder(scans[:, 1:2]))


def test_encoder_and_decoder_keep_how_bright_a_scan_is():
    """A brighter scan gives another image than the scan itself: nothing in between normalises."""
    torch.manual_seed(0)
    encoder, decoder, scan = ScanEncoder(1, plan()), ScanDecoder(1, plan()), torch.rand(1, 1, 1, 4, 8, 8)
    dark, bright = (decoder(encoder(scan * factor)[:, 0]) for factor in (1, 3))
    assert (dark - bright).abs().mean() > 0.01


THIN = plan(((1, 1, 1), (1, 2, 2), (2, 2, 2)), (8, 16, 24))


def test_every_stage_from_the_second_on_has_a_layer_which_sees_the_finer_one():
    torch.manual_seed(0)
    layers = ConvLSTMLayers(THIN)
    x = torch.randn(2, 16, 4, 4, 4)
    fresh = layers.fresh_states(x)
    assert [tuple(one.shape) for one in fresh] == [(2, 16, 4, 4, 4)] * 2 + [(2, 24, 2, 2, 2)] * 2
    assert not any(one.any() for one in fresh)
    found = layers(x, fresh)
    fine = layers.cells[0](x, fresh[:2])
    coarse = layers.cells[1](fine[0], fresh[2:])
    assert all(torch.equal(one, other) for one, other in zip(found, (*fine, *coarse), strict=True))


def test_all_hidden_states_are_decoded_and_no_cell_is():
    torch.manual_seed(0)
    decoder = StateDecoder(1, THIN)
    states = tuple(torch.randn_like(one) for one in ConvLSTMLayers(THIN).fresh_states(torch.zeros(1, 16, 4, 4, 4)))
    image = decoder(states)
    assert image.shape == (1, 1, 4, 8, 8)
    for place in range(4):
        changed = tuple(one + (index == place) for index, one in enumerate(states))
        assert torch.equal(decoder(changed), image) == (place in (1, 3))


def test_a_sample_without_anything_to_see_keeps_its_state():
    before = (torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    after = (torch.full((2, 1, 2, 2), 5.0), torch.full((2, 1, 2, 2), 6.0))
    hidden, cell = where_seen(torch.tensor([False, True]), after, before)
    np.testing.assert_array_equal(hidden[:, 0, 0, 0], [0, 5])
    np.testing.assert_array_equal(cell[:, 0, 0, 0], [1, 6])


def test_what_is_not_kept_is_computed_again_with_the_same_gradient():
    torch.manual_seed(0)
    cell, x = ConvLSTMCell(nn.Conv2d, 4, 4, [3, 3]), torch.randn(1, 4, 32, 32, requires_grad=True)

    def step(x, hidden, memory):
        return cell(x, (hidden, memory))

    gradients, kept = [], []
    for run in (step, lambda *inputs: without_keeping(step, *inputs)):
        with LiveBytes("cuda") as memory:
            state = torch.zeros_like(x), torch.zeros_like(x)
            for _ in range(10):
                state = run(x, *state)
            kept.append(memory.live)
        gradients.append(torch.autograd.grad(state[0].square().sum(), [x, *cell.parameters()]))
        del state
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert kept[1] < 0.4 * kept[0]


def test_nothing_is_kept_where_no_gradient_is_needed():
    with torch.no_grad():
        hidden, _ = without_keeping(lambda x: (2 * x, x), torch.ones(1, requires_grad=True))
    assert not hidden.requires_grad


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor has no bf16 instructions")
@pytest.mark.parametrize(("slices", "stride"), [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_gradients_in_bf16_are_those_of_float32(slices, stride):
    torch.manual_seed(0)
    network = plan(((1, 1, 1), (stride, 2, 2), (1, 2, 2)), (8, 16, 24))
    parts = nn.ModuleDict(
        {
            "encoder": ScanEncoder(1, network),
            "layers": ConvLSTMLayers(network),
            "decoder": StateDecoder(1, network),
        }
    ).to(memory_format=torch.channels_last_3d)
    scans = torch.randn(2, 3, 1, slices, 8, 8)
    gradients = []
    for context in (torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        parts.zero_grad()
        litter = [torch.full((100_000,), torch.nan) for _ in range(4)]
        del litter  # what is read without having been written is now likely NaN
        with context:
            maps = parts["encoder"](scans)
            states = parts["layers"].fresh_states(maps[:, 0])
            for x in maps.unbind(1):
                states = parts["layers"](x, states)
            loss = parts["decoder"](states).square().mean()
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in parts.parameters()]))
    low, high = gradients
    assert (low - high).norm() < 0.05 * high.norm()
