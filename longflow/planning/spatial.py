"""Plan space: target spacing, axes, resolutions, patches, strides. nnU-Net's rules, by its own code.

Where nnU-Net estimates the memory of a patch, the estimate is that of the network that will be trained here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from longflow.data.images import by_axis
from longflow.errors import ConfigurationError
from longflow.fingerprint.spatial import SpatialFingerprint
from longflow.nnunet import fullres_spacing, network_topology, padded_shape, shape_at_spacing, transposition
from longflow.planning.memory import GB
from longflow.planning.presets import Preset
from longflow.plans import ConfigurationPlan, NetworkPlan

#: nnU-Net's: edge of the smallest feature map, share of an image below which a patch needs a lower resolution too
SMALLEST_FEATURE_MAP, LOWRES_THRESHOLD, SPACING_STEP = 4, 0.25, 1.03
#: nnU-Net's first patch, before it is shrunk: as many voxels as a cube or a square of this edge
FIRST_EDGE = {3: 256, 2: 2048}

#: bytes of a training step with a patch, a network and a batch size
Memory = Callable[[list[int], NetworkPlan, int], float]


@dataclass(frozen=True)
class Resolution:
    """The target grid of a dataset.

    :param spacing: mm, after transposition.
    :param median_shape: voxels at that spacing, after transposition.
    :param scans: of the dataset.
    """

    spacing: np.ndarray
    median_shape: np.ndarray
    scans: int


@dataclass(frozen=True)
class Limits:
    """The limits of a training step.

    :param preset: sizes of networks and batches.
    :param memory: bytes of a training step with a patch, a network and a batch size.
    :param budget: bytes that a training step may take.
    """

    preset: Preset
    memory: Memory
    budget: float

    def fits(self, patch_size: list[int], network: NetworkPlan, batch_size: int) -> bool:
        """Check whether a training step fits the budget."""
        return self.memory(patch_size, network, batch_size) <= self.budget


@dataclass(frozen=True)
class SpatialPlan:
    """The spatial choices of a dataset."""

    transpose_forward: list[int]
    transpose_backward: list[int]
    configurations: dict[str, ConfigurationPlan]


def plan_space(
    fingerprint: SpatialFingerprint,
    preset: Preset,
    memory: Memory,
    budget: float,
    scans: int,
    own_slices: bool = False,
) -> SpatialPlan:
    """Choose target spacing, axes and all configurations of a dataset.

    :param memory: bytes of a training step.
    :param budget: bytes that a training step may take.
    :param scans: of all subjects.
    :param own_slices: 2d reads the slices of the files as they are, neither resampled nor cut along another axis.
    :param fingerprint: of the images.
    :param preset: sizes of networks and batches.
    :returns: the choices.
    :raises ConfigurationError: not even the smallest patch fits the budget.
    """
    limits = Limits(preset, memory, budget)
    spacings, cropped = fingerprint.spacings, fingerprint.shapes_after_crop
    spacing = fullres_spacing(spacings, cropped)
    forward, backward = ([0, 1, 2], [0, 1, 2]) if own_slices else transposition(spacings, cropped)
    shapes = [shape_at_spacing(shape, old, spacing) for old, shape in zip(spacings, cropped, strict=True)]
    full = Resolution(spacing[forward], np.maximum(np.median(shapes, axis=0), 1)[forward], scans)
    spacing_reason = _spacing_reason(fingerprint, spacing, forward)

    if own_slices:
        slices = plan_slices(fingerprint, limits, scans)
    else:
        slices = plan_configuration(full, limits, dimensions=2)
        slices.reasons.insert(0, spacing_reason)
    configurations = {"2d": slices}
    if full.median_shape[0] > 1:
        fullres = plan_configuration(full, limits, dimensions=3)
        lowres = plan_lowres(full, fullres, limits)
        fullres.reasons = [spacing_reason, *fullres.reasons, _lowres_reason(fullres, lowres)]
        configurations["3d_fullres"] = fullres
        if lowres:
            configurations["3d_lowres"] = lowres
    return SpatialPlan(forward, backward, configurations)


def plan_slices(fingerprint: SpatialFingerprint, limits: Limits, scans: int) -> ConfigurationPlan:
    """Plan 2d on the grid of each file: axial slices at their native size (MFM B.1, B.2), and data of their own.

    :param fingerprint: of the images.
    :param limits: of a training step.
    :param scans: of all subjects.
    :returns: the configuration.
    """
    spacings, shapes = np.asarray(fingerprint.spacings), np.asarray(fingerprint.shapes_after_crop)
    median = Resolution(np.median(spacings, axis=0), np.median(shapes, axis=0), scans)
    plan = plan_configuration(median, limits, dimensions=2, identifier="2d")
    sizes = [by_axis(edge(shapes[:, 1:], axis=0)) for edge in (np.min, np.max)]
    plan.own_grid = True
    plan.reasons.insert(
        0,
        f"Slices keep the grid of their files, along the files' third axis (axial in CT): {_mm(median.spacing[1:])} mm "
        f"in the median, {sizes[0] if sizes[0] == sizes[1] else ' to '.join(sizes)} voxels; nothing is resampled "
        "(MFM B.1, B.2).",
    )
    return plan


def plan_configuration(
    resolution: Resolution, limits: Limits, dimensions: int, identifier: str = "3d_fullres"
) -> ConfigurationPlan:
    """Choose the largest patch that fits the budget with the smallest batch, then the largest batch.

    :param resolution: of the data.
    :param limits: of a training step.
    :param dimensions: 2 or 3.
    :param identifier: which preprocessed data the configuration reads. 2d reads slices of 3d_fullres.
    :returns: the configuration.
    :raises ConfigurationError: not even the smallest patch fits.
    """
    median_shape = resolution.median_shape[-dimensions:]
    patch_size, network = _largest_patch(resolution.spacing[-dimensions:], median_shape, limits)
    batch_size, batch_reason = _largest_batch(resolution, patch_size, network, limits)
    return ConfigurationPlan(
        data_identifier=identifier,
        spacing=[float(value) for value in resolution.spacing],
        median_image_size=[float(value) for value in resolution.median_shape],
        patch_size=patch_size,
        batch_size=batch_size,
        network=network,
        networks=own_topologies(network, limits.preset),
        reasons=[_patch_reason(patch_size, median_shape, limits.budget), batch_reason],
    )


def _largest_patch(
    spacing: Sequence[float], median_shape: Sequence[float], limits: Limits
) -> tuple[list[int], NetworkPlan]:
    """Find the largest patch that fits with the smallest batch, and its network.

    As in nnU-Net, the first patch has the images' proportions and covers at most the median image. While it takes too
    much memory, the axis that is largest in relation to the median image is made smaller by one step of divisibility.
    """
    smallest_batch = limits.preset.batch_size[0]
    candidates = shrinking_patches(spacing, median_shape, limits.preset)
    fitting = _first(len(candidates), lambda index: limits.fits(*candidates[index], smallest_batch))
    if fitting is None:
        smallest, network = candidates[-1]
        needed = limits.memory(smallest, network, smallest_batch) / GB
        raise ConfigurationError(
            f"A training step of preset {limits.preset.name} takes {needed:.2f} GB even with a patch of "
            f"{by_axis(smallest)} voxels, but --gpu_memory is {limits.budget / GB:g} GB. Give it more memory, or "
            "choose a smaller --preset."
        )
    return candidates[fitting]


def _largest_batch(
    resolution: Resolution, patch_size: list[int], network: NetworkPlan, limits: Limits
) -> tuple[int, str]:
    """Find the largest batch size that fits, and say why."""
    preset = limits.preset
    smallest, largest = preset.batch_size
    if len(patch_size) == 2:
        largest *= preset.more_slices
    most = f"the preset allows {smallest} to {largest}"
    if preset.dataset_share:
        share = preset.dataset_share * resolution.scans * np.prod(resolution.median_shape) / np.prod(patch_size)
        if round(share) < largest:
            largest = max(round(share), smallest)
            most = f"at most {preset.dataset_share:.0%} of the dataset's voxels, or {smallest}, as in nnU-Net"
    batches = range(largest, smallest, -1)
    fitting = _first(len(batches), lambda index: limits.fits(patch_size, network, batches[index]))
    batch_size = smallest if fitting is None else batches[fitting]
    reason = most if batch_size == largest else f"one more would not fit ({most})"
    return batch_size, f"Batch size {batch_size}: {reason}."


def plan_lowres(full: Resolution, fullres: ConfigurationPlan, limits: Limits) -> ConfigurationPlan | None:
    """Plan a lower resolution by nnU-Net's rule, where one is needed.

    Where a patch of 3d_fullres sees less than a quarter of the median image, the spacing grows until a patch sees a
    quarter. The result is dropped where it has not at least twice fewer voxels than 3d_fullres.

    :param full: resolution of 3d_fullres.
    :param fullres: configuration 3d_fullres.
    :param limits: of a training step.
    :returns: the configuration, or None.
    """
    share = np.prod(fullres.patch_size) / np.prod(full.median_shape)
    spacing, lowres, voxels = full.spacing.copy(), None, np.prod(full.median_shape)
    while share < LOWRES_THRESHOLD:
        finer = spacing.max() / spacing > 2
        spacing[finer if finer.any() else slice(None)] *= SPACING_STEP
        shape = full.spacing / spacing * full.median_shape
        voxels = np.prod(shape)
        resolution = Resolution(spacing.copy(), np.maximum(np.round(shape), 1), full.scans)
        # a patch never grows while the image shrinks: the share it can reach tells whether planning it is worthwhile
        if np.prod(fullres.patch_size) / voxels < LOWRES_THRESHOLD / 2:
            continue
        lowres = plan_configuration(resolution, limits, dimensions=3, identifier="3d_lowres")
        share = np.prod(lowres.patch_size) / voxels
    return lowres if np.prod(full.median_shape) / voxels >= 2 else None


def first_patch(spacing: Sequence[float], median_shape: Sequence[float]) -> list[int]:
    """Make a patch with the proportions of a cube in mm, no larger than the median image.

    :param spacing: mm.
    :param median_shape: voxels.
    :returns: voxels along each axis.
    """
    dimensions = len(spacing)
    proportions = 1 / np.asarray(spacing)
    edges = proportions * (FIRST_EDGE[dimensions] ** dimensions / np.prod(proportions)) ** (1 / dimensions)
    return [max(1, round(min(edge, size))) for edge, size in zip(edges, median_shape, strict=True)]


def fit_network(spacing: Sequence[float], patch_size: Sequence[int], preset: Preset) -> tuple[list[int], NetworkPlan]:
    """Pad the patch to the strides of the topology that nnU-Net gives it, cut to the preset's number of stages.

    :param spacing: mm.
    :param patch_size: voxels along each axis.
    :param preset: sizes of networks.
    :returns: patch and network.
    """
    strides, kernels = network_topology(spacing, patch_size, SMALLEST_FEATURE_MAP)
    strides, kernels = strides[: preset.max_stages], kernels[: preset.max_stages]
    network = NetworkPlan(
        features_per_stage=preset.features(len(strides), len(spacing)),
        strides=strides,
        kernel_sizes=kernels,
        attention=preset.attention,
        encoder=preset.encoder,
        blocks_per_stage=list(preset.blocks[: len(strides)]),
    )
    return padded_shape(patch_size, np.prod(strides, axis=0)), network


def own_topologies(network: NetworkPlan, preset: Preset) -> dict[str, NetworkPlan]:
    """Return the topologies of the networks that have a size of their own in a preset.

    Strides and kernels are those of ``network``; further stages halve all axes. Where ``network`` has fewer stages than
    the preset's most, since images are small, the others have as many fewer.

    :param network: of the plan.
    :param preset: sizes of networks.
    :returns: by name.
    """
    found, axes = {}, network.dimensions
    for name, (features, blocks) in preset.networks.items():
        stages = max(1, len(features) - (preset.max_stages - len(network.strides)))
        further = max(0, stages - len(network.strides))
        found[name] = NetworkPlan(
            features_per_stage=list(features[:stages]),
            strides=[*network.strides[:stages], *[[2] * axes] * further],
            kernel_sizes=[*network.kernel_sizes[:stages], *[[3] * axes] * further],
            attention=network.attention,
            blocks_per_stage=list(blocks[:stages]),
        )
    return found


def shrinking_patches(
    spacing: Sequence[float], median_shape: Sequence[float], preset: Preset
) -> list[tuple[list[int], NetworkPlan]]:
    """List nnU-Net's patches from the largest to the smallest, each with its network.

    :param spacing: mm.
    :param median_shape: voxels.
    :param preset: sizes of networks.
    :returns: patches and networks.
    :raises ConfigurationError: the images are too small for a network of the fewest stages.
    """
    patches = [fit_network(spacing, first_patch(spacing, median_shape), preset)]
    while smaller := next_patch(spacing, patches[-1][0], median_shape, preset):
        patches.append(fit_network(spacing, smaller, preset))
    patches = [(patch, network) for patch, network in patches if len(network.strides) >= preset.fewest_stages]
    if not patches:
        raise ConfigurationError(
            f"Images of {by_axis(median_shape, digits=4)} voxels are too small for a U-Net, which needs at least "
            f"{2 * SMALLEST_FEATURE_MAP} voxels along one axis."
        )
    return patches


def next_patch(
    spacing: Sequence[float], patch_size: Sequence[int], median_shape: Sequence[float], preset: Preset
) -> list[int] | None:
    """Make the relatively largest axis of a patch one step smaller.

    No axis falls below the smallest feature map, so that thin volumes keep slices around each slice.

    :param spacing: mm.
    :param patch_size: voxels along each axis.
    :param median_shape: voxels.
    :param preset: sizes of networks.
    :returns: the smaller patch; None where no axis can be made smaller.
    """
    for axis in np.argsort(np.asarray(patch_size) / median_shape)[::-1]:
        smaller = list(patch_size)
        # the step is that of the smaller patch; otherwise valid sizes are skipped: 256 - 64, where 256 - 32 is valid
        smaller[axis] -= _divisors(spacing, patch_size, preset)[axis]
        if smaller[axis] >= 1:
            smaller[axis] = int(patch_size[axis] - _divisors(spacing, smaller, preset)[axis])
        if smaller[axis] >= SMALLEST_FEATURE_MAP:
            return smaller
    return None


def _first(count: int, holds: Callable[[int], bool]) -> int | None:
    """Find the first of 0 ... count - 1 for which ``holds``; it holds for all later ones. None if for none.

    It is mostly the very first, where the images are small, and ``holds`` is expensive.
    """
    if count and holds(0):
        return 0
    below, above = 0, count
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if holds(middle) else (middle, above)
    return above if above < count else None


def _divisors(spacing: Sequence[float], patch_size: Sequence[int], preset: Preset) -> np.ndarray:
    return np.prod(fit_network(spacing, patch_size, preset)[1].strides, axis=0)


def _spacing_reason(fingerprint: SpatialFingerprint, spacing: np.ndarray, forward: list[int]) -> str:
    spacings = np.asarray(fingerprint.spacings)
    median = np.median(spacings, axis=0)
    text = (
        f"Target spacing {_mm(spacing[forward])} mm: the median over {len(spacings)} subjects is "
        f"{_mm(median[forward])} mm ({_mm(spacings.min(axis=0)[forward])} to {_mm(spacings.max(axis=0)[forward])})"
    )
    axis = int(np.argmax(np.abs(spacing - median)))
    if not np.isclose(spacing[axis], median[axis]):
        text += f"; the thick axis takes the 10th percentile, {spacing[axis]:.3g} mm, as nnU-Net does"
    return text + (f"; axes are reordered to {forward}." if forward != [0, 1, 2] else ".")


def _patch_reason(patch_size: Sequence[int], median_shape: Sequence[float], budget: float) -> str:
    share = np.prod(np.minimum(patch_size, median_shape)) / np.prod(median_shape)
    sizes = f"Patch {by_axis(patch_size)} of the median image's {by_axis(median_shape)} voxels ({_percent(share)})"
    if all(size >= whole for size, whole in zip(patch_size, median_shape, strict=True)):
        return f"{sizes}: the whole image fits {budget / GB:g} GB."
    return f"{sizes}: the largest that fits {budget / GB:g} GB."


def _lowres_reason(fullres: ConfigurationPlan, lowres: ConfigurationPlan | None) -> str:
    share = np.prod(fullres.patch_size) / np.prod(fullres.median_image_size)
    text = f"A patch covers {_percent(min(share, 1))} of the median image"
    if share >= LOWRES_THRESHOLD:
        return f"{text}: no 3d_lowres is needed (nnU-Net's threshold is 25 %)."
    if lowres is None:
        return f"{text}, but 3d_lowres would have more than half of its voxels and is left out."
    return f"{text}, less than nnU-Net's 25 %: 3d_lowres at {_mm(lowres.spacing)} mm sees more."


def _mm(values: Sequence[float]) -> str:
    return by_axis(values, digits=3)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
