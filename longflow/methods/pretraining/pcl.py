"""Positional contrastive learning: slices from about the same place of the body are alike, across subjects.

Zeng, Wu, Hu, Xu, Yuan, Huang, Zhuang, Hu & Shi, "Positional contrastive learning for volumetric medical image
segmentation", MICCAI 2021 (reference 63 of Ren et al.).
"""

import logging
from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options
from longflow.methods.pretraining._pretraining import PretrainingMethod
from longflow.plans import Plans

logger = logging.getLogger(__name__)

#: size of the space in which slices are compared, and the temperature there (the authors' public code)
WIDTH = 512
TEMPERATURE = 0.1


class PCL(PretrainingMethod):
    """Zeng et al.: contrastive learning in which two slices are a positive pair if their positions are near.

    Only the encoder is trained: its bottleneck is averaged over space, and a head of two layers (as wide as the
    bottleneck, then ``WIDTH``) maps it to the vector that is compared.

    What was chosen here:

    - The two scans of a pair are two volumes under one spatial and two intensity draws, at the same position: they
      replace the original's two views of one slice, which are a positive pair at any threshold.
    - Patches are slices with the configuration ``2d``, as in the paper. With a 3D configuration the position is that of
      the patch's centre along the first axis.
    - With one pair alone there is nothing to contrast: the loss is 0 and trains nothing, and a warning says so.

    ``options``: ``threshold`` is the distance of positions (0 to 1 along the volume) below which two slices are a
    positive pair. The authors use 0.1 for CT of the whole heart and 0.35 for ACDC's few slices.
    """

    summary = "pretraining: slices of near positions are alike (Zeng et al. 2021)"
    options: ClassVar[Options] = {"threshold": 0.1}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        if self.configuration.batch_size < 4:
            logger.warning(
                "pcl contrasts the pairs of a batch with each other, but that of the configuration '%s' has one pair "
                "(batch_size %d): the loss will stay 0. Take 2d, or set batch_size to 4 or more in the plans.",
                configuration,
                self.configuration.batch_size,
            )
        features = self.configuration.network.features_per_stage[-1]
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, WIDTH))

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute the contrastive loss of all scans of all pairs."""
        bottleneck = self.network.features(batch.pair.flatten(0, 1)).encoder[-1]
        vectors = nn.functional.normalize(self.head(bottleneck.float().flatten(2).mean(2)).float(), dim=1)
        loss = positional_contrast(vectors, batch.position.repeat_interleave(2), self.options["threshold"])
        self.terms = {"contrast": loss.detach()}
        return loss


def positional_contrast(vectors: Tensor, positions: Tensor, threshold: float) -> Tensor:
    """Average -log(exp(s / t) / sum of exp(s' / t)) over each slice's positives, then over slices.

    s is the cosine similarity. The sum is over all other slices, positives included, as in the supervised contrastive
    loss (Khosla et al. 2020) on which the authors' code is based.

    :param vectors: (slices, width), of length 1.
    :param positions: (slices,); each has a positive.
    :param threshold: of the distance of positions.
    :returns: a scalar.
    """
    itself = torch.eye(len(positions), dtype=torch.bool, device=positions.device)
    distance = (positions[:, None] - positions).abs()
    near = ((distance < threshold) | (distance == 0)) & ~itself
    with torch.autocast(vectors.device.type, enabled=False):
        similarity = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    surprise = torch.logsumexp(similarity, 1, keepdim=True) - similarity
    return (surprise.masked_fill(~near, 0).sum(1) / near.sum(1)).mean()


METHOD = PCL
