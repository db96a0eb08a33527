from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from longflow.errors import ModelError
from longflow.inference.windows import WindowSettings
from longflow.methods.method import Method
from longflow.networks.unet import UNet
from longflow.tasks.segment.windows import predict_logits
from tests.methods.helpers import minimal_plans


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


def by_nnunet(networks, image, dimensions, mirrored, step):
    """Logits of nnU-Net's own predictor; it gets only the plans and labels that this method of it reads."""
    predictor = nnUNetPredictor(tile_step_size=step, device=torch.device("cpu"), allow_tqdm=False)
    predictor.configuration_manager = SimpleNamespace(patch_size=[4, 8, 8][-dimensions:])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=3)
    predictor.allowed_mirroring_axes = mirrored
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
def test_logits_are_bit_identical_to_those_of_nnunet(kind, dimensions, shape, mirror, step, folds):
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    networks = [random_network(kind, dimensions, seed) for seed in range(folds)]
    found = predict_logits(
        [segmenting(network, dimensions) for network in networks], image, WindowSettings("cpu", step, mirror)
    )
    assert found.shape == (3, *shape) and found.dtype == np.float16
    assert np.array_equal(
        found, by_nnunet(networks, image, dimensions, tuple(range(dimensions)) if mirror else None, step)
    )


@pytest.mark.parametrize(("dimensions", "axes"), [(3, [0, 1]), (3, [2]), (2, [0]), (2, [])])
def test_predictions_are_mirrored_along_the_axes_of_the_plan_as_by_nnunet(dimensions, axes):
    image = np.random.default_rng(0).normal(size=(2, 6, 15, 20)).astype(np.float32)
    network = random_network("unet", dimensions, 0)
    method = segmenting(network, dimensions)
    method.configuration.mirror_axes = axes
    found = predict_logits([method], image, WindowSettings("cpu", 0.5, True))
    assert np.array_equal(found, by_nnunet([network], image, dimensions, tuple(axes) or None, 0.5))


def test_labels_are_padded_with_zeros_not_continued():
    mean = segmenting(lambda image: image.mean((2, 3, 4), keepdim=True).expand(1, 2, 4, 8, 8))
    found = predict_logits([mean], np.full((2, 2, 4, 4), 8, np.float32), WindowSettings())
    np.testing.assert_allclose(found, 8 / 8, rtol=1e-3)


def test_a_network_that_has_diverged_is_an_error():
    diverged = segmenting(lambda image: image * float("nan"))
    with pytest.raises(ModelError, match="outputs are not finite numbers"):
        predict_logits([diverged], np.zeros((2, 4, 8, 8), np.float32), WindowSettings())
