"""Augmentation of patches of scans: nnU-Net's own transforms, whole for labelled scans and in two parts for pairs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from longflow.nnunet import LabelManager, size_to_read, training_transforms, validation_transforms
from longflow.plans import ConfigurationPlan
from longflow.tasks.forecast.augmentation import is_thin

#: nnU-Net's rules: largest rotation by the shape of a patch, and the scaling that the read patch must leave room for
HALF_TURN = (-np.pi, np.pi)
IN_SPACE = (-np.pi / 6, np.pi / 6)
IN_OBLONG_SLICES = (-np.pi / 12, np.pi / 12)
OBLONG = 1.5
ROOM_FOR_SCALING = (0.85, 1.25)

#: voxels to either side that nnU-Net's strongest blurring looks at; it fails on patches that are not wider
BLUR_REACH = 3

#: what belongs to the spatial draw A_g of a pair
SPATIAL = (SpatialTransform, MirrorTransform, Convert3DTo2DTransform, Convert2DTo3DTransform)


@dataclass(frozen=True)
class ScanTransforms:
    """What happens to a patch after it is read.

    :param read_size: voxels of the patch that is read: so many that rotation leaves the final patch inside it.
    :param labelled: of an image with its segmentation, to the final patch and the targets of deep supervision.
    :param spatial: A_g of a pair, to the final patch. :param intensity: A_i of a scan.
    """

    read_size: tuple[int, ...]
    labelled: BasicTransform
    spatial: BasicTransform
    intensity: BasicTransform


def build_transforms(plan: ConfigurationPlan, manager: LabelManager | None, augmented: bool) -> ScanTransforms:
    """nnU-Net's transforms for training, or its transforms for validation (the patch as it is).

    Intensities are changed for CT too, as nnU-Net does.

    :param manager: says which regions and which ignore label the targets have; None where there are no targets.
    """
    scales = deep_supervision_scales(plan)
    if not augmented:
        nothing = ComposeTransforms([])
        return ScanTransforms(tuple(plan.patch_size), validation_transforms(scales, manager), nothing, nothing)
    whole = training_transforms(plan.patch_size, rotation_range(plan), scales, is_thin(plan), manager)
    steps = _steps(whole, plan)
    return ScanTransforms(
        read_size=read_size(plan),
        labelled=ComposeTransforms(steps),
        spatial=ComposeTransforms([step for step in steps if isinstance(step, SPATIAL)]),
        intensity=ComposeTransforms([step for step in steps if isinstance(step, RandomTransform)]),
    )


def _steps(whole: ComposeTransforms, plan: ConfigurationPlan) -> list[BasicTransform]:
    """nnU-Net's transforms with blurring that is repeatable, or without where the patch is too thin for its kernel."""
    steps = []
    for step in whole.transforms:
        if isinstance(step, RandomTransform) and isinstance(step.transform, GaussianBlurTransform):
            if min(plan.patch_size) <= BLUR_REACH:
                continue
            # it would choose between two algorithms by their speed at the time, whose results differ
            step.transform.benchmark = False
        steps.append(step)
    return steps


def rotation_range(plan: ConfigurationPlan) -> tuple[float, float]:
    """Radians about each axis, by the shape of the patch, as nnUNetTrainer decides."""
    if len(plan.patch_size) == 3:
        return HALF_TURN if is_thin(plan) else IN_SPACE
    return IN_OBLONG_SLICES if max(plan.patch_size) / min(plan.patch_size) > OBLONG else HALF_TURN


def read_size(plan: ConfigurationPlan) -> tuple[int, ...]:
    """Voxels to read for a patch that may be rotated and scaled; thin patches are never rotated out of the plane."""
    first, *others = size_to_read(plan.patch_size, rotation_range(plan), ROOM_FOR_SCALING)
    return (plan.patch_size[0] if is_thin(plan) else first, *others)


def deep_supervision_scales(plan: ConfigurationPlan) -> list[list[float]]:
    """Size of each output of the network as a share of the patch, finest first; the bottleneck has none.

    >>> from types import SimpleNamespace as Plan
    >>> deep_supervision_scales(Plan(network=Plan(strides=[[1, 1], [1, 2], [2, 2]])))
    [[1.0, 1.0], [1.0, 0.5]]
    """
    return (1 / np.cumprod(plan.network.strides, axis=0))[:-1].tolist()


def augment_labelled(transforms: ScanTransforms, image: Tensor, segmentation: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A labelled patch for the network.

    :param image: (channels, *read_size), float32. :param segmentation: (1, *read_size), int16, -1 outside the image.
    :returns: (channels, *patch) and the targets, finest first: (1 or regions, *patch of the scale).
    """
    done = transforms.labelled(image=image, segmentation=segmentation)
    return done["image"], done["segmentation"]


def augment_pair(transforms: ScanTransforms, pair: Tensor) -> tuple[Tensor, Tensor]:
    """Two scans under one spatial draw, and the same with an intensity draw each (Ren et al., A_g and A_i of eq. 5).

    :param pair: (2, channels, *read_size). :returns: A_i(A_g(x)) and A_g(x), (2, channels, *patch) both.
    """
    stacked = transforms.spatial(image=pair.flatten(0, 1))["image"]
    clean = stacked.unflatten(0, pair.shape[:2]).contiguous()
    # the transforms change their input
    return torch.stack([transforms.intensity(image=scan.clone())["image"] for scan in clean]), clean


@contextmanager
def randomness_of(generator: np.random.Generator) -> Iterator[None]:
    """Within the block the global generators of torch and NumPy, from which the library draws, follow this one.

    They are left as they were.
    """
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**31)))
        np.random.seed(int(generator.integers(2**31)))
        try:
            yield
        finally:
            np.random.set_state(state)
