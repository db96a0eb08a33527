"""Local, multi-scale spatiotemporal self-supervision (Ren et al., NeurIPS 2022, section 3)."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from longflow.errors import ConfigurationError, unknown_name
from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options
from longflow.methods.pretraining._pretraining import PretrainingMethod
from longflow.networks.projection import BOTTLENECK, ProjectionPredictor, Projector, draw_places, features_at
from longflow.networks.unet import Features
from longflow.plans import Plans

#: eta and epsilon of eq. 3
LEAST_DEVIATION, EPSILON = 1.0, 1e-4

#: the terms of eq. 7 that compare patch features
_OF_FEATURES = ("similarity", "orthogonality", "variance", "covariance")
#: those of them that need decoder layers
_OF_DECODER = ("orthogonality", "variance", "covariance")


class Spatiotemporal(PretrainingMethod):
    """Two scans of a subject look alike to the U-Net at the same place, at every scale, and places differ.

    The layers of interest are the stages of the encoder, the bottleneck among them, and of the decoder except the
    finest, as in the authors' public configuration. With ``layers=encoder`` they are those above the bottleneck (table
    2, rows A to C). Every layer has its own projector and predictor, as there, since layers differ in their features. A
    stage of the decoder is read in the same places as the encoder's stage of its skip connection.

    ``options`` are the weights of eq. 7 (lambda, alpha, mu, gamma, beta; a term of weight 0 is not computed), the
    layers of interest, the width of projectors and predictors, the number M of places in each layer (a smaller map
    gives all; PatchNCE's number, the paper gives none), and augmentation. The paper's mu is 1e-2 for ageing adults
    (OASIS3) and 1e-3 for infants (IBIS).

    Logged terms are without their weights. ``spread``, which is not optimised, shows collapse: see :func:`spread`.
    """

    summary = "Ren et al. 2022: similar patch features over time, kept diverse, with denoising"
    options: ClassVar[Options] = {
        "similarity": 1.0,
        "reconstruction": 10.0,
        "variance": 1e-2,
        "covariance": 1e-3,
        "orthogonality": 100.0,
        "layers": "encoder_decoder",
        "width": 2048,
        "places": 256,
        "augmentation": True,
    }

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        self.weights = checked_weights(self.options)
        features = self.configuration.network.features_per_stage
        #: stages by their depth in the encoder, 0 the finest; a decoder stage has the depth of its skip connection
        self.encoder_depths, self.decoder_depths = layers_of_interest(self.options["layers"], len(features))
        sizes = [features[depth] for depth in (*self.encoder_depths, *self.decoder_depths)]
        if not any(self.weights[name] for name in _OF_FEATURES):
            self.encoder_depths, self.decoder_depths, sizes = [], [], []
        width = self.options["width"]
        self.projectors = nn.ModuleList(Projector(size, width) for size in sizes)
        self.predictors = nn.ModuleList(ProjectionPredictor(width) for _ in sizes)

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute L_PT (eq. 7) of pairs of scans.

        In evaluation mode batch normalisation uses its statistics from training; the places are always drawn.
        """
        features = self.network.features(batch.pair.flatten(0, 1))
        terms = {}
        if self.projectors:
            projected = self.project(features)
            predicted = [predictor(layer) for predictor, layer in zip(self.predictors, projected, strict=True)]
            # correlations of thousands of dimensions need float32
            with torch.autocast(batch.pair.device.type, enabled=False):
                terms = self.feature_terms(paired(projected), paired(predicted))
        if self.weights["reconstruction"]:
            restored = self.network.logits(features)[0].unflatten(0, batch.pair.shape[:2])
            terms["reconstruction"] = reconstruction(restored, batch.clean_pair)
        self.terms = {name: term.detach() for name, term in terms.items()}
        return sum(self.weights[name] * term for name, term in terms.items() if name in self.weights)

    def project(self, features: Features) -> list[Tensor]:
        """Compute z = f(v) at random places, those of the encoder's layers first.

        :param features: of both scans of the pairs.
        :returns: (scans, places, width) each.
        """
        places = [draw_places(stage.shape[2:], self.options["places"], stage.device) for stage in features.encoder]
        upwards = features.decoder[::-1]
        layers = [(features.encoder[depth], places[depth]) for depth in self.encoder_depths]
        layers += [(upwards[depth], places[depth]) for depth in self.decoder_depths]
        return [f(features_at(*layer)) for f, layer in zip(self.projectors, layers, strict=True)]

    def feature_terms(self, z: list[Tensor], p: list[Tensor]) -> dict[str, Tensor]:
        """Compute the terms on patch features that have a weight, eq. 1 to 4, without it; and the spread.

        :param z: projections of every layer.
        :param p: predictions from them.
        :returns: the terms by name.
        """
        decoder = z[len(self.encoder_depths) :]
        terms = {}
        if self.weights["similarity"]:
            terms["similarity"] = mean_over_layers(similarity, z, p)
        if self.weights["orthogonality"]:
            deepest = self.decoder_depths[0]
            terms["orthogonality"] = orthogonality(z[self.encoder_depths.index(deepest)], decoder[0])
        if self.weights["variance"]:
            terms["variance"] = mean_over_layers(variance, decoder)
        if self.weights["covariance"]:
            terms["covariance"] = mean_over_layers(covariance, decoder)
        return {**terms, "spread": mean_over_layers(spread, [layer.detach() for layer in z])}


def layers_of_interest(layers: str, stages: int) -> tuple[list[int], list[int]]:
    """Choose the layers: depths of the encoder's stages, finest first, and of the decoder's, coarsest first.

    :param layers: "encoder_decoder" or "encoder".
    :param stages: of the encoder, with the bottleneck.
    :raises NotFoundError: another word.
    """
    if layers == "encoder":
        return list(range(stages - 1)), []
    if layers == "encoder_decoder":
        # the finest is for the reconstruction alone, unless there is no other
        return list(range(stages)), list(range(stages - 2, 0, -1)) or [0]
    raise unknown_name("choice of layers", layers, ["encoder", "encoder_decoder"])


def checked_weights(options: Options) -> dict[str, float]:
    """Read the weights of the terms and check all options.

    :param options: of the method.
    :returns: weight of every term.
    :raises ConfigurationError: a weight is negative or all are zero, a term of the decoder has a weight without decoder
        layers, or a size is too small.
    """
    weights = {name: options[name] for name in (*_OF_FEATURES, "reconstruction")}
    if min(weights.values()) < 0 or not any(weights.values()):
        raise ConfigurationError(f"Weights of losses are 0 or more, and one of them is more; found {weights}.")
    if options["layers"] == "encoder" and (needed := [name for name in _OF_DECODER if weights[name]]):
        raise ConfigurationError(
            f"layers=encoder looks at no layer of the decoder, which {', '.join(needed)} needs: add "
            f"{' '.join(f'--set {name}=0' for name in needed)}, or leave layers as it is."
        )
    for name, least in (("width", BOTTLENECK), ("places", 2)):
        if options[name] < least:
            raise ConfigurationError(f"The option '{name}' is {options[name]}, expected {least} or more.")
    return weights


def paired(layers: list[Tensor]) -> list[Tensor]:
    """Turn (scans, places, width) into (2, pairs x places, width), float32: compared entries have the same index."""
    return [layer.float().unflatten(0, (-1, 2)).transpose(0, 1).flatten(1, 2) for layer in layers]


def mean_over_layers(term: Callable[..., Tensor], *layers: list[Tensor]) -> Tensor:
    """Average a term over layers: 1 / L of eq. 1, 1 / k of eq. 3 and 4."""
    return torch.stack([term(*layer) for layer in zip(*layers, strict=True)]).mean()


def similarity(z: Tensor, p: Tensor) -> Tensor:
    """Compute L_sim of a layer (eq. 1): how badly each scan's projection is predicted from the other's; -1 (best) to 1.

    No gradient passes through the projection that is predicted (SimSiam, Chen & He 2021; eq. 1 extends it to patches).

    :param z: projections, (2, samples, width).
    :param p: predictions from them, same shape.
    :returns: a scalar.
    """
    return -functional.cosine_similarity(p, z.detach().flip(0), dim=-1).mean()


def orthogonality(encoder: Tensor, decoder: Tensor) -> Tensor:
    """Compute L_O (eq. 2): the mean squared cosine of encoder and decoder in the same place; 0 (orthogonal) to 1.

    The encoder's stage is the one whose skip connection the decoder's first stage receives. The printed cosine is
    lowest where the two are opposite, not orthogonal; the square, as in the authors' code, is lowest where they are
    orthogonal. The norm of v in eq. 2 is read as that of z: otherwise it would not be a cosine.

    :param encoder: projections, (2, samples, width).
    :param decoder: same shape.
    :returns: a scalar.
    """
    return functional.cosine_similarity(encoder, decoder, dim=-1).square().mean()


def variance(z: Tensor) -> Tensor:
    """Compute L_S of a layer (eq. 3; VICReg, Bardes et al. 2022): how far each dimension's deviation is below 1.

    It is computed over the samples of each side of the pairs, then averaged over dimensions and sides. As in VICReg and
    the authors' code z is not normalised to length 1. Normalised vectors of 2048 dimensions have deviations of at most
    1 / sqrt(2048), in the mean square, and would never come near 1.

    :param z: projections, (2, samples, width).
    :returns: 0 (spread) to 1.
    """
    deviation = (z.var(dim=1) + EPSILON).sqrt()
    return (LEAST_DEVIATION - deviation).clamp(min=0).mean()


def covariance(z: Tensor) -> Tensor:
    """Compute L_C of a layer (eq. 4; VICReg): the sum of squared covariances of different dimensions, over their count.

    Each side of the pairs has its own covariance matrix C; both sides are added up, as in VICReg and the authors' code.
    n is the number of samples in C and that of dimensions in the loss. The sum of squares is computed on the matrix of
    inner products of samples: |Z^T Z| = |Z Z^T|, and there are fewer samples than dimensions.

    :param z: projections, (2, samples, width), not normalised to length 1.
    :returns: a scalar.
    """
    samples, width = z.shape[1:]
    z = (z - z.mean(dim=1, keepdim=True)) / (samples - 1) ** 0.5
    all_squares = (z @ z.transpose(1, 2)).square().sum()
    diagonal_squares = z.square().sum(dim=1).square().sum()
    return (all_squares - diagonal_squares) / width


def reconstruction(restored: Tensor, clean: Tensor) -> Tensor:
    """Compute L_rec (eq. 5): the mean squared error between G(A_i(A_g(x))) and A_g(x).

    :param restored: (pairs, 2, channels, *spatial).
    :param clean: of the same shape.
    :returns: a scalar.
    """
    return functional.mse_loss(restored, clean)


def spread(z: Tensor) -> Tensor:
    """Measure whether a layer collapsed: about 1 where directions differ in all dimensions, 0 where all are the same.

    It is the standard deviation of each dimension of the normalised projections, times the square root of their number
    (SimSiam, figure 2). The projector's batch normalisation hides an incomplete collapse; that shows in
    :func:`covariance`.

    :param z: projections, (2, samples, width).
    :returns: a scalar.
    """
    return functional.normalize(z, dim=-1).std(dim=1).mean() * z.shape[-1] ** 0.5


METHOD = Spatiotemporal
