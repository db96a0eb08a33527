"""Displacements of images: warping, the flow of a stationary velocity, and how much it folds.

A displacement u is in voxels: the warped image at p is the image at p + u(p) (pull-back), linear between voxels. What
lies beyond the border is the border's value. Axes are those of the image, (z, y, x) or (y, x).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: of scaling and squaring: the first step is 2 ** -SQUARINGS of the velocity, at most an eighth of a voxel for 4 voxels
SQUARINGS = 5


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Move an image.

    :param image: (batch, channels, *spatial).
    :param displacement: (batch, axes, *spatial), in voxels.
    :returns: (batch, channels, *spatial), float32: at each voxel p the image at p + displacement(p).
    """
    sizes = image.shape[2:]
    axes = [torch.arange(size, device=image.device, dtype=torch.float32) for size in sizes]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")) + displacement.float()
    # torch's grid runs from -1 to 1, and names the last axis first; an axis of one voxel has no extent
    extent = torch.tensor([max(size - 1, 1) for size in sizes], device=image.device).view(-1, *[1] * len(sizes))
    grid = (2 * places / extent - 1).flip(1).movedim(1, -1)
    return F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)


def exponentiate(velocity: Tensor, squarings: int = SQUARINGS) -> Tensor:
    """Compute the displacement after unit time of a stationary velocity, by scaling and squaring (Arsigny et al. 2006).

    :param velocity: (batch, axes, *spatial), voxels per unit of time.
    :param squarings: number of doublings of the time.
    :returns: (batch, axes, *spatial), voxels; 0 exactly for a velocity of 0.
    """
    displacement = velocity.float() / 2**squarings
    for _ in range(squarings):
        displacement = displacement + warp(displacement, displacement)
    return displacement


def on_coarse_grid(velocity: Tensor, stride: Sequence[int], squarings: int = SQUARINGS) -> tuple[Tensor, Tensor]:
    """Compute the displacement of a velocity that is averaged over blocks, at a fraction of the time.

    :param velocity: (batch, axes, *spatial), voxels; every axis is divisible by its stride.
    :param stride: voxels of a block along each axis.
    :returns: the displacement (batch, axes, *spatial), in voxels, and the averaged velocity, in blocks.
    """
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(stride)]
    size = torch.tensor(stride, device=velocity.device, dtype=torch.float32).view(-1, *[1] * len(stride))
    coarse = pool(velocity, tuple(stride)) / size
    mode = {2: "bilinear", 3: "trilinear"}[len(stride)]
    displacement = F.interpolate(exponentiate(coarse, squarings), velocity.shape[2:], mode=mode, align_corners=False)
    return displacement * size, coarse


def roughness(velocity: Tensor) -> Tensor:
    """Compute the mean square of the velocity's differences between neighbouring voxels, over all axes.

    :param velocity: (batch, axes, *spatial), voxels per unit of time.
    :returns: a scalar, 0 for a translation.
    """
    differences = [
        velocity.diff(dim=axis).square().mean() for axis in range(2, velocity.ndim) if velocity.shape[axis] > 1
    ]
    return torch.stack(differences).sum() if differences else velocity.new_zeros(())


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Compute the determinant of the Jacobian of p -> p + u(p): local volume; below 0 the map folds.

    :param displacement: (batch, axes, *spatial), voxels; every axis longer than one voxel has at least two.
    :returns: (batch, *spatial).
    """
    axes = displacement.ndim - 2
    gradients = [
        torch.gradient(displacement, dim=axis + 2)[0]
        if displacement.shape[axis + 2] > 1
        else torch.zeros_like(displacement)
        for axis in range(axes)
    ]
    jacobian = torch.stack(gradients, dim=2).movedim((1, 2), (-2, -1)).double()
    return torch.linalg.det(jacobian + torch.eye(axes, dtype=jacobian.dtype, device=jacobian.device)).float()
