"""Augment patches of scans by nnU-Net's own transforms: whole for labelled scans, in two parts for pairs."""

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
from longflow.preprocessing.patches import is_thin
from longflow.random_state import isolated_randomness

#: nnU-Net's rules: largest rotation by the shape of a patch, and the scaling that the read patch must leave room for
HALF_TURN = (-np.pi, np.pi)
IN_SPACE = (-np.pi / 6, np.pi / 6)
IN_OBLONG_SLICES = (-np.pi / 12, np.pi / 12)
OBLONG = 1.5
ROOM_FOR_SCALING = (0.85, 1.25)

#: voxels to either side that nnU-Net's strongest blurring reads; it fails on patches that are not wider
BLUR_REACH = 3

#: transforms of the spatial draw A_g of a pair
SPATIAL = (SpatialTransform, MirrorTransform, Convert3DTo2DTransform, Convert2DTo3DTransform)


@dataclass(frozen=True)
class ScanTransforms:
    """The transforms of a patch after it is read.

    :param read_size: voxels of the patch that is read, large enough that the rotated final patch lies inside it.
    :param labelled: of an image with its segmentation, to the final patch and the targets of deep supervision.
    :param spatial: A_g of a pair, to the final patch.
    :param intensity: A_i of a scan.
    """

    read_size: tuple[int, ...]
    labelled: BasicTransform
    spatial: BasicTransform
    intensity: BasicTransform


def build_transforms(plan: ConfigurationPlan, manager: LabelManager | None, augmented: bool) -> ScanTransforms:
    """Build nnU-Net's transforms for training, or its transforms for validation (the patch as it is).

    Intensities are changed for CT too, as in nnU-Net.

    :param plan: with patch size and strides.
    :param manager: of the labels: regions and ignore label of the targets; None where there are no targets.
    :param augmented: for training.
    :returns: the transforms.
    """
    scales = deep_supervision_scales(plan)
    if not augmented:
        nothing = ComposeTransforms([])
        return ScanTransforms(tuple(plan.patch_size), validation_transforms(scales, manager), nothing, nothing)
    whole = training_transforms(plan.patch_size, rotation_range(plan), scales, is_thin(plan), manager, plan.mirrored)
    steps = _steps(whole, plan)
    return ScanTransforms(
        read_size=read_size(plan),
        labelled=ComposeTransforms(steps),
        spatial=ComposeTransforms([step for step in steps if isinstance(step, SPATIAL)]),
        intensity=ComposeTransforms([step for step in steps if isinstance(step, RandomTransform)]),
    )


def _steps(whole: ComposeTransforms, plan: ConfigurationPlan) -> list[BasicTransform]:
    """Make the blurring of nnU-Net's transforms repeatable; remove it where the patch is too thin for its kernel."""
    steps = []
    for step in whole.transforms:
        if isinstance(step, RandomTransform) and isinstance(step.transform, GaussianBlurTransform):
            if min(plan.patch_size) <= BLUR_REACH:
                continue
            # else it chooses between two algorithms by their present speed, and their results differ
            step.transform.benchmark = False
        steps.append(step)
    return steps


def rotation_range(plan: ConfigurationPlan) -> tuple[float, float]:
    """Choose the range of rotation by the shape of the patch, as nnUNetTrainer does.

    :param plan: with the patch size.
    :returns: lowest and highest angle about each axis, radians.
    """
    if len(plan.patch_size) == 3:
        return HALF_TURN if is_thin(plan) else IN_SPACE
    return IN_OBLONG_SLICES if max(plan.patch_size) / min(plan.patch_size) > OBLONG else HALF_TURN


def read_size(plan: ConfigurationPlan) -> tuple[int, ...]:
    """Compute the voxels to read for a patch that may be rotated and scaled.

    Thin patches are never rotated out of the plane.

    :param plan: with the patch size.
    :returns: voxels along (z,) y, x.
    """
    first, *others = size_to_read(plan.patch_size, rotation_range(plan), ROOM_FOR_SCALING)
    return (plan.patch_size[0] if is_thin(plan) else first, *others)


def deep_supervision_scales(plan: ConfigurationPlan) -> list[list[float]]:
    """Compute the size of each output of the network as a share of the patch; the bottleneck has no output.

    :param plan: with the strides.
    :returns: shares along each axis, finest output first.

    >>> from types import SimpleNamespace as Plan
    >>> deep_supervision_scales(Plan(network=Plan(strides=[[1, 1], [1, 2], [2, 2]])))
    [[1.0, 1.0], [1.0, 0.5]]
    """
    return (1 / np.cumprod(plan.network.strides, axis=0))[:-1].tolist()


def augment_labelled(transforms: ScanTransforms, image: Tensor, segmentation: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Augment a labelled patch.

    :param transforms: of the plan.
    :param image: (channels, *read_size), float32.
    :param segmentation: (1, *read_size), int16, -1 outside the image.
    :returns: (channels, *patch) and the targets, finest first: (1 or regions, *patch of the scale).
    """
    done = transforms.labelled(image=image, segmentation=segmentation)
    return done["image"], done["segmentation"]


def augment_series(transforms: ScanTransforms, scans: Tensor, segmentation: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Augment a labelled patch and those of other scans by one spatial draw and an intensity draw each.

    :param transforms: of the plan.
    :param scans: (scans, channels, *read_size), float32.
    :param segmentation: (1, *read_size), int16, -1 outside the image.
    :returns: (scans, channels, *patch) and the targets, finest first: (1 or regions, *patch of the scale).
    """
    size, done = scans.shape[:2], {"image": scans.flatten(0, 1), "segmentation": segmentation}
    for step in transforms.labelled.transforms:
        if isinstance(step, RandomTransform):  # those of intensity; they change their input
            each = [step(image=scan.clone())["image"] for scan in done["image"].unflatten(0, size)]
            done["image"] = torch.cat(each)
        else:
            done = step(**done)
    return done["image"].unflatten(0, size), done["segmentation"]


def augment_pair(transforms: ScanTransforms, pair: Tensor, shared_intensity: bool = False) -> tuple[Tensor, Tensor]:
    """Augment two scans by one spatial draw and an intensity draw each (Ren et al., A_g and A_i of eq. 5).

    :param transforms: of the plan.
    :param pair: (2, channels, *read_size).
    :param shared_intensity: one intensity draw for both, noise included: the default of the authors' code.
    :returns: A_i(A_g(x)) and A_g(x), (2, channels, *patch) both.
    """
    stacked = transforms.spatial(image=pair.flatten(0, 1))["image"]
    clean = stacked.unflatten(0, pair.shape[:2]).contiguous()
    # the transforms change their input
    if not shared_intensity:
        return torch.stack([transforms.intensity(image=scan.clone())["image"] for scan in clean]), clean
    seed, changed = int(torch.randint(2**31, ())), []
    for scan in clean:
        with isolated_randomness(np.random.default_rng(seed)):
            changed.append(transforms.intensity(image=scan.clone())["image"])
    return torch.stack(changed), clean
