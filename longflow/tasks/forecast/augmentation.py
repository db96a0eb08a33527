"""Augment a sample: one spatial and one intensity draw for all its scans, so that the changes between them remain."""

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from torch import Tensor

from longflow.plans import ConfigurationPlan, Plans
from longflow.preprocessing.patches import is_thin
from longflow.random_state import isolated_randomness

#: nnU-Net's probabilities and ranges for rotation and scaling
PROBABILITY = 0.2
ROTATION = (-30 / 180 * np.pi, 30 / 180 * np.pi)
SCALING = (0.7, 1.4)
BRIGHTNESS = (-0.2, 0.2)
CONTRAST = (0.8, 1.25)


def augment(stack: Tensor, plans: Plans, configuration: ConfigurationPlan, generator: np.random.Generator) -> Tensor:
    """Augment the context scans and the target of a sample in the same way.

    Thin patches are warped in the plane only, as in nnU-Net. Intensities are changed in the normal form by one gain
    and one shift per channel, and only where numbers have no absolute meaning: never for CT.

    :param stack: (scans, channels, *spatial), the target among the scans.
    :param plans: with the channels.
    :param configuration: with the patch size.
    :param generator: source of randomness.
    :returns: (scans, channels, *spatial).
    """
    with isolated_randomness(generator):  # the library draws from the global generators
        stack = _warp(stack, configuration)
    gains, shifts = _intensity_draw(plans, generator)
    shape = (1, -1, *([1] * (stack.ndim - 2)))
    return stack * gains.view(shape) + shifts.view(shape)


def _warp(stack: Tensor, configuration: ConfigurationPlan) -> Tensor:
    """Rotate, scale and mirror: one draw for all images."""
    spatial = stack.shape[2:]
    flat = len(spatial) == 3 and is_thin(configuration)
    images = stack.reshape(-1, *(spatial[1:] if flat else spatial))
    edges = tuple(images.shape[1:])
    warp = SpatialTransform(
        edges,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=PROBABILITY,
        rotation=ROTATION,
        p_scaling=PROBABILITY,
        scaling=SCALING,
        p_synchronize_scaling_across_axes=1,
        padding_mode_image="border",
    )
    mirror = MirrorTransform(tuple(range(len(edges))))
    images = mirror(**warp(image=images))["image"]
    return images.reshape(stack.shape)


def _intensity_draw(plans: Plans, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    gains, shifts = [], []
    for channel in plans.channels:
        gain, shift = generator.uniform(*CONTRAST), generator.uniform(*BRIGHTNESS)
        absolute = channel.normal_form == "absolute"
        gains.append(1.0 if absolute else gain)
        shifts.append(0.0 if absolute else shift)
    return torch.tensor(gains, dtype=torch.float32), torch.tensor(shifts, dtype=torch.float32)
