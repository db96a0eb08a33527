from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from longflow.data.labels import label_manager
from longflow.random_state import isolated_randomness
from longflow.tasks.segment.augmentation import (
    ScanTransforms,
    augment_labelled,
    augment_pair,
    build_transforms,
    deep_supervision_scales,
    read_size,
    rotation_range,
)
from tests.tasks.segment.cohort import segment_plans

PATCHES = [(4, 8, 8), (8, 8), (2, 8, 8)]


def plan_of(patch, **options):
    (plan,) = segment_plans(dimensions=len(patch), patch=patch, **options).configurations.values()
    return plan


def transforms_of(patch, augmented=True, labels=None, order=(), certain=False, **options) -> ScanTransforms:
    """:param certain: whether every patch is rotated and scaled, and every intensity transform applied."""
    manager = label_manager(labels or {"background": 0, "left": 1, "right": 2}, order)
    transforms = build_transforms(plan_of(patch, **options), manager, augmented)
    for step in transforms.labelled.transforms if certain else ():
        if isinstance(step, SpatialTransform):
            step.p_rotation = step.p_scaling = 1.0
        if isinstance(step, RandomTransform):
            step.apply_probability = 1.0
    return transforms


def spatial_only(transforms: ScanTransforms) -> ScanTransforms:
    steps = [step for step in transforms.labelled.transforms if not isinstance(step, RandomTransform)]
    return ScanTransforms(transforms.read_size, ComposeTransforms(steps), transforms.spatial, transforms.intensity)


def box(size) -> torch.Tensor:
    """A box off the centre, 1 inside: (1, *size)."""
    image = torch.zeros(1, *size)
    image[(0, *(slice(edge // 3, edge - edge // 4) for edge in size))] = 1
    return image


def nnunet_decisions(plan):
    """nnU-Net's own decisions, from its trainer without a trainer."""
    configuration = SimpleNamespace(patch_size=list(plan.patch_size), pool_op_kernel_sizes=plan.network.strides)
    trainer = SimpleNamespace(
        configuration_manager=configuration, print_to_log_file=lambda *_: None, enable_deep_supervision=True
    )
    return (
        nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer),
        nnUNetTrainer._get_deep_supervision_scales(trainer),
    )


@pytest.mark.parametrize(
    "patch", [(40, 56, 40), (10, 96, 96), (8, 96, 96), (16, 64, 128), (256, 224), (64, 128), (4, 8, 8)]
)
def test_rotation_thinness_and_the_read_patch_are_those_of_nnunet(patch):
    plan = plan_of(patch, strides=[[1] * len(patch), [1] * (len(patch) - 1) + [2], [2] * len(patch)])
    (rotation, thin, initial, mirror_axes), scales = nnunet_decisions(plan)
    transforms = transforms_of(patch)
    assert rotation_range(plan) == pytest.approx(rotation)
    assert read_size(plan) == tuple(initial)
    assert transforms.labelled.transforms[-3].allowed_axes == mirror_axes
    assert (type(transforms.labelled.transforms[0]) is not SpatialTransform) == thin
    (warp,) = (step for step in transforms.labelled.transforms if isinstance(step, SpatialTransform))
    assert warp.rotation == pytest.approx(rotation) and warp.patch_size == patch[thin:]
    assert np.allclose(deep_supervision_scales(plan), scales)


@pytest.mark.parametrize("patch", PATCHES)
def test_image_and_labels_are_warped_alike(patch):
    """What is 1 in the image is 1 in the labels, but where the interpolated image is at the threshold."""
    transforms = spatial_only(transforms_of(patch, certain=True))
    before, moved = box(transforms.read_size), 0
    for seed in range(8):
        with isolated_randomness(np.random.default_rng(seed)):
            image, (labels,) = augment_labelled(transforms, before.clone(), before.to(torch.int16))
        assert image.shape == labels.shape == (1, *patch) and labels.dtype == torch.int16
        decided = (image - 0.5).abs() > 0.01
        assert torch.equal((image > 0.5)[decided], (labels == 1)[decided]) and decided.float().mean() > 0.9
        moved += not torch.equal(image, transforms_of(patch, False).spatial(image=before)["image"])
        assert 0 < labels.float().mean() < 1
    assert moved == 8


@pytest.mark.parametrize("patch", PATCHES)
def test_a_pair_has_one_spatial_draw_and_two_intensity_draws(patch):
    transforms = transforms_of(patch, certain=True)
    scan = torch.randn(1, 2, *transforms.read_size, generator=torch.Generator().manual_seed(0))
    for seed in range(8):
        with isolated_randomness(np.random.default_rng(seed)):
            pair, clean = augment_pair(transforms, scan.repeat(2, *[1] * (len(patch) + 1)))
        assert pair.shape == clean.shape == (2, 2, *patch)
        assert torch.equal(clean[0], clean[1])
        assert not torch.allclose(pair[0], pair[1]) and not torch.allclose(pair[0], clean[0])


@pytest.mark.parametrize("patch", PATCHES)
def test_what_changes_an_image_is_either_spatial_or_of_intensity(patch):
    """Nothing of nnU-Net's list is lost for pairs but what is done to labels alone."""
    transforms = transforms_of(patch)
    used = [*transforms.spatial.transforms, *transforms.intensity.transforms]
    left = [step for step in transforms.labelled.transforms if step not in used]
    assert len(used) + len(left) == len(transforms.labelled.transforms)
    assert all(isinstance(step, SegOnlyTransform) for step in left) and len(left) == 2


def test_intensity_alone_moves_nothing():
    """A bright box stays where it is."""
    transforms = transforms_of((8, 24, 24), certain=True)
    scan = 10 * box((8, 24, 24))
    with isolated_randomness(np.random.default_rng(0)):
        image = transforms.intensity(image=scan.clone())["image"]
    assert np.corrcoef(image.ravel(), scan.ravel())[0, 1] > 0.8
    assert len(transforms.intensity.transforms) == 7


@pytest.mark.parametrize("patch", PATCHES)
def test_without_augmentation_the_patch_stays_as_it_is(patch):
    transforms = transforms_of(patch, augmented=False)
    assert transforms.read_size == patch
    scan = torch.randn(2, 1, *patch)
    pair, clean = augment_pair(transforms, scan)
    assert torch.equal(pair, scan) and torch.equal(clean, scan)
    image, (labels,) = augment_labelled(transforms, scan[0], torch.full((1, *patch), -1, dtype=torch.int16))
    assert torch.equal(image, scan[0]) and (labels == 0).all()


@pytest.mark.parametrize("augmented", [True, False])
def test_targets_of_deep_supervision(augmented):
    transforms = transforms_of((4, 8, 8), augmented, strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]])
    segmentation = torch.ones(1, *transforms.read_size, dtype=torch.int16)
    with isolated_randomness(np.random.default_rng(0)):
        targets = augment_labelled(transforms, torch.zeros(1, *transforms.read_size), segmentation)[1]
    assert [tuple(target.shape) for target in targets] == [(1, 4, 8, 8), (1, 4, 4, 4), (1, 2, 2, 2)]


def test_regions_and_the_ignore_label_become_channels():
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    transforms = transforms_of((8, 8), False, labels, (1, 2))
    segmentation = torch.arange(4, dtype=torch.int16).repeat_interleave(16).view(1, 8, 8)
    (target,) = augment_labelled(transforms, torch.zeros(1, 8, 8), segmentation.clone())[1]
    expected = [(segmentation == 1) | (segmentation == 2), segmentation == 2, segmentation == 3]
    assert target.dtype == torch.bool and torch.equal(target, torch.cat(expected))


def test_the_ignore_label_stays_a_label():
    transforms = transforms_of((8, 8), False, {"background": 0, "left": 1, "ignore": 2})
    segmentation = torch.full((1, 8, 8), 2, dtype=torch.int16)
    assert (augment_labelled(transforms, torch.zeros(1, 8, 8), segmentation)[1][0] == 2).all()


def test_blurring_does_not_choose_its_algorithm_by_the_clock():
    steps = transforms_of((4, 8, 8)).intensity.transforms
    assert [step.transform.benchmark for step in steps if hasattr(step.transform, "benchmark")] == [False]


def test_patches_that_are_too_thin_to_blur_are_not_blurred():
    """nnU-Net's kernel of 7 voxels is mirrored at the border, which torch refuses on 3 slices."""

    def blurs(patch):
        steps = transforms_of(patch, certain=True).intensity.transforms
        with isolated_randomness(np.random.default_rng(0)):
            for step in steps:
                step(image=torch.randn(1, *patch))
        return sum(hasattr(step.transform, "benchmark") for step in steps)

    assert [blurs((edge, 16, 16)) for edge in (1, 3, 4)] == [0, 0, 1]


@pytest.mark.parametrize(("patch", "axes"), [((4, 8, 8), [0, 1]), ((4, 8, 8), []), ((8, 8), [1])])
def test_only_the_axes_of_the_plan_are_mirrored(patch, axes):
    """A ramp along each axis: after mirroring alone, it falls along the mirrored axes."""
    plan = plan_of(patch)
    plan.mirror_axes = axes
    transforms = build_transforms(plan, label_manager({"background": 0, "a": 1}, ()), True)
    mirrors = [step for step in transforms.spatial.transforms if isinstance(step, MirrorTransform)]
    ramp = sum(torch.arange(size).float().view(-1, *[1] * (len(patch) - 1 - axis)) for axis, size in enumerate(patch))
    fell = set()
    for seed in range(20):
        with isolated_randomness(np.random.default_rng(seed)):
            image = ComposeTransforms(mirrors)(image=ramp[None].clone())["image"][0]
        fell |= {axis for axis in range(len(patch)) if image.diff(dim=axis).max() < 0}
    assert sorted(fell) == axes and len(mirrors) == bool(axes)


@pytest.mark.parametrize("patch", PATCHES)
def test_a_pair_can_share_its_intensity_draw(patch):
    """As by default in the authors' code: noise, contrast and brightness of both scans are the same."""
    transforms = transforms_of(patch, certain=True)
    scan = torch.randn(1, 2, *transforms.read_size, generator=torch.Generator().manual_seed(0))
    changed = []
    for seed in range(4):
        with isolated_randomness(np.random.default_rng(seed)):
            pair, clean = augment_pair(transforms, scan.repeat(2, *[1] * (len(patch) + 1)), shared_intensity=True)
        assert torch.equal(pair[0], pair[1]) and not torch.allclose(pair[0], clean[0])
        changed.append(pair[0] - clean[0])
    assert not torch.allclose(changed[0], changed[1])
