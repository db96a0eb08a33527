"""Context restoration: small patches of an image are swapped, and the network restores the image.

Chen, Bentley, Mori, Misawa, Fujiwara & Rueckert, "Self-supervised learning for medical image analysis using image
context restoration", Medical Image Analysis 58, 2019 (reference 10 of Ren et al.).
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options
from longflow.methods.pretraining._pretraining import PretrainingMethod
from longflow.plans import Plans

#: edge of the swapped patches in edges of the image. Chen et al. choose size and number for each of their datasets; a
#: share of the image and of its voxels keeps the task alike in 2D and 3D and for every planned patch
EDGE = 1 / 8


class ContextRestoration(PretrainingMethod):
    """Chen et al.: pairs of patches of equal size change places, repeatedly; the loss is the L2 distance.

    Both scans of a pair are independent images: the method does not use time. The augmented image is swapped, and that
    same image is to be restored, so that order alone has to be learned.

    ``options``: ``swapped`` is the share of the voxels that the swaps of a step move (a voxel that is moved twice
    counts twice); the paper gives no number.
    """

    summary = "pretraining: put swapped patches back (Chen et al. 2019)"
    options: ClassVar[Options] = {"swapped": 0.25}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        self.edges = [max(1, round(EDGE * size)) for size in self.configuration.patch_size]
        voxels = self.options["swapped"] * prod(self.configuration.patch_size)
        #: each swap moves two patches
        self.swaps = max(1, ceil(voxels / (2 * prod(self.edges))))

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute the mean squared difference between the restored image and the image before the swaps."""
        image = batch.pair.flatten(0, 1)
        restored = self.network.finest(swap_patches(image, self.edges, self.swaps))
        loss = nn.functional.mse_loss(restored, image.float())
        self.terms = {"restoration": loss.detach()}
        return loss


def swap_patches(image: Tensor, edges: Sequence[int], swaps: int) -> Tensor:
    """Swap two random patches of an image with each other, ``swaps`` times; each image of the batch has its own draws.

    Patches can be anywhere, as in Chen et al. The two of a swap do not overlap (where they would, the image stays
    unchanged), but later swaps may cut through earlier ones. All channels move together. Only positions are swapped
    here, for all images at once, so that the cost hardly depends on channels and batch.

    :param image: (batch, channels, *spatial).
    :param edges: of the patches, voxels along each axis.
    :param swaps: number of swaps.
    :returns: the same shape; each image keeps its set of voxels.
    """
    batch, spatial, device = image.shape[0], image.shape[2:], image.device
    strides = [prod(spatial[axis + 1 :]) for axis in range(len(spatial))]
    sizes, whole, steps = torch.tensor([list(edges), list(spatial), strides]).to(device, non_blocking=True)
    free = whole - sizes + 1
    corners = (torch.rand(swaps, 2, batch, len(spatial), device=device) * free).long().clamp_max(free - 1)
    first, second = corners.unbind(1)
    overlap = ((first - second).abs() < sizes).all(-1, keepdim=True)
    second = torch.where(overlap, first, second)

    ranges = [torch.arange(edge, device=device) for edge in edges]
    patch = (torch.cartesian_prod(*ranges) * steps).sum(-1)
    source = torch.arange(prod(spatial), device=device).repeat(batch, 1)
    for here, there in zip((first * steps).sum(-1), (second * steps).sum(-1), strict=True):
        here, there = here[:, None] + patch, there[:, None] + patch
        moved = source.gather(1, there)
        source.scatter_(1, there, source.gather(1, here)).scatter_(1, here, moved)
    flat = image.flatten(2)
    return flat.gather(2, source[:, None].expand_as(flat)).view_as(image)


METHOD = ContextRestoration
