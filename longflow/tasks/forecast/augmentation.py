"""Augment a sample: one spatial and one intensity draw for all its scans, so that the changes between them remain."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from longflow.flow.interpolant import with_mean_one
from longflow.methods.batches import Batch
from longflow.plans import ConfigurationPlan, Plans
from longflow.preprocessing.patches import is_thin
from longflow.random_state import isolated_randomness

#: nnU-Net's probabilities and ranges for rotation and scaling
PROBABILITY = 0.2
ROTATION = (-30 / 180 * np.pi, 30 / 180 * np.pi)
SCALING = (0.7, 1.4)
BRIGHTNESS = (-0.2, 0.2)
CONTRAST = (0.8, 1.25)
#: of elastic deformations: standard deviation of the smoothing in shares of an edge, and the largest displacement in
#: units of it, with which nothing folds
SMOOTHING = (0.1, 0.25)
DISPLACEMENT = (0.0, 0.5)


def augment(
    stack: Tensor, plans: Plans, configuration: ConfigurationPlan, generator: np.random.Generator, maps: int = 0
) -> Tensor:
    """Augment the context scans and the target of a sample in the same way.

    Thin patches are warped in the plane only, as in nnU-Net. Intensities are changed in the normal form by one gain
    and one shift per channel, and only where numbers have no absolute meaning: never for CT.

    :param stack: (scans, channels, *spatial), the target among the scans.
    :param plans: with the channels.
    :param configuration: with the patch size.
    :param generator: source of randomness.
    :param maps: so many of the last are no scans but maps of weights, whose numbers stay.
    :returns: (scans, channels, *spatial).
    """
    with isolated_randomness(generator):  # the library draws from the global generators
        stack = _warp(stack, configuration, plans.training.elastic)
    return _with_intensities(stack, *_intensity_draw(plans, generator), maps)


@dataclass(frozen=True)
class Draw:
    """What :func:`augment` draws for a sample, to be applied on a GPU.

    :param affine: from a voxel of the result to one of the input along the warped axes, both from the centre; None
        where nothing is warped.
    :param mirrored: axes, counted from the last one (-1).
    :param gains: of each channel.
    :param shifts: of each channel.
    """

    affine: np.ndarray | None
    mirrored: tuple[int, ...]
    gains: Tensor
    shifts: Tensor


def draw_augmentation(plans: Plans, configuration: ConfigurationPlan, generator: np.random.Generator) -> Draw:
    """Draw what :func:`augment` draws from the same generator.

    :param plans: with the channels.
    :param configuration: with the patch size.
    :param generator: source of randomness.
    :returns: the draw.
    """
    axes = 2 if is_thin(configuration) else len(configuration.patch_size)
    with isolated_randomness(generator):
        # a patch of one voxel, since the transform computes the position of every voxel with its draw
        voxel = torch.zeros([1] * (axes + 1))
        affine = _spatial_transform(tuple(voxel.shape[1:])).get_parameters(image=voxel)["affine"]
        mirrored = MirrorTransform(tuple(range(axes))).get_parameters()["axes"]
    return Draw(affine, tuple(axis - axes for axis in mirrored), *_intensity_draw(plans, generator))


def augment_batch(batch: Batch) -> Batch:
    """Augment the samples of a batch by their draws, on its device. Only rounding differs from :func:`augment`.

    :param batch: with draws; one without is returned as it is.
    :returns: the batch, without them.
    """
    if batch.draws is None:
        return batch
    maps = [] if batch.weights is None else [batch.weights.unsqueeze(1)]
    stacks = torch.cat([batch.context, batch.target.unsqueeze(1), *maps], dim=1)
    done = torch.stack([with_draw(stack, draw, len(maps)) for stack, draw in zip(stacks, batch.draws, strict=True)])
    scans, weights = (done[:, :-1], with_mean_one(done[:, -1])) if maps else (done, None)
    return replace(batch, context=scans[:, :-1], target=scans[:, -1], weights=weights, draws=None)


def with_draw(stack: Tensor, draw: Draw, maps: int = 0) -> Tensor:
    """Apply a draw to the scans of a sample.

    :param stack: (scans, channels, *spatial), where the last axes are warped.
    :param draw: to apply.
    :param maps: so many of the last are maps of weights, whose numbers stay.
    :returns: a tensor of that shape.
    """
    if draw.affine is not None:
        axes = len(draw.affine)
        edges = np.array(stack.shape[-axes:])
        # affine_grid counts from -1 to 1 along each axis, the last axis first
        theta = (draw.affine * edges / edges[:, None])[::-1, ::-1]
        theta = torch.from_numpy(np.column_stack([theta, np.zeros(axes)])).float().to(stack.device, non_blocking=True)
        images = stack.reshape(1, -1, *stack.shape[-axes:])
        grid = affine_grid(theta[None], list(images.shape), align_corners=False)
        stack = grid_sample(images, grid, padding_mode="border", align_corners=False).view(stack.shape)
    return _with_intensities(stack.flip(draw.mirrored), draw.gains, draw.shifts, maps)


def _with_intensities(stack: Tensor, gains: Tensor, shifts: Tensor, maps: int) -> Tensor:
    """Change the intensities of each channel; the last ``maps`` of the stack stay."""
    shape = (1, -1, *([1] * (stack.ndim - 2)))
    gains, shifts = (numbers.to(stack.device, non_blocking=True).view(shape) for numbers in (gains, shifts))
    scans = stack[: len(stack) - maps] * gains + shifts
    return torch.cat([scans, stack[len(stack) - maps :]]) if maps else scans


def draw_time_factor(plans: Plans, generator: np.random.Generator) -> float:
    """Draw the number by which the times of a sample are multiplied: its subject changes faster or slower.

    :param plans: ``training.time_factor``, the largest number; its logarithm is uniform. With a period it is always 1.
    :param generator: source of randomness; not used where the number is always 1.
    :returns: the number.
    """
    largest = plans.training.time_factor
    if largest == 1 or plans.temporal.repeats:
        return 1.0
    return float(largest ** generator.uniform(-1, 1))


def _warp(stack: Tensor, configuration: ConfigurationPlan, elastic: float) -> Tensor:
    """Rotate, scale, deform and mirror: one draw for all images."""
    spatial = stack.shape[2:]
    flat = len(spatial) == 3 and is_thin(configuration)
    images = stack.reshape(-1, *(spatial[1:] if flat else spatial))
    edges = tuple(images.shape[1:])
    mirror = MirrorTransform(tuple(range(len(edges))))
    images = mirror(**_spatial_transform(edges, elastic)(image=images))["image"]
    return images.reshape(stack.shape)


def _spatial_transform(edges: tuple[int, ...], elastic: float = 0.0) -> SpatialTransform:
    """Make the library's rotation, scaling and elastic deformation of patches with these edges.

    :param elastic: probability of a deformation.
    """
    return SpatialTransform(
        edges,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=elastic,
        elastic_deform_scale=SMOOTHING,
        elastic_deform_magnitude=_displacement,
        p_rotation=PROBABILITY,
        rotation=ROTATION,
        p_scaling=PROBABILITY,
        scaling=SCALING,
        p_synchronize_scaling_across_axes=1,
        padding_mode_image="border",
    )


def _displacement(image: Tensor, patch_size: tuple[int, ...], dim: int, deformation_scale: float) -> float:
    """Draw the largest displacement along an axis, in voxels; the library names the arguments."""
    return np.random.uniform(*DISPLACEMENT) * deformation_scale * patch_size[dim]


def _intensity_draw(plans: Plans, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    gains, shifts = [], []
    for channel in plans.channels:
        gain, shift = generator.uniform(*CONTRAST), generator.uniform(*BRIGHTNESS)
        absolute = channel.normal_form == "absolute"
        gains.append(1.0 if absolute else gain)
        shifts.append(0.0 if absolute else shift)
    return torch.tensor(gains, dtype=torch.float32), torch.tensor(shifts, dtype=torch.float32)
