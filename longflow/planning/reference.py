"""Make plans by a reference: the numbers of a paper, for the data at hand.

A paper gives the size of samples, the network and its optimisation. Spacing, times and intensities are those of the
data, and so are phases, labels and file ending: they are planned here as for any dataset. So one file serves every copy
of the dataset, however it was prepared, and other datasets of the same task.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longflow.data.dataset import DatasetDescription
from longflow.data.images import by_axis
from longflow.errors import ConfigurationError
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.fingerprint.spatial import SpatialFingerprint
from longflow.fingerprint.temporal import TemporalFingerprint
from longflow.nnunet import fullres_spacing
from longflow.planning.channels import plan_channels
from longflow.planning.conditions import plan_conditions
from longflow.planning.temporal import candidate_spacings, contexts_of, judge_grid, regularity
from longflow.plans import CONTEXT_WINDOW, ConfigurationPlan, GridPlan, Plans, TemporalPlan, read_plans
from longflow.task import get_task


def plans_of_reference(path: Path, fingerprint: Fingerprint, description: DatasetDescription) -> Plans:
    """Make the plans of a dataset by a reference; they have the name of its file.

    As in the reference: preset, patch, batch, network, number of context scans and slots, training, inference, order of
    axes. Where the reference's median image is its patch, images are resized to it, in the median (CRONOS section 4.1).
    Where it is larger, patches are crops at the spacing of nnU-Net's rule. Period and covariates are those that
    dataset.json names.

    :param path: of the reference.
    :param fingerprint: of the dataset.
    :param description: dataset.json.
    :returns: the plans.
    :raises DataError, ConfigurationError: the file cannot be used, or is for another task.
    """
    reference = read_plans(path)
    if reference.task != description.task:
        raise ConfigurationError(
            f"{path} is for the task '{reference.task}', but {fingerprint.dataset_name} has the task "
            f"'{description.task}' (dataset.json)."
        )
    uses_labels = get_task(description.task).uses_labels
    temporal = times_of_reference(reference, fingerprint.temporal, path.name)
    conditions = plan_conditions(temporal, fingerprint, description)
    if description.period is None:  # times in cycles imply one, but no network of a paper sees it
        conditions["temporal"] = temporal
    return reference.model_copy(
        update={
            "dataset_name": fingerprint.dataset_name,
            "plans_name": path.stem,
            "channel_names": description.channels,
            "labels": description.labels if uses_labels else {},
            "regions_class_order": description.regions_class_order if uses_labels else [],
            "phases": fingerprint.phases.names if fingerprint.phases else [],
            "file_ending": description.file_ending,
            **conditions,
            "channels": plan_channels(fingerprint.spatial, description, fingerprint.intensity_maps),
            "configurations": _configurations(reference, fingerprint.spatial, path.name),
            "training_data": fingerprint.training_data(),
        }
    )


def _configurations(reference: Plans, spatial: SpatialFingerprint, source: str) -> dict[str, ConfigurationPlan]:
    """Plan the reference's configurations at the spacing of the data, in the order of the reference."""
    configurations: dict[str, ConfigurationPlan] = {}
    spacings: dict[str, list[float]] = {}
    order = reference.transpose_forward
    # 2d reads data that was prepared for 3d
    for name, plan in sorted(reference.configurations.items(), key=lambda item: -len(item[1].patch_size)):
        spacing = spacings.setdefault(plan.data_identifier, target_spacing(plan, order, spatial))
        size = np.median(_extents(spatial, order), axis=0) / spacing
        configurations[name] = plan.model_copy(
            update={
                "spacing": spacing,
                "median_image_size": [float(max(1, round(value))) for value in size],
                "reasons": [
                    f"Patch {by_axis(plan.patch_size)}, batch size {plan.batch_size} and network: as in {source}.",
                    f"Spacing {by_axis(spacing, digits=3)} mm: {_why(plan)}.",
                ],
            }
        )
    return {name: configurations[name] for name in reference.configurations}


def target_spacing(plan: ConfigurationPlan, order: Sequence[int], spatial: SpatialFingerprint) -> list[float]:
    """Choose the spacing of a reference's configuration on a dataset.

    :param plan: of the reference.
    :param order: of the axes.
    :param spatial: fingerprint of the dataset.
    :returns: mm, after transposition.
    """
    own = np.median(np.asarray(spatial.spacings)[:, order], axis=0)
    if plan.own_grid:
        spacing = own
    elif _resizes(plan):
        extent = np.median(_extents(spatial, order), axis=0)
        spacing = [
            size / voxels if voxels > 1 else thickness
            for size, voxels, thickness in zip(extent, plan.tile, own, strict=True)
        ]
    else:
        spacing = fullres_spacing(spatial.spacings, spatial.shapes_after_crop)[list(order)]
    return [float(value) for value in spacing]


def _resizes(plan: ConfigurationPlan) -> bool:
    """Check whether a sample of the reference is a whole image."""
    return plan.median_image_size[-len(plan.patch_size) :] == plan.patch_size


def _extents(spatial: SpatialFingerprint, order: Sequence[int]) -> np.ndarray:
    """Return the mm of each subject's images, after cropping and transposition."""
    return (np.asarray(spatial.shapes_after_crop) * np.asarray(spatial.spacings))[:, order]


def _why(plan: ConfigurationPlan) -> str:
    if plan.own_grid:
        return "the median; scans keep the grid of their files"
    return "the median image becomes the patch" if _resizes(plan) else "by nnU-Net's rule; patches are crops"


def times_of_reference(reference: Plans, fingerprint: TemporalFingerprint, name: str) -> TemporalPlan:
    """Plan a dataset's own times, with as many context scans and slots as the reference has.

    :param name: of the reference, for the reasons.
    :param reference: plans.
    :param fingerprint: of the dataset's times.
    :returns: the temporal plan.
    """
    scans, slots = reference.temporal.sequence_length, reference.temporal.grid.length
    task = get_task(reference.task)
    planned = task.plan_time(fingerprint, scans)
    if not task.plans_grid:
        return planned
    times = [np.asarray(one, dtype=np.float64) for one in fingerprint.times if len(one) > 1]
    grid = grid_of_length(times, planned.time_scale, scans, slots)
    regular, regular_reason = regularity(contexts_of(times, scans), grid)
    return planned.model_copy(
        update={
            "sequence_length": scans,
            "grid": grid,
            "runners_up": [],
            "regular": regular,
            "reasons": [
                planned.reasons[0],
                f"Sequence length {scans}: as in {name}.",
                f"Grid of {slots} slots: as in {name}; Δ = {grid.spacing:g} {planned.time_unit} costs least with so "
                f"many: {grid.overwritten:.1%} of context scans overwritten, {grid.clipped:.1%} before the first slot, "
                f"times rounded by {grid.rounding_error:.1%} of a median interval, {grid.filled:.1%} of slots filled.",
                regular_reason,
            ],
        }
    )


def grid_of_length(times: list[np.ndarray], scale: float, scans: int, length: int) -> GridPlan:
    """Find the grid of a given number of slots that costs least.

    Δ = ``scale`` where every context is a single scan.

    :param times: of each subject, ascending, at least two.
    :param scale: the median interval.
    :param scans: most scans of a context.
    :param length: number of slots.
    :returns: the grid.
    """
    longest = CONTEXT_WINDOW * length
    contexts = contexts_of(times, scans).of_several
    if not len(contexts.times):
        return GridPlan(spacing=scale, length=length, overwritten=0, rounding_error=0, filled=0, clipped=0, score=0)
    spacings = candidate_spacings(times, longest)
    grids = [judge_grid(contexts, spacing, length, scale, longest) for spacing in spacings]
    return min(grids, key=lambda grid: (round(grid.score, 9), grid.spacing))
