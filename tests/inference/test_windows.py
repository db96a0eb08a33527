from itertools import combinations, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy.ndimage import gaussian_filter

from longflow.errors import ModelError
from longflow.inference.windows import predict_logits, predict_translation, predict_volume, relative_times
from longflow.methods.method import Method
from longflow.networks.unet import UNet
from tests.methods.helpers import minimal_plans


def method_of(function, reductions=("forecast",), dimensions=3, channels=1):
    """A method whose forecast is ``function(batch)``, for patches of 4 x 8 x 8 or 8 x 8."""

    class Known(Method):
        task = "forecast"
        summary = "for tests"

        def predict(self, batch):
            found = function(batch)
            return found if isinstance(found, dict) else {"forecast": found}

    Known.reductions = reductions
    plans = minimal_plans(channels=channels, dimensions=dimensions)
    return Known(plans, *plans.configurations)


def identity(batch):
    return batch.context[:, -1]


def patch_mean(batch):
    """The same number everywhere in a patch: what overlaps disagree on."""
    last = batch.context[:, -1]
    return last.mean(tuple(range(2, last.ndim)), keepdim=True).expand_as(last)


def ramp(batch):
    """Not equivariant under mirroring: brighter towards the end of the last axis."""
    return batch.context[:, -1] * torch.arange(8.0)


def coordinates(shape, scans=2, channels=1):
    """Every voxel holds its own place; scans and channels differ."""
    z, y, x = np.indices(shape)
    place = (10_000 * z + 100 * y + x).astype(np.float32)
    return np.stack([np.stack([place + 1e6 * s + 5e5 * c for c in range(channels)]) for s in range(scans)])


def predict(methods, context, times=(0, 10), target=25, **further):
    methods = methods if isinstance(methods, list) else [methods]
    return predict_volume(methods, context, list(times), target, "cpu", **further)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 1, 1), (4, 8, 8), (4, 8, 20), (9, 17, 13), (3, 30, 8), (11, 9, 9)])
def test_every_voxel_comes_back_at_its_place(dimensions, shape):
    context = coordinates(shape, channels=2)
    found = predict(method_of(identity, dimensions=dimensions, channels=2), context)["forecast"]
    assert found.shape == (2, *shape) and found.dtype == np.float32
    assert np.array_equal(found, context[-1])


def test_patches_reach_the_method_in_its_own_number_of_axes():
    shapes = set()

    def note(batch):
        shapes.add(tuple(batch.context.shape))
        assert batch.context_mask.all() and batch.target is None and batch.noise is None
        return identity(batch)

    predict(method_of(note), coordinates((4, 8, 12)))
    assert shapes == {(1, 2, 1, 4, 8, 8)}
    shapes.clear()
    predict(method_of(note, dimensions=2), coordinates((11, 8, 8)))
    assert shapes == {(8, 2, 1, 8, 8), (3, 2, 1, 8, 8)}  # slices share a pass


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
    found = predict(method_of(patch_mean), context, tile_step_size=step)["forecast"][0]
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


def test_every_reduction_comes_back():
    both = method_of(lambda batch: {"a": identity(batch), "b": batch.context[:, 0]}, reductions=("a", "b"))
    context = coordinates((4, 8, 9))
    found = predict(both, context)
    np.testing.assert_allclose(found["a"], context[-1], rtol=1e-6)
    np.testing.assert_allclose(found["b"], context[0], atol=0.2)


def test_times_reach_the_method_from_the_last_scan_in_units_of_the_scale():
    def told(batch):
        assert batch.context_times.tolist() == [[-3.0, -1.0, 0.0]] and batch.target_time.tolist() == [1.5]
        return identity(batch)

    predict(method_of(told), coordinates((4, 8, 8), scans=3), times=(1970, 1990, 2000), target=2015)
    assert relative_times([5.0], 6.0, 2.0) == ([0.0], 0.5)


def test_intensities_beyond_half_precision_survive():
    context = np.full((1, 1, 6, 12, 12), 70_000, np.float32)
    assert np.allclose(predict(method_of(identity), context, times=[0])["forecast"], 70_000, rtol=1e-6)


def segmenting(network, dimensions=3):
    """A method that labels with ``network``, for patches of 4 x 8 x 8 or 8 x 8."""

    class Known(Method):
        task = "segment"
        summary = "for tests"
        reductions = ("logits",)

        def predict(self, batch):
            return {"logits": self.network.finest(batch.image) if isinstance(network, UNet) else network(batch.image)}

    plans = minimal_plans(channels=2, dimensions=dimensions)
    method = Known(plans, *plans.configurations)
    method.network = network
    return method.eval()


def random_network(kind, dimensions, seed):
    torch.manual_seed(seed)
    if kind == "unet":
        return UNet(2, 3, minimal_plans(dimensions=dimensions).configurations.popitem()[1].network)
    convolution = torch.nn.Conv3d if dimensions == 3 else torch.nn.Conv2d
    return torch.nn.Sequential(convolution(2, 4, 3, padding=1), torch.nn.GELU(), convolution(4, 3, 3, padding=1))


def by_nnunet(networks, image, dimensions, mirror, step):
    """Logits of nnU-Net's own predictor; it is told no more of plans and labels than this method of it reads."""
    predictor = nnUNetPredictor(tile_step_size=step, device=torch.device("cpu"), allow_tqdm=False)
    predictor.configuration_manager = SimpleNamespace(patch_size=[4, 8, 8][-dimensions:])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=3)
    predictor.allowed_mirroring_axes = tuple(range(dimensions)) if mirror else None
    networks = [network.unet if isinstance(network, UNet) else network for network in networks]
    predictor.network = networks[0]
    if hasattr(predictor.network, "decoder"):
        predictor.network.decoder.deep_supervision = False  # as nnU-Net builds it for prediction
    predictor.list_of_parameters = [{**network.state_dict()} for network in networks]
    predictor.list_of_parameters = [
        {name: tensor.clone() for name, tensor in weights.items()} for weights in predictor.list_of_parameters
    ]
    return predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image)).numpy()


@pytest.mark.parametrize("kind", ["convolutions", "unet"])
@pytest.mark.parametrize(
    ("dimensions", "shape", "mirror", "step", "folds"),
    [
        (3, (6, 15, 20), False, 0.5, 1),
        (3, (6, 15, 20), True, 0.5, 2),
        (3, (3, 5, 20), True, 0.25, 1),
        (3, (2, 5, 6), False, 0.5, 3),
        (2, (3, 9, 20), True, 0.5, 2),
        (2, (2, 5, 6), False, 0.5, 1),
    ],
)
def test_logits_are_those_of_nnunet_to_the_bit(kind, dimensions, shape, mirror, step, folds):
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    networks = [random_network(kind, dimensions, seed) for seed in range(folds)]
    found = predict_logits([segmenting(network, dimensions) for network in networks], image, "cpu", step, mirror)
    assert found.shape == (3, *shape) and found.dtype == np.float16
    assert np.array_equal(found, by_nnunet(networks, image, dimensions, mirror, step))


def test_labels_are_padded_with_zeros_not_continued():
    mean = segmenting(lambda image: image.mean((2, 3, 4), keepdim=True).expand(1, 2, 4, 8, 8))
    found = predict_logits([mean], np.full((2, 2, 4, 4), 8, np.float32), "cpu")
    np.testing.assert_allclose(found, 8 / 8, rtol=1e-3)


def test_a_network_that_has_diverged_is_an_error():
    diverged = segmenting(lambda image: image * float("nan"))
    with pytest.raises(ModelError, match="outputs are not finite numbers"):
        predict_logits([diverged], np.zeros((2, 4, 8, 8), np.float32), "cpu")


def translating(function, dimensions=3, channels=1, noise=False):
    """A method whose translation is ``function(batch)``, for patches of 4 x 8 x 8 or 8 x 8."""

    class Known(Method):
        task = "translate"
        summary = "for tests"
        reductions = ("translation",)

        def predict(self, batch):
            assert batch.target is None and (batch.noise is not None) == noise
            return {"translation": function(batch)}

    Known.noise = noise
    plans = minimal_plans(channels=channels, dimensions=dimensions)
    return Known(plans, *plans.configurations)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 1, 1), (4, 8, 20), (9, 17, 13)])
def test_a_translation_without_a_change_is_the_scan_to_the_bit(dimensions, shape):
    """With three folds and mirroring too, whose sums would round."""
    image = (np.random.default_rng(0).normal(size=(2, *shape)) * 1000).astype(np.float32)
    folds = [translating(lambda batch: batch.source, dimensions, channels=2)] * 3
    found = predict_translation(folds, image, 1, "cpu", mirror=True)
    assert found.dtype == np.float32 and np.array_equal(found, image)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_forecast_that_begins_with_noise_gets_what_a_translation_gets(mirror):
    """The method returns its noise, beside a context that is as without."""
    context = coordinates((5, 17, 13), channels=2)
    for dimensions in (2, 3):

        def noise(batch):
            scans = len(context)
            assert batch.context.shape[1] == batch.context_times.shape[1] == batch.context_mask.shape[1] == scans
            return {"forecast": batch.context[:, -1], "noise": batch.noise}

        method = method_of(noise, ("forecast", "noise"), dimensions, channels=2)
        type(method).noise = True
        found = predict([method] * 2, context, mirror=mirror)
        assert np.array_equal(found["forecast"], context[-1])
        drawn = translating(lambda batch: batch.noise, dimensions, 2, noise=True)
        wanted = predict_translation([drawn], np.zeros_like(context[0]), 0, "cpu", mirror=mirror)
        context_of_zeros = np.zeros_like(context)
        found = predict(method, context_of_zeros, mirror=mirror)["noise"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        assert not np.allclose(predict(method, context_of_zeros, seed=1)["noise"], wanted)


def test_folds_of_a_translation_are_averaged_and_told_the_phase_of_the_source():
    image = coordinates((5, 9, 12), scans=1)[0]
    folds = [translating(lambda batch, plus=plus: batch.source + plus) for plus in (1, 3, 8)]
    np.testing.assert_allclose(predict_translation(folds, image, 0, "cpu"), image + 4, rtol=1e-6)
    phases = set()

    def note(batch):
        phases.add(tuple(batch.source_phase.tolist()))
        return batch.source

    for phase in (0, 1):
        predict_translation([translating(note, dimensions=2)], image, phase, "cpu")
    assert phases == {(0.0,) * 8, (0.0,) * 4, (1.0,) * 8, (1.0,) * 4}  # 5 slices of 4 windows in passes of 8


def test_overlaps_of_translations_are_weighted_as_those_of_forecasts():
    """A translation is the patch's mean, as the forecasts of ``patch_mean``, which are compared with NumPy above."""
    image = np.random.default_rng(0).normal(size=(1, 6, 15, 20)).astype(np.float32)
    mean = translating(lambda batch: batch.source.mean((2, 3, 4), keepdim=True).expand_as(batch.source))
    expected = predict(method_of(patch_mean), image[None], times=[0])["forecast"]
    np.testing.assert_allclose(predict_translation([mean], image, 0, "cpu"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
def test_one_noise_for_all_slices_and_a_volume_of_it_in_3d(mirror):
    """The method returns its noise: where windows overlap it is one, and mirrored as the image is."""
    shape = (2, 7, 17, 13)
    image = np.zeros(shape, np.float32)
    flat, deep = (translating(lambda batch: batch.noise, dimensions, 2, noise=True) for dimensions in (2, 3))
    slices = predict_translation([flat], image, 0, "cpu", mirror=mirror)
    assert np.array_equal(slices, np.repeat(slices[:, :1], 7, axis=1))
    volume = predict_translation([deep, deep], image, 0, "cpu", mirror=mirror)
    for found in (slices[:, 0], volume):
        flattened = found.reshape(2, -1)
        assert np.abs(flattened.mean(1)).max() < 0.2 and np.abs(flattened.std(1) - 1).max() < 0.15
        assert abs(np.corrcoef(flattened)[0, 1]) < 0.2  # channels have noise of their own
    assert abs(np.corrcoef(volume[0, 0].ravel(), volume[0, 1].ravel())[0, 1]) < 0.2
    drawn = np.random.default_rng(0).standard_normal(shape, np.float32)
    np.testing.assert_allclose(volume, drawn, rtol=1e-4, atol=1e-5)
    again, other = (predict_translation([deep], image, 0, "cpu", mirror=mirror, seed=seed) for seed in (0, 1))
    np.testing.assert_allclose(again, volume, rtol=1e-4, atol=1e-5)
    assert not np.allclose(other, volume)
