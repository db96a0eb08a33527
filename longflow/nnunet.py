"""Everything of nnunetv2 that longflow uses, behind one name for each use.

No other module imports nnunetv2. ``tests/test_nnunet.py`` tests what longflow relies on, value by value: run it before
setup.py allows another release.

nnunetv2 is imported inside the functions. Its trainer alone takes seconds and hundreds of megabytes, which most
commands and worker processes do not need.

Axes are z, y, x, spacings are mm along them. The global random generators that a function draws from are named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from torch import Tensor, nn

#: a label or a region, as a key of positions in a scan
LabelKey = int | tuple[int, ...]

# ---- labels


class LabelManager(Protocol):
    """What longflow reads of nnU-Net's label handling."""

    @property
    def all_labels(self) -> list[int]:
        """Values, ascending, with the background and without the ignore label."""

    @property
    def foreground_labels(self) -> list[int]:
        """Values without background and ignore label."""

    @property
    def has_regions(self) -> bool:
        """Whether a structure consists of several values."""

    @property
    def foreground_regions(self) -> list[LabelKey]:
        """Regions in the order of dataset.json; an error where there are none."""

    @property
    def has_ignore_label(self) -> bool:
        """Whether voxels can be without annotation."""

    @property
    def ignore_label(self) -> int | None:
        """Value of voxels without annotation."""

    @property
    def num_segmentation_heads(self) -> int:
        """Outputs of a network: one for each label with the background, or one for each region."""

    def apply_inference_nonlin(self, logits: np.ndarray) -> "Tensor":
        """Turn (outputs, *spatial) logits into probabilities: softmax, or with regions the logistic function."""

    def convert_logits_to_segmentation(self, predicted_logits: np.ndarray) -> np.ndarray:
        """Label (outputs, *spatial) logits.

        :returns: (*spatial): the label of the largest logit. With regions, the values of ``regions_class_order`` are
            written in this order wherever a region's logit is above 0.
        """


def build_label_manager(labels: Mapping[str, int | list[int]], regions_class_order: list[int] | None) -> LabelManager:
    """Build nnU-Net's label handling.

    :param labels: as in dataset.json, lists for regions.
    :param regions_class_order: as in dataset.json; None without regions.
    :returns: the label handling.
    :raises AssertionError, KeyError, RuntimeError, TypeError: nnU-Net cannot use the labels.
    """
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    return LabelManager(labels, regions_class_order)


def annotated_key(labels: LabelManager) -> tuple[int, ...]:
    """Return nnU-Net's key for the positions of all annotated voxels, where there is an ignore label."""
    return (-1, *labels.all_labels)


# ---- scans

#: with which nnU-Net draws the intensities of its fingerprint
FINGERPRINT_SEED = 1234


def foreground_intensities(image: np.ndarray, inside: np.ndarray, count: int) -> np.ndarray:
    """Draw intensities of the foreground, with replacement, always with the same seed, as nnU-Net's fingerprint does.

    Its own function is not called: it imports torch, and computes statistics of all voxels that nobody reads.

    :param image: (z, y, x), one channel.
    :param inside: bool (z, y, x), the foreground.
    :param count: number of draws.
    :returns: float32 (count,); (0,) where there is no foreground.
    """
    foreground = image[inside]
    if not len(foreground):
        return np.zeros(0, dtype=np.float32)
    return (
        np.random.RandomState(FINGERPRINT_SEED).choice(foreground, count, replace=True).astype(np.float32, copy=False)
    )


def sample_positions(segmentation: np.ndarray, values: Sequence[int]) -> dict[int, np.ndarray]:
    """Draw positions of labels: all, or 10,000, or 1 % where that is more; always with the same seed.

    The function is private in nnU-Net.

    :param segmentation: (z, y, x).
    :param values: labels to find; 0 is allowed.
    :returns: int32 (n, 3) for each value that occurs.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    drawn = DefaultPreprocessor._sample_foreground_locations(segmentation[None], list(values))
    # the first of four coordinates is nnU-Net's channel
    return {value: np.asarray(found)[:, 1:].astype(np.int32) for value, found in drawn.items() if len(found)}


# ---- resampling


@dataclass(frozen=True)
class Resampling:
    """How nnU-Net resamples one kind of volume; fields and their order are those of nnU-Net's plans.

    :param is_seg: whether labels are resampled: each label by itself, the largest share wins.
    :param order: of the splines; within slices alone where slices are thick.
    :param order_z: of the splines through thick slices.
    :param force_separate_z: None: slices are thick where a spacing exceeds another :func:`anisotropy_threshold` times.
    """

    is_seg: bool
    order: int
    order_z: int = 0
    force_separate_z: bool | None = None


#: nnU-Net's own choices for images, labels, and outputs of networks
IMAGE_RESAMPLING = Resampling(is_seg=False, order=3)
LABEL_RESAMPLING = Resampling(is_seg=True, order=1)
LOGITS_RESAMPLING = Resampling(is_seg=False, order=1)

#: name of the function behind :func:`resample` in nnU-Net's plans, and its module, which imports torch
RESAMPLING_FUNCTION = "resample_data_or_seg_to_shape"
RESAMPLING_MODULE = "nnunetv2.preprocessing.resampling.default_resampling"


def resample(
    volume: np.ndarray, shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float], how: Resampling
) -> np.ndarray:
    """Resample a volume to a shape.

    :param volume: (channels, z, y, x).
    :param shape: voxels of the result along z, y, x.
    :param spacing: mm, before; decides with ``new_spacing`` whether slices are thick.
    :param new_spacing: mm, after.
    :param how: :data:`IMAGE_RESAMPLING`, :data:`LABEL_RESAMPLING` or :data:`LOGITS_RESAMPLING`.
    :returns: (channels, *shape) of the same type; the same array where the shape is the same.
    """
    return getattr(import_module(RESAMPLING_MODULE), RESAMPLING_FUNCTION)(
        volume, shape, spacing, new_spacing, **asdict(how)
    )


def thick_axis(spacing: Sequence[float], new_spacing: Sequence[float]) -> int | None:
    """Return the axis across thick slices, along which :func:`resample` repeats them; None where none are thick.

    Importing nnU-Net's function would import torch.

    :param spacing: mm, before.
    :param new_spacing: mm, after.
    """
    for edges in (list(spacing), list(new_spacing)):
        if max(edges) / min(edges) > anisotropy_threshold():
            return edges.index(max(edges)) if edges.count(max(edges)) == 1 else None
    return None


def shape_at_spacing(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> np.ndarray:
    """Compute the shape of an image at another spacing, as nnU-Net does; importing its function would import torch.

    :param shape: voxels along z, y, x.
    :param spacing: mm, before.
    :param new_spacing: mm, after.
    :returns: int (3,), rounded to the nearest voxel; it can be 0.
    """
    edges = zip(shape, spacing, new_spacing, strict=True)
    return np.array([round(old / new * size) for size, old, new in edges])


def anisotropy_threshold() -> float:
    """Return the ratio of spacings, or of edges of a patch, above which nnU-Net speaks of thick slices."""
    from nnunetv2.configuration import ANISO_THRESHOLD

    return ANISO_THRESHOLD


# ---- planning


def fullres_spacing(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> np.ndarray:
    """Choose the target spacing of a dataset: the median; for thick slices with few voxels the 10th percentile.

    :param spacings: (subjects, 3), mm.
    :param shapes: (subjects, 3), voxels after cropping.
    :returns: (3,), mm.
    """
    return _planner(spacings, shapes).determine_fullres_target_spacing()


def transposition(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Choose the order of axes: the axis of the largest target spacing comes first.

    :param spacings: (subjects, 3), mm.
    :param shapes: (subjects, 3), voxels after cropping.
    :returns: the order of axes, and the order that undoes it.
    """
    forward, backward = _planner(spacings, shapes).determine_transpose()
    return [int(axis) for axis in forward], [int(axis) for axis in backward]


def _planner(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> "ExperimentPlanner":
    """Return nnU-Net's planner with the attributes that its rules for spacing and axes read.

    Its ``__init__`` is skipped: it reads the folders and files of an nnU-Net dataset.
    """
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    planner = ExperimentPlanner.__new__(ExperimentPlanner)
    planner.dataset_fingerprint = {"spacings": spacings, "shapes_after_crop": shapes}
    planner.anisotropy_threshold = anisotropy_threshold()
    planner.overwrite_target_spacing = None
    planner.suppress_transpose = False
    return planner


def network_topology(
    spacing: Sequence[float], patch_size: Sequence[int], smallest: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Choose strides and kernel sizes of a U-Net, as many stages as the patch allows.

    :param spacing: mm, 2 or 3 axes.
    :param patch_size: voxels.
    :param smallest: least edge of a feature map, voxels.
    :returns: strides and kernel sizes of each stage, finest first.
    """
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    no_limit = 999_999  # of poolings along an axis, as nnU-Net's planner has it
    _, strides, kernels, _, _ = get_pool_and_conv_props(spacing, patch_size, smallest, no_limit)
    return [[int(step) for step in stage] for stage in strides], [[int(size) for size in stage] for stage in kernels]


def padded_shape(shape: Sequence[int], divisors: Sequence[int]) -> list[int]:
    """Enlarge each edge of a shape to the next multiple of its divisor, in voxels."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import pad_shape

    return [int(size) for size in pad_shape(shape, list(divisors))]


# ---- network and loss


def build_network(architecture: Mapping[str, Any], in_channels: int, outputs: int) -> "nn.Module":
    """Build a U-Net with deep supervision and nnU-Net's initial weights (from torch's global generator).

    longflow reads its ``encoder``, and ``transpconvs``, ``stages`` and ``seg_layers`` of its ``decoder``.

    :param architecture: "network_class_name", "arch_kwargs" and "_kw_requires_import" of nnU-Net's plans.
    :param in_channels: channels of the image.
    :param outputs: channels of each output.
    :returns: (batch, in_channels, *spatial) to a list of (batch, outputs, *spatial of the scale), finest first.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        in_channels,
        outputs,
        allow_init=True,
        deep_supervision=True,
    )


def segmentation_loss(labels: LabelManager, weights: Sequence[float], batch_dice: bool, smooth: float) -> "nn.Module":
    """Build soft Dice plus cross-entropy, or plus binary cross-entropy where there are regions, with deep supervision.

    The background has no part in Dice. Voxels with the ignore label have no part in the loss. Where several processes
    train, Dice over the batch is over the batches of all.

    :param labels: labels, regions and ignore label.
    :param weights: of each scale, finest first; one is not 0.
    :param batch_dice: whether Dice is taken over the batch as one volume.
    :param smooth: added to numerator and denominator of Dice.
    :returns: lists of logits (batch, outputs, *spatial) and of targets (batch, 1, *spatial), finest first, to the
        weighted sum. Targets of regions are (batch, regions, *spatial), the ignored voxels in a last channel.
    """
    import torch
    from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss as Dice

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    dice = {"batch_dice": batch_dice, "smooth": smooth, "ddp": distributed}
    if labels.has_regions:
        dice["do_bg"] = True  # no region is the background
        loss = DC_and_BCE_loss({}, dice, use_ignore_label=labels.has_ignore_label, dice_class=Dice)
    else:
        dice["do_bg"] = False
        loss = DC_and_CE_loss(dice, {}, ignore_label=labels.ignore_label, dice_class=Dice)
    return DeepSupervisionWrapper(loss, weights)


# ---- patches for training


class PatchPlaces:
    """Where nnU-Net's data loader places the patches of a batch; draws from NumPy's global generator.

    :param batch_size: patches of a batch.
    :param read_size: voxels of the patch that is read, before augmentation; 2 or 3 axes.
    :param patch_size: voxels of the patch after augmentation, which may lie half outside the image.
    :param labels: None where patches have no labels.
    :param foreground_share: share of a batch, at its end, that is centred on a structure.
    """

    def __init__(
        self,
        batch_size: int,
        read_size: Sequence[int],
        patch_size: Sequence[int],
        labels: LabelManager | None,
        foreground_share: float,
    ):
        from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

        self._loader = nnUNetDataLoader(
            SimpleNamespace(identifiers=[]),
            batch_size,
            list(read_size),
            list(patch_size),
            labels or SimpleNamespace(all_labels=[], has_ignore_label=False),
            oversample_foreground_percent=foreground_share,
        )

    def is_centred(self, index: int) -> bool:
        """Tell whether a patch of the batch is centred on a structure."""
        return self._loader.get_do_oversample(index)

    def draw(
        self, shape: Sequence[int], centred: bool, locations: Mapping[LabelKey, np.ndarray] | None
    ) -> list[tuple[int, int]]:
        """Draw the place of a patch: uniform, or centred on a voxel of a class, classes being equally likely.

        Where there is an ignore label, a patch that is not centred on a structure is centred on an annotated voxel.

        :param shape: (3,), voxels of the image.
        :param centred: whether a structure is in the centre, if the scan has one.
        :param locations: (n, 4) positions of each class, 0, z, y, x; None where neither is needed.
        :returns: start and stop along z, y, x; a place may reach beyond the image.
        """
        start, stop = self._loader.get_bbox(np.array(shape), centred, locations)
        return list(zip(start, stop, strict=True))


def size_to_read(patch_size: Sequence[int], rotation: tuple[float, float], scaling: tuple[float, float]) -> list[int]:
    """Compute the patch to read, so that rotation and scaling leave the final patch inside it.

    :param patch_size: voxels of the final patch, 2 or 3 axes.
    :param rotation: radians about each axis, smallest and largest.
    :param scaling: factors, smallest and largest.
    :returns: voxels.
    """
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

    return [int(edge) for edge in get_patch_size(patch_size, rotation, rotation, rotation, scaling)]


def training_transforms(
    patch_size: Sequence[int],
    rotation: tuple[float, float],
    scales: list[list[float]],
    in_plane: bool,
    labels: LabelManager | None,
    mirrored: Sequence[int],
) -> "ComposeTransforms":
    """Return nnU-Net's augmentation; draws from the global generators of NumPy and torch.

    longflow takes it apart: spatial and mirroring transforms stand alone, those of intensity in a ``RandomTransform``.

    :param patch_size: voxels of the final patch.
    :param rotation: radians, smallest and largest.
    :param scales: of deep supervision, as shares of the patch, finest first.
    :param in_plane: whether rotation and scaling stay within slices.
    :param labels: None where there are no targets.
    :param mirrored: axes of a patch along which it is mirrored; nnU-Net's trainer mirrors along all.
    :returns: image (channels, *read size) float32 and segmentation (1, *read size) int16 to an image (channels, *patch)
        and targets (1 or regions, *patch of the scale), finest first; -1 becomes 0.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    patch_size = tuple(patch_size)
    return nnUNetTrainer.get_training_transforms(
        patch_size, rotation, scales, tuple(mirrored), in_plane, use_mask_for_norm=None, **_targets(labels)
    )


def validation_transforms(scales: list[list[float]], labels: LabelManager | None) -> "ComposeTransforms":
    """Return nnU-Net's transforms without augmentation: the patch as it is, targets as :func:`training_transforms`.

    :param scales: of deep supervision, as shares of the patch, finest first.
    :param labels: None where there are no targets.
    :returns: image and segmentation of the final patch to the image and its targets.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    return nnUNetTrainer.get_validation_transforms(scales, **_targets(labels))


def _targets(labels: LabelManager | None) -> dict[str, Any]:
    if labels is None:
        return {"foreground_labels": None, "regions": None, "ignore_label": None}
    return {
        "foreground_labels": labels.foreground_labels,
        "regions": labels.foreground_regions if labels.has_regions else None,
        "ignore_label": labels.ignore_label,
    }


def validation_folds(subjects: Sequence[str], folds: int, seed: int) -> list[list[str]]:
    """Split subjects for cross-validation, shuffled by a seed.

    :param subjects: names; their order matters.
    :param folds: number of folds, at most as many as subjects.
    :param seed: of the shuffling.
    :returns: the validation subjects of each fold, in the given order; each subject is in one fold.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    made = generate_crossval_split(list(subjects), seed=seed, n_splits=folds)
    return [[str(subject) for subject in fold["val"]] for fold in made]


# ---- sliding window


def gaussian_weight(tile: tuple[int, ...], dtype: "torch.dtype", peak: float = 1) -> "Tensor":
    """Return the weights of a tile's voxels: a Gaussian, sigma an eighth of each edge, nowhere 0.

    :param tile: voxels.
    :param dtype: of the weights.
    :param peak: weight of the centre, which is voxel ``edge // 2``.
    :returns: (*tile) on the CPU. It is cached: do not change it.
    """
    import torch
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    return compute_gaussian(tile, value_scaling_factor=peak, dtype=dtype, device=torch.device("cpu"))


def tile_starts(shape: Sequence[int], tile: Sequence[int], step: float) -> list[list[int]]:
    """Compute where tiles begin along each axis, evenly spaced from the first voxel to the last.

    :param shape: voxels of the image, at least a tile.
    :param tile: voxels.
    :param step: largest distance of two tiles, as a share of a tile.
    :returns: first voxels, for each axis.
    """
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    return compute_steps_for_sliding_window(tuple(shape), tuple(tile), step)
