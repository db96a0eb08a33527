"""Displacements of images: warping, the flow of a stationary velocity, and how much it folds.

A displacement u is in voxels: the warped image at p is the image at p + u(p) (pull-back), linear between voxels. What
lies beyond the border is the border's value. Axes are those of the image, (z, y, x) or (y, x).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from longflow.networks.blocks import INTERPOLATION

#: of scaling and squaring: the first step is 2 ** -SQUARINGS of the velocity, at most an eighth of a voxel for 4 voxels
SQUARINGS = 5


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Move an image.

    :param image: (batch, channels, *spatial).
    :param displacement: (batch, axes, *spatial), in voxels.
    :returns: (batch, channels, *spatial), float32: at each voxel p the image at p + displacement(p).
    """
    grid = []
    for axis, size in enumerate(image.shape[2:]):
        place = torch.arange(size, device=image.device, dtype=torch.float32)
        place = place.view(-1, *[1] * (displacement.ndim - 3 - axis)) + displacement[:, axis].float()
        # torch's grid runs from -1 to 1, and names the last axis first; an axis of one voxel has no extent
        grid.insert(0, place * (2 / max(size - 1, 1)) - 1)
    places = torch.stack(grid, dim=-1)
    return F.grid_sample(image.float(), places, mode="bilinear", padding_mode="border", align_corners=True)


def exponentiate(velocity: Tensor) -> Tensor:
    """Compute the displacement after unit time of a stationary velocity, by scaling and squaring (Arsigny et al. 2006).

    :param velocity: (batch, axes, *spatial), voxels per unit of time.
    :returns: (batch, axes, *spatial), voxels; 0 exactly for a velocity of 0.
    """
    displacement = velocity.float() / 2**SQUARINGS
    for _ in range(SQUARINGS):
        displacement = displacement + warp(displacement, displacement)
    return displacement


def on_coarse_grid(velocity: Tensor, stride: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute the displacement of a velocity that is averaged over blocks, at a fraction of the time.

    :param velocity: (batch, axes, *spatial), voxels; every axis is divisible by its stride.
    :param stride: voxels of a block along each axis.
    :returns: the displacement (batch, axes, *spatial), in voxels, and the averaged velocity, in blocks.
    """
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(stride)]
    coarse = torch.stack(
        [part / size for part, size in zip(pool(velocity, tuple(stride)).unbind(1), stride, strict=True)], dim=1
    )
    displacement = F.interpolate(exponentiate(coarse), velocity.shape[2:], mode=INTERPOLATION[len(stride)])
    return torch.stack([part * size for part, size in zip(displacement.unbind(1), stride, strict=True)], dim=1), coarse


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
