"""Places are the same in every image; projector and predictor are what the equations say."""

import numpy as np
import pytest
import torch

from longflow.networks.projection import ProjectionPredictor, Projector, draw_places, features_at


def test_places_are_drawn_once_each_and_differ_each_time():
    places = draw_places((3, 4, 5), 20, "cpu")
    assert len(set(places.tolist())) == 20 and places.min() >= 0 and places.max() < 60
    assert not torch.equal(places, draw_places((3, 4, 5), 20, "cpu"))


def test_places_follow_the_seed():
    torch.manual_seed(3)
    first = draw_places((6, 6), 10, "cpu")
    torch.manual_seed(3)
    assert torch.equal(first, draw_places((6, 6), 10, "cpu"))


def test_a_small_map_gives_all_its_places():
    assert sorted(draw_places((2, 3), 256, "cpu").tolist()) == list(range(6))


@pytest.mark.parametrize("spatial", [(4, 5), (2, 4, 5)])
def test_features_are_those_at_the_places_of_every_image(spatial):
    stage = torch.randn(3, 7, *spatial)
    layout = torch.channels_last if len(spatial) == 2 else torch.channels_last_3d
    places = draw_places(spatial, 6, "cpu")
    expected = np.stack(
        [
            [image[(slice(None), *np.unravel_index(place, spatial))] for place in places.numpy()]
            for image in stage.numpy()
        ]
    )
    assert np.array_equal(features_at(stage, places).numpy(), expected)
    assert np.array_equal(features_at(stage.contiguous(memory_format=layout), places).numpy(), expected)


def _normalised(x: np.ndarray, norm: torch.nn.BatchNorm1d) -> np.ndarray:
    scaled = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    return scaled if norm.weight is None else scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def _linear(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return x @ layer.weight.detach().numpy().T + bias


def test_projector_is_three_layers_each_batch_normalised_over_all_places():
    projector = Projector(features=5, width=16)
    torch.nn.init.normal_(projector.layers[1].weight)
    torch.nn.init.normal_(projector.layers[4].bias)
    features = torch.randn(2, 9, 5)
    linear_1, norm_1, _, linear_2, norm_2, _, linear_3, norm_3 = projector.layers
    x = features.numpy().reshape(18, 5)
    x = np.maximum(_normalised(_linear(x, linear_1), norm_1), 0)
    x = np.maximum(_normalised(_linear(x, linear_2), norm_2), 0)
    x = _normalised(_linear(x, linear_3), norm_3)
    projected = projector(features).detach().numpy()
    assert np.allclose(projected, x.reshape(2, 9, 16), atol=1e-4)
    assert (projected < 0).any(), "directions may be opposite"


def test_predictor_goes_through_an_eighth_of_the_width():
    predictor = ProjectionPredictor(width=32)
    projected = torch.randn(2, 6, 32)
    linear_1, norm, _, linear_2 = predictor.layers
    assert linear_1.out_features == 4
    x = np.maximum(_normalised(_linear(projected.numpy().reshape(12, 32), linear_1), norm), 0)
    assert np.allclose(predictor(projected).detach().numpy(), _linear(x, linear_2).reshape(2, 6, 32), atol=1e-4)


def test_the_papers_widths():
    sizes = [layer.weight.shape for layer in ProjectionPredictor(2048).layers if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(256, 2048), (2048, 256)]


def test_in_evaluation_an_image_is_projected_alike_in_any_batch():
    projector = Projector(features=5, width=16)
    features = torch.randn(2, 9, 5)
    projector(features)
    projector.eval()
    assert torch.allclose(projector(features)[:1], projector(features[:1]), atol=1e-6)
