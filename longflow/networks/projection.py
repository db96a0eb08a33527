"""Patch features of a U-Net for the losses of self-supervision: projector and predictor."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

#: width of the projector over that of the predictor's middle layer: 2048-256-2048 (Ren et al., section 4)
BOTTLENECK = 8


def draw_places(spatial: Sequence[int], most: int, device: torch.device | str) -> Tensor:
    """Draw random positions of a feature map, each at most once, from torch's global generator.

    :param spatial: size of the map.
    :param most: number of positions; a smaller map gives all of its positions.
    :param device: of the result.
    :returns: (places,), indices into the flattened map.
    """
    return torch.randperm(prod(spatial), device=device)[:most]


def features_at(stage: Tensor, places: Tensor) -> Tensor:
    """Take the feature vectors of a map at the same places in every image of a batch; each stands for a patch.

    :param stage: (batch, features, *spatial).
    :param places: from :func:`draw_places`.
    :returns: (batch, places, features).
    """
    return stage.flatten(2).index_select(2, places).transpose(1, 2)


class Projector(nn.Module):
    """f: a multilayer perceptron from the features of a layer to the space in which the losses compare them.

    It is SimSiam's (Chen & He 2021). Every linear map is followed by batch normalisation, all but the last by ReLU; the
    last normalisation has no weights. Ren et al.'s public code does so too. Their text (section 4) can be read as if a
    ReLU came last, which would exclude opposite directions. The l2 normalisation belongs to the losses, which compare
    directions.

    :param features: of the layer.
    :param width: of every layer (2048 in both papers).
    """

    def __init__(self, features: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            *_hidden(features, width),
            *_hidden(width, width),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Project features; the result is not normalised to length 1.

        All places of all images are one batch for batch normalisation, which needs at least two in training.

        :param features: (batch, places, features).
        :returns: (batch, places, width).
        """
        return self.layers(features.flatten(0, 1)).unflatten(0, features.shape[:2])


class ProjectionPredictor(nn.Module):
    """p: predicts the projection of one scan from that of the other through a bottleneck (SimSiam; 2048-256-2048).

    It has two linear maps, width to an eighth and back, with batch normalisation and ReLU between them.

    :param width: of the projector.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(*_hidden(width, width // BOTTLENECK), nn.Linear(width // BOTTLENECK, width))

    def forward(self, projected: Tensor) -> Tensor:
        """Predict a projection.

        :param projected: (batch, places, width).
        :returns: the same shape.
        """
        return self.layers(projected.flatten(0, 1)).unflatten(0, projected.shape[:2])


def _hidden(inputs: int, outputs: int) -> list[nn.Module]:
    # no bias: batch normalisation would remove it
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
