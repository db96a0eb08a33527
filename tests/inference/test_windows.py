import logging
import weakref
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from longflow.errors import LongflowError, ModelError, OutOfMemoryError
from longflow.inference import windows
from longflow.inference.windows import WindowSettings, is_out_of_memory, predict_changed, weighted_slices
from longflow.methods.batches import Batch
from tests.inference.helpers import coordinates, identity, method_of, patch_mean


def ramp(batch):
    """Not equivariant under mirroring: brighter towards the end of the last axis."""
    return batch.context[:, -1] * torch.arange(8.0)


def make_batch(scans, noise):
    tiles, count = scans.shape[:2]
    times, mask = torch.zeros(tiles, count), torch.ones(tiles, count, dtype=torch.bool)
    return Batch(scans, times, mask, torch.ones(tiles), noise=noise)


def predict(methods, scans, **settings):
    methods = methods if isinstance(methods, list) else [methods]
    return predict_changed(methods, scans, make_batch, WindowSettings("cpu", **settings))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 1, 1), (4, 8, 8), (4, 8, 20), (9, 17, 13), (3, 30, 8), (11, 9, 9)])
def test_every_voxel_comes_back_at_its_place(dimensions, shape):
    context = coordinates(shape, channels=2)
    found = predict(method_of(identity, dimensions=dimensions, channels=2), context)["forecast"]
    assert found.shape == (2, *shape) and found.dtype == np.float32
    assert np.array_equal(found, context[-1])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("shape", [(2, 5, 6), (9, 17, 13)])
def test_a_method_that_needs_the_whole_volume_gets_it_once(dimensions, shape):
    seen = []

    def mean_of_all(batch):
        seen.append(tuple(batch.context.shape))
        return patch_mean(batch)

    method = method_of(mean_of_all, dimensions=dimensions)
    type(method).whole_volume = True
    context = coordinates(shape)
    found = predict(method, context)["forecast"]
    assert seen == [(1, *context.shape)]
    np.testing.assert_allclose(found, context[-1].mean(), rtol=1e-5)


def gaussian(tile):
    """nnU-Net's: a delta in the middle, blurred by an eighth of the size, zeros raised to the smallest weight."""
    delta = np.zeros(tile)
    delta[tuple(size // 2 for size in tile)] = 1
    weight = gaussian_filter(delta, [size / 8 for size in tile], mode="constant")
    weight[weight == 0] = weight[weight > 0].min()
    return weight


def starts(size, tile, step):
    count = int(np.ceil((size - tile) / (tile * step))) + 1
    return [round((size - tile) / max(count - 1, 1) * index) for index in range(count)]


@pytest.mark.parametrize("step", [0.5, 0.25, 1.0])
def test_overlaps_are_weighted_by_a_gaussian(step):
    """Against a sum over patches in NumPy, written apart from nnU-Net's code."""
    tile, shape = (4, 8, 8), (6, 15, 20)
    context = np.random.default_rng(0).normal(size=(2, 1, *shape)).astype(np.float32)
    total, weights, weight = np.zeros(shape), np.zeros(shape), gaussian(tile)
    for start in product(*(starts(size, edge, step) for size, edge in zip(shape, tile, strict=True))):
        window = tuple(slice(a, a + edge) for a, edge in zip(start, tile, strict=True))
        total[window] += weight * context[-1, 0][window].mean()
        weights[window] += weight
    found = predict(method_of(patch_mean), context, step=step)["forecast"][0]
    np.testing.assert_allclose(found, total / weights, rtol=1e-3, atol=1e-4)


def test_small_volumes_are_continued_beyond_their_border():
    """Zeros around the volume would pull the mean of the patch down."""
    found = predict(method_of(patch_mean), np.full((2, 1, 2, 3, 3), 7, np.float32))["forecast"]
    np.testing.assert_allclose(found, 7, rtol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_mirroring_changes_nothing_where_the_method_is_equivariant(dimensions):
    context = coordinates((5, 9, 12))
    found = predict(method_of(identity, dimensions=dimensions), context, mirror=True)["forecast"]
    np.testing.assert_allclose(found, context[-1], rtol=1e-6)


@pytest.mark.parametrize(("dimensions", "calls"), [(2, 4), (3, 8)])
def test_mirroring_averages_where_it_is_not(dimensions, calls):
    seen = []

    def noted(batch):
        seen.append(batch.context.clone())
        return ramp(batch)

    context = np.random.default_rng(0).normal(size=(2, 1, 4, 8, 8)).astype(np.float32)
    if dimensions == 2:
        context = context[:, :, :1]
    found = predict(method_of(noted, dimensions=dimensions), context, mirror=True)["forecast"]
    assert len(seen) == calls and len({tensor.numpy().tobytes() for tensor in seen}) == calls
    axes = [1, 2, 3] if dimensions == 3 else [2, 3]
    flips = [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)]
    expected = np.mean([np.flip(np.flip(context[-1], flip) * np.arange(8), flip) for flip in flips], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_folds_are_averaged():
    context = coordinates((5, 9, 9))
    folds = [method_of(lambda batch, plus=plus: identity(batch) + plus) for plus in (1, 3, 8)]
    np.testing.assert_allclose(predict(folds, context)["forecast"], context[-1] + 4, rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_that_is_no_number_names_the_fold(value):
    folds = [method_of(identity), method_of(lambda batch: identity(batch) * value)]
    for number, method in enumerate(folds):
        method.file = f"fold_{number}/checkpoint_final.safetensors"
    with pytest.raises(ModelError, match=r"outputs of fold_1/checkpoint_final\.safetensors are not finite numbers"):
        predict(folds, coordinates((4, 8, 9)))


def test_every_reduction_comes_back():
    both = method_of(lambda batch: {"a": identity(batch), "b": batch.context[:, 0]}, reductions=("a", "b"))
    context = coordinates((4, 8, 9))
    found = predict(both, context)
    np.testing.assert_allclose(found["a"], context[-1], rtol=1e-6)
    np.testing.assert_allclose(found["b"], context[0], atol=0.2)


def test_intensities_beyond_half_precision_survive():
    context = np.full((1, 1, 6, 12, 12), 70_000, np.float32)
    assert np.allclose(predict(method_of(identity), context)["forecast"], 70_000, rtol=1e-6)


def test_only_the_wanted_reductions_are_made():
    def predict_both(batch):
        return {"last": batch.context[:, -1], "mean": batch.context.mean(1)}

    method, scans = method_of(predict_both, reductions=("last", "mean")), coordinates((4, 8, 12))
    both, one = predict(method, scans), predict(method, scans, reductions=("mean",))
    assert list(both) == ["last", "mean"] and list(one) == ["mean"]
    assert np.array_equal(one["mean"], both["mean"]) and not np.array_equal(both["last"], both["mean"])


#: as the CPU's allocator of torch, CUDA's, and Python say it
SHORT = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"),
    MemoryError(),
]


@pytest.fixture
def said(caplog):
    """The lines of the log, in which a process says each thing once."""
    windows._say_fewer_at_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


def with_room_for(room, error, tried):
    def predict_or_fail(batch):
        tried.append(len(batch.context))
        if len(batch.context) > room:
            raise error
        return batch.context[:, -1] + 1

    return method_of(predict_or_fail, dimensions=2)


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("room", "sizes"), [(8, [8, 8, 3]), (4, [8, 4, 4, 4, 4, 3]), (1, [8, 4, 2, *[1] * 19])])
def test_fewer_patches_at_once_where_the_memory_is_too_small(error, room, sizes, said):
    """19 slices of one tile each, 8 at once; each size that fails is tried once in a volume."""
    scans, tried = np.random.default_rng(0).normal(size=(1, 1, 19, 8, 8)).astype(np.float32), []
    found = predict(with_room_for(room, error, tried), scans)["forecast"]
    assert tried == sizes and np.allclose(found, scans[0] + 1, atol=1e-6)
    messages = [f"{size} patches of a scan are predicted at once" for size in (4, 2, 1) if room <= size < 8]
    predict(with_room_for(room, error, []), scans)  # another scan says nothing new
    assert len(said.messages) == len(messages)
    assert all(message in line for message, line in zip(messages, said.messages, strict=True))


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_a_patch_that_no_memory_holds_is_one_clear_error(error):
    message = r"too small to predict one patch of 1 x 8 x 8 voxels\. Close .*--device cpu"
    with pytest.raises(OutOfMemoryError, match=message) as raised:
        predict(with_room_for(0, error, []), np.zeros((1, 1, 3, 8, 8), np.float32))
    assert isinstance(raised.value, LongflowError) and is_out_of_memory(raised.value)


def test_another_error_of_a_network_is_not_taken_for_it():
    tried = []
    with pytest.raises(RuntimeError, match="size of tensor"):
        predict(with_room_for(0, RuntimeError("The size of tensor a (3) must"), tried), np.zeros((1, 1, 9, 8, 8)))
    assert tried == [8]


@pytest.mark.parametrize("bf16", [True, False])
def test_weights_have_the_layout_of_training_where_bf16_is_computed(bf16, monkeypatch):
    """Elsewhere results of float32 would change in their last digits, for no gain."""
    monkeypatch.setattr(windows, "computes_bf16", lambda device: bf16)
    method = method_of(identity)
    method.convolution = torch.nn.Conv3d(2, 3, 3)
    predict(method, coordinates((4, 8, 8)))
    assert method.convolution.weight.is_contiguous(memory_format=torch.channels_last_3d) == bf16


@pytest.mark.parametrize(("tile", "per_pass", "most"), [((4, 8, 8), 1, 4), ((8, 8), 3, 3)])
def test_sums_are_held_of_as_many_slices_as_a_pass_has(tile, per_pass, most, monkeypatch):
    """And not of the volume, which would be 20 volumes where there are 20 structures."""
    made, held, zeros = [], [], torch.zeros

    def noted_zeros(*shape, **kind):
        tensor = zeros(*shape, **kind)
        made.append(weakref.ref(tensor))
        return tensor

    def predict_nothing(tiles):
        held.append(sum(one() is not None and one().shape == (20, 8, 12) for one in made))
        return {"logits": zeros(len(tiles), 20, *tiles.shape[-3:])}

    monkeypatch.setattr(torch, "zeros", noted_zeros)
    volume, weight = np.zeros((1, 20, 8, 12), np.float32), torch.ones(tile, dtype=torch.float16)
    slices = weighted_slices(volume, weight, 0.5, predict_nothing, per_pass)
    assert [tuple(means["logits"].shape) for means in slices] == [(20, 8, 12)] * 20
    assert len(made) == 2 * 20 and len(held) > 5 and max(held) <= most + 1  # the one that is yielded


@pytest.mark.parametrize("dimensions", [2, 3])
def test_noise_that_a_method_can_do_without_is_one_field_whatever_the_tiles(dimensions):
    """As of a flow from a noisy source; tiles that overlap agree, and another seed gives another field."""

    def with_noise(batch):
        return batch.context[:, -1] if batch.noise is None else batch.context[:, -1] + batch.noise

    method, scans = method_of(with_noise, dimensions=dimensions), np.zeros((1, 1, 9, 17, 13), np.float32)
    assert not predict(method, scans)["forecast"].any()
    first, apart = (predict(method, scans, noise=True, seed=(3, 1), step=step)["forecast"] for step in (0.5, 1.0))
    np.testing.assert_allclose(first, apart, atol=1e-5)
    field = windows.noise_field((1, 9, 17, 13), dimensions == 2, (3, 1))
    np.testing.assert_allclose(first, field, atol=1e-5)
    assert np.abs(first - predict(method, scans, noise=True, seed=(3, 2))["forecast"]).max() > 1
