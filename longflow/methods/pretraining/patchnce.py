"""PatchNCE: a place of one scan is recognised among all places of the other.

Park, Efros, Zhang & Zhu, "Contrastive learning for unpaired image-to-image translation", ECCV 2020 (CUT; reference 44
of Ren et al., who use its loss for pretraining: section 4 and figure 1, row A).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options
from longflow.methods.pretraining._pretraining import PretrainingMethod
from longflow.networks.projection import draw_places, features_at
from longflow.networks.unet import Features
from longflow.plans import Plans

#: the numbers of CUT: places drawn in each layer, width of the heads, temperature
PLACES = 256
WIDTH = 256
TEMPERATURE = 0.07


class PatchNCE(PretrainingMethod):
    """Park et al.'s multi-layer patchwise contrastive loss between the two scans of a pair.

    In each layer of interest features are taken at random places, the same in both scans, and pass a head of the
    layer's own (two linear maps with a ReLU between them, then length 1). The feature of a place in one scan is the
    query, that of the same place in the other the positive key, those of all other places of that other scan the
    negative keys. The loss is the mean over layers.

    What was chosen here:

    - The two scans replace CUT's input and translation. Since neither is the other's input, each is query once and key
      once; no gradient passes through keys, as in CUT's public code.
    - The layers are those of ``spatiotemporal``, of which this is the counterpart with negatives: all stages of the
      encoder and of the decoder except its finest. ``options``: without ``decoder`` they are CUT's, the encoder alone.
    - A map with fewer than ``PLACES`` positions gives all; its own positions are enough negatives with one pair.
    """

    summary = "pretraining: recognise a place among others (Park et al. 2020)"
    options: ClassVar[Options] = {"decoder": True}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        encoder = self.configuration.network.features_per_stage
        #: stages above the bottleneck, from the coarsest; the finest is excluded
        decoder = encoder[-2:0:-1] if self.options["decoder"] else []
        self.heads = nn.ModuleList(_head(features) for features in [*encoder, *decoder])

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Average the loss of both directions over the layers."""
        features = self.network.features(batch.pair.flatten(0, 1))
        losses = []
        for layer, head in zip(self._layers(features), self.heads, strict=True):
            places = draw_places(layer.shape[2:], PLACES, layer.device)
            vectors = nn.functional.normalize(head(features_at(layer, places)).float(), dim=2)
            first, second = vectors.unflatten(0, (-1, 2)).unbind(1)
            losses.append((patch_contrast(first, second) + patch_contrast(second, first)) / 2)
        loss = torch.stack(losses).mean()
        stages = len(features.encoder)
        self.terms = {"encoder": torch.stack(losses[:stages]).mean().detach()}
        if losses[stages:]:
            self.terms["decoder"] = torch.stack(losses[stages:]).mean().detach()
        return loss

    def _layers(self, features: Features) -> list[Tensor]:
        return [*features.encoder, *(features.decoder[:-1] if self.options["decoder"] else [])]


def patch_contrast(queries: Tensor, keys: Tensor) -> Tensor:
    """Average -log(exp(q k / t) / sum over the image's places of exp(q k' / t)) over places (CUT, PatchNCE).

    :param queries: (images, places, width), of length 1.
    :param keys: the same of the same places; not differentiated.
    :returns: a scalar.
    """
    with torch.autocast(queries.device.type, enabled=False):
        similarity = queries @ keys.detach().transpose(1, 2) / TEMPERATURE
    right = torch.arange(queries.shape[1], device=queries.device).repeat(len(queries))
    return nn.functional.cross_entropy(similarity.flatten(0, 1), right)


def _head(features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


METHOD = PatchNCE
