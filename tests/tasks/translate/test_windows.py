import numpy as np
import pytest

from longflow.inference.windows import WindowSettings
from longflow.methods.method import Method
from longflow.tasks.forecast.windows import Times, predict_forecast
from longflow.tasks.translate.windows import predict_translation
from tests.inference.helpers import coordinates, method_of, patch_mean
from tests.methods.helpers import minimal_plans


def translate(methods, image, phase=0, **settings):
    return predict_translation(methods, image, phase, WindowSettings("cpu", **settings))


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
def test_a_translation_without_a_change_is_bit_identical_to_the_scan(dimensions, shape):
    """With three folds and mirroring too, whose sums would round."""
    image = (np.random.default_rng(0).normal(size=(2, *shape)) * 1000).astype(np.float32)
    folds = [translating(lambda batch: batch.source, dimensions, channels=2)] * 3
    found = translate(folds, image, 1, mirror=True)
    assert found.dtype == np.float32 and np.array_equal(found, image)


def test_folds_are_averaged_and_get_the_phase_of_the_source():
    image = coordinates((5, 9, 12), scans=1)[0]
    folds = [translating(lambda batch, plus=plus: batch.source + plus) for plus in (1, 3, 8)]
    np.testing.assert_allclose(translate(folds, image), image + 4, rtol=1e-6)
    phases = set()

    def note(batch):
        phases.add(tuple(batch.source_phase.tolist()))
        return batch.source

    for phase in (0, 1):
        translate([translating(note, dimensions=2)], image, phase)
    assert phases == {(0.0,) * 8, (0.0,) * 4, (1.0,) * 8, (1.0,) * 4}  # 5 slices of 4 windows in passes of 8


def test_overlaps_of_translations_are_weighted_as_those_of_forecasts():
    """Forecasts of ``patch_mean`` are compared with NumPy in tests/inference/test_windows.py."""
    image = np.random.default_rng(0).normal(size=(1, 6, 15, 20)).astype(np.float32)
    mean = translating(lambda batch: batch.source.mean((2, 3, 4), keepdim=True).expand_as(batch.source))
    expected = predict_forecast([method_of(patch_mean)], image[None], Times([0], 25), WindowSettings())["forecast"]
    np.testing.assert_allclose(translate([mean], image), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
def test_one_noise_for_all_slices_and_a_volume_of_it_in_3d(mirror):
    """The method returns its noise: where windows overlap there is one noise, and it is mirrored with the image."""
    shape = (2, 7, 17, 13)
    image = np.zeros(shape, np.float32)
    flat, deep = (translating(lambda batch: batch.noise, dimensions, 2, noise=True) for dimensions in (2, 3))
    slices = translate([flat], image, mirror=mirror)
    assert np.array_equal(slices, np.repeat(slices[:, :1], 7, axis=1))
    volume = translate([deep, deep], image, mirror=mirror)
    for found in (slices[:, 0], volume):
        flattened = found.reshape(2, -1)
        assert np.abs(flattened.mean(1)).max() < 0.2 and np.abs(flattened.std(1) - 1).max() < 0.15
        assert abs(np.corrcoef(flattened)[0, 1]) < 0.2  # channels have noise of their own
    assert abs(np.corrcoef(volume[0, 0].ravel(), volume[0, 1].ravel())[0, 1]) < 0.2
    drawn = np.random.default_rng(0).standard_normal(shape, np.float32)
    np.testing.assert_allclose(volume, drawn, rtol=1e-4, atol=1e-5)
    again, other = (translate([deep], image, mirror=mirror, seed=seed) for seed in (0, 1))
    np.testing.assert_allclose(again, volume, rtol=1e-4, atol=1e-5)
    assert not np.allclose(other, volume)
