"""Global and local contrastive learning: slices of one part of the body are alike, regions of one slice are not.

Chaitanya, Erdil, Karani & Konukoglu, "Contrastive learning of global and local features for medical image segmentation
with limited annotations", NeurIPS 2020 (reference 9 of Ren et al.).
"""

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options
from longflow.methods.pretraining._pretraining import PretrainingMethod
from longflow.networks.precision import guard_convolutions
from longflow.networks.projection import draw_places, features_at
from longflow.plans import Plans

#: the authors' numbers: temperature, parts S of a volume, regions compared in a slice, their edge in voxels of the map
TEMPERATURE = 0.1
PARTS = 4
REGIONS = 13
EDGE = 3
#: widths of the heads in their public code
HIDDEN, WIDTH = 1024, 128
#: decoder blocks after the map of the local loss: theirs has 5 blocks, of which 3 are pretrained
FINER_BLOCKS = 2
#: range of the second view's gamma: nnU-Net's
GAMMA = (0.7, 1.5)


class GLCL(PretrainingMethod):
    """Chaitanya et al.: the global loss G^D at the bottleneck and the local loss L_R in the decoder.

    A volume has ``PARTS`` parts along its first axis. In G^D all slices of one part are positive pairs, across
    subjects, and slices of other parts are negatives. In L_R a region (3 x 3 voxels of a decoder's map) of one view and
    the same region of the other are a positive pair, the other regions of both views the negatives.

    What was chosen here:

    - The method assumes independent images, so both views are of one scan, chosen at random from its pair. The first
      view is the augmented scan, the second the scan before its intensity draw, under a gamma of its own. (The authors
      draw contrast and brightness, which a network with instance normalisation hardly sees.) Both views have one
      spatial draw; the authors crop again for the global loss.
    - Encoder and decoder are trained together by the sum of both losses. The authors train the encoder with G^D first,
      then freeze it and train the decoder with L_R. Weights of 0 in ``options`` (``global``, ``local``) come near it,
      except that nothing is frozen.
    - The local map is the third finest of the decoder, as in their best setting (their l = 3 of 5 blocks). Regions are
      on a grid without overlap and are drawn at random; theirs have 13 fixed places and the 5 nearest as negatives.
    - Patches are slices with the configuration ``2d``, as in the paper. With a 3D configuration the part is that of the
      patch's centre along the first axis, and regions have three axes.
    - Where all slices of a batch are of one part, as with one pair alone, the global loss is 0 and trains nothing; the
      local loss has its negatives within a slice.
    """

    summary = "pretraining: global and local contrast (Chaitanya et al. 2020)"
    options: ClassVar[Options] = {"global": 1.0, "local": 1.0}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        network = self.configuration.network
        stages = len(network.strides)
        self.block = max(0, stages - 2 - FINER_BLOCKS)
        features, size = network.features_per_stage, self._map_size(stages - 1)
        self.global_head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(features[-1] * prod(size), HIDDEN, bias=False),
            nn.ReLU(),
            nn.Linear(HIDDEN, WIDTH, bias=False),
        )
        stage = stages - 2 - self.block
        edges = [min(EDGE, voxels) for voxels in self._map_size(stage)]
        self.local_head = _local_head(features[stage], edges)

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute the weighted sum of the global and the local loss."""
        features = self.network.features(two_views(batch).flatten(0, 1))
        slices = nn.functional.normalize(self.global_head(features.encoder[-1]).float(), dim=1)
        parts = (batch.position * PARTS).long().clamp(0, PARTS - 1).repeat_interleave(2)
        alike = parts[:, None] == parts
        itself = torch.eye(len(parts), dtype=torch.bool, device=parts.device)
        global_loss = contrast(slices, alike & ~itself, ~alike)

        regions = self.local_head(features.decoder[self.block])
        regions = features_at(regions, draw_places(regions.shape[2:], REGIONS, regions.device))
        count = regions.shape[1]
        # both views of a slice side by side: (slices, 2 * regions, width)
        regions = nn.functional.normalize(regions.float(), dim=2).reshape(-1, 2 * count, WIDTH)
        same = torch.eye(count, dtype=torch.bool, device=regions.device).repeat(2, 2)
        itself = torch.eye(2 * count, dtype=torch.bool, device=regions.device)
        local_loss = contrast(regions, same & ~itself, ~same)

        self.terms = {"global": global_loss.detach(), "local": local_loss.detach()}
        return self.options["global"] * global_loss + self.options["local"] * local_loss

    def _map_size(self, stage: int) -> list[int]:
        """Return the voxels of a stage's map along each axis."""
        strides = self.configuration.network.strides[: stage + 1]
        return [
            size // prod(stride[axis] for stride in strides) for axis, size in enumerate(self.configuration.patch_size)
        ]


def two_views(batch: ScanBatch) -> Tensor:
    """Make two views of one scan of each pair: as augmented, and before that under a random gamma.

    :param batch: with pairs.
    :returns: (pairs, 2, channels, *spatial).
    """
    pairs = torch.arange(len(batch.pair), device=batch.pair.device)
    chosen = torch.randint(2, pairs.shape, device=pairs.device)
    return torch.stack((batch.pair[pairs, chosen], random_gamma(batch.clean_pair[pairs, chosen])), 1)


def random_gamma(image: Tensor) -> Tensor:
    """Compute min + range * ((x - min) / range) ** gamma, one gamma per channel and image; min and max are kept.

    :param image: (batch, channels, *spatial).
    :returns: the same shape.
    """
    flat = image.flatten(2)
    smallest = flat.amin(2, keepdim=True)
    extent = (flat.amax(2, keepdim=True) - smallest).clamp_min(torch.finfo(flat.dtype).tiny)
    gamma = torch.empty_like(smallest).uniform_(*GAMMA)
    return (smallest + extent * ((flat - smallest) / extent) ** gamma).view_as(image)


def contrast(vectors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Average -log(exp(s / t) / (exp(s / t) + sum over negatives of exp(s' / t))) over positive pairs.

    s is the cosine similarity. Other positives of the same vector are not in the sum, as in the paper; without
    negatives the loss is 0.

    :param vectors: (..., n, width), of length 1.
    :param positive: (n, n), row against column.
    :param negative: (n, n).
    :returns: a scalar.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        similarity = vectors @ vectors.transpose(-1, -2) / TEMPERATURE
    # a finite lowest value, so that rows without negatives have a gradient of 0
    lowest = torch.finfo(similarity.dtype).min
    against = torch.logsumexp(similarity.masked_fill(~negative, lowest), -1, keepdim=True)
    surprise = torch.logaddexp(similarity, against) - similarity
    # chosen by a product: a selection would wait for the device to count
    return (surprise * positive).sum() / positive.expand_as(surprise).sum()


def _local_head(features: int, edges: list[int]) -> nn.Module:
    """Make g_2 of the paper, two 1 x 1 convolutions, and the linear map of whole regions that its public code adds."""
    convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if len(edges) == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return guard_convolutions(
        nn.Sequential(
            convolution(features, features, 1, bias=False),
            norm(features),
            nn.ReLU(),
            convolution(features, features, 1, bias=False),
            convolution(features, WIDTH, edges, stride=edges, bias=False),
        )
    )


METHOD = GLCL
