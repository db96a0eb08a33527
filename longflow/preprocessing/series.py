"""Prepare a series of scans: one crop, one grid and the normal form for all scans of a subject.

:mod:`longflow.preprocessing.restore` has the way back, :mod:`longflow.preprocessing.store` the files. This module
offers the public functions of both.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from longflow.data.body import nonzero_mask
from longflow.data.box import box_slices, nonzero_box
from longflow.data.coarse import block_means, coarse_block
from longflow.data.covariates import Covariates, covariates_of
from longflow.data.dataset import Scan, Series
from longflow.data.images import check_same_grid, read_label, read_scan
from longflow.data.periods import period_of
from longflow.errors import DataError
from longflow.files import file_digest
from longflow.integrity.problems import REGISTER
from longflow.plans import ChannelPlan, Plans, phase_numbers
from longflow.preprocessing.class_locations import find_locations, values_to_locate
from longflow.preprocessing.grid import check_grid, resample_labels, resampled_shape, transposed
from longflow.preprocessing.normal_form import clipped, normal_form_of_series, to_normal
from longflow.preprocessing.prepared import PreparedSeries, RawSeries, SeriesProperties
from longflow.preprocessing.resampling import cubic_slabs
from longflow.preprocessing.restore import export_forecast, to_input_space
from longflow.preprocessing.store import load_prepared, prepared_subjects, read_properties, save_prepared
from longflow.task import get_task

__all__ = [
    "PreparedSeries",
    "RawSeries",
    "SeriesProperties",
    "export_forecast",
    "load_prepared",
    "prepare_series",
    "prepare_volumes",
    "prepared_subjects",
    "read_properties",
    "save_prepared",
    "series_digest",
    "to_input_space",
]

#: raised whenever the same input would be prepared differently, so that older caches are redone
FORMAT = 2

#: nnU-Net's label of background beyond the nonzero region
OUTSIDE = -1


def prepare_series(series: Series, plans: Plans, configuration_name: str) -> PreparedSeries:
    """Read and prepare those scans of a subject whose files exist.

    :param series: the subject's scans.
    :param plans: grid and normal form.
    :param configuration_name: name of one of its configurations.
    :returns: the prepared series, in memory.
    :raises DataError: no scan has its files, a scan lacks a channel, the scans do not share one grid, a label is not
        on its scan's grid, or voxels are not finite numbers; the file is named.
    """
    scans = existing_scans(series)
    if not scans:
        raise DataError(f"Subject {series.subject} has no scan whose images exist.")
    volumes = [read_scan(scan.images) for scan in scans]
    raw = RawSeries(
        subject=series.subject,
        cases=[scan.case for scan in scans],
        times=[scan.time for scan in scans],
        volumes=volumes,
        labels=[
            read_label(scan.label, scan.images[0], volume.geometry) for scan, volume in zip(scans, volumes, strict=True)
        ]
        if prepares_labels(plans)
        else [],
        sources=[str(scan.images[0]) for scan in scans],
        phases=[scan.phase for scan in scans] if get_task(plans.task).uses_phases else (),
        period=period_of(scans, plans.temporal.period),
        covariates=_covariates(scans, plans),
    )
    prepared = prepare_volumes(raw, plans, configuration_name)
    prepared.properties.digest = series_digest(series, plans, configuration_name)
    return prepared


def prepares_labels(plans: Plans) -> bool:
    """Tell whether labels are prepared: for a task that learns from them, or for forecasts with a ``label_weight``.

    :param plans: of the dataset.
    """
    return get_task(plans.task).uses_labels or plans.training.label_weight > 0


def existing_scans(series: Series) -> list[Scan]:
    """List the scans of a series that have images.

    :param series: a subject's scans.
    :returns: those with the files of all channels.
    :raises DataError: a scan has only some of its channels.
    """
    scans = []
    for scan in series.scans:
        missing = [path for path in scan.images if not path.is_file()]
        if missing and len(missing) < len(scan.images):
            raise DataError(
                f"{missing[0]} does not exist: case {scan.case} has {len(scan.images) - len(missing)} of "
                f"{len(scan.images)} channels. Add the file, or remove all channels of the case."
            )
        if not missing:
            scans.append(scan)
    return scans


def prepare_volumes(raw: RawSeries, plans: Plans, configuration_name: str) -> PreparedSeries:
    """Prepare scans that are in memory.

    :param raw: the scans of one subject.
    :param plans: grid and normal form.
    :param configuration_name: name of one of its configurations.
    :returns: the prepared series, in memory.
    :raises DataError: the scans do not share one grid, a channel is missing, or voxels are not finite numbers.
    """
    plan, task, order = plans.configuration(configuration_name), get_task(plans.task), plans.transpose_forward
    _check_volumes(raw, plans.channel_names)
    geometry, arrays = raw.volumes[0].geometry, [volume.array for volume in raw.volumes]
    crop = nonzero_box(arrays)
    # where the body ends depends on the air around it, and so on a crop: that of a pair is not that of a scan
    # alone; and the blocks of a map would depend on the scans after it
    whole = task.region == "body" or any(channel.normal_form == "matched" for channel in plans.channels)
    seen = arrays if whole else [array[(..., *box_slices(crop))] for array in arrays]
    channels = [plans.channels_of(phase) for phase in raw.phases or [""] * len(arrays)]
    if plans.phase_channels:  # different modalities: each scan by itself
        forms = [normal_form_of_series([one], own, task.region) for one, own in zip(seen, channels, strict=True)]
        offset, scale = [one[0] for one, _ in forms], [one[0] for _, one in forms]
    else:
        offset, scale = normal_form_of_series(seen, plans.channels, task.region)
    shape_after_crop = [stop - start for start, stop in crop]
    spacing = [geometry.array_spacing[axis] for axis in order]
    target = spacing if plan.own_grid else plan.spacing
    properties = SeriesProperties(
        subject=raw.subject,
        cases=list(raw.cases),
        times=[float(time) for time in raw.times],
        labelled=raw.labelled,
        offset=offset,
        scale=scale,
        data_type=[np.result_type(*(volume.data_type for volume in raw.volumes)).name] * len(plans.channels),
        geometry=geometry,
        crop=crop,
        shape_before_crop=list(arrays[0].shape[1:]),
        shape_after_crop=shape_after_crop,
        transpose=list(order),
        shape=resampled_shape([shape_after_crop[axis] for axis in order], spacing, target),
        spacing=list(target),
        phases=list(raw.phases),
        period=raw.period,
        covariates=list(raw.covariates),
    )
    check_grid(properties.shape, len(arrays) * len(plans.channels), raw.names[0], geometry)
    images = _normal_images(arrays, channels, properties)
    segmentations = _segmentations(raw, properties) if any(raw.labelled) else None
    locations = None
    if segmentations is not None and task.uses_labels:
        labelled = {scan: segmentations[scan] for scan in properties.scans_with_label}
        locations = find_locations(labelled, values_to_locate(plans.labels))
    block = coarse_block(target)
    return PreparedSeries(properties, images, segmentations, block_means(images, block), block, locations)


def _normal_images(
    arrays: Sequence[np.ndarray], channels: Sequence[Sequence[ChannelPlan]], properties: SeriesProperties
) -> np.ndarray:
    """Crop, transpose, clip, normalise and resample, a few slices at a time: (scans, channels, z, y, x), float32.

    :param channels: of each scan.
    """
    inside, shape = (..., *box_slices(properties.crop)), properties.shape
    spacings = properties.transposed_spacing, properties.spacing
    images = np.empty((len(arrays), len(channels[0]), *shape), dtype=np.float32)
    numbers = properties.offset, properties.scale
    for image, array, own, offset, scale in zip(images, arrays, channels, *numbers, strict=True):

        def normal(
            raw: np.ndarray,
            own: Sequence[ChannelPlan] = own,
            offset: Sequence[float] = offset,
            scale: Sequence[float] = scale,
        ) -> np.ndarray:
            return to_normal(clipped(raw, own), offset, scale)

        for part, values in cubic_slabs(transposed(array[inside], properties.transpose), shape, *spacings, normal):
            image[:, part] = values
    return images


def _segmentations(raw: RawSeries, properties: SeriesProperties) -> np.ndarray:
    """Crop, transpose and resample the labels: (scans, z, y, x), int16, -1 where a scan has none."""
    inside, shape = (..., *box_slices(properties.crop)), properties.shape
    segmentations = np.full((len(raw.cases), *shape), -1, dtype=np.int16)
    for index in properties.scans_with_label:
        marked = _outside_marked(raw.labels[index], raw.volumes[index].array)
        label = transposed(marked[None][inside], properties.transpose)[0]
        resampled = resample_labels(label, shape, properties.transposed_spacing, properties.spacing)
        segmentations[index] = np.where(resampled == OUTSIDE, 0, resampled)
    return segmentations


def _outside_marked(label: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """Give the background beyond the nonzero region a label of its own, as nnU-Net does while it resamples.

    Resampling gives a voxel to the label with the largest share, so one background and two differ.
    """
    return np.where((label == 0) & ~nonzero_mask(scan), np.int16(OUTSIDE), label)


def series_digest(series: Series, plans: Plans, configuration_name: str) -> str:
    """Hash everything that a prepared series depends on: its files, the plan's grid and the normal form.

    Labels count only where they are prepared. A file counts with its content, so that a copied dataset need not
    be prepared again, and a replaced scan is. Patch sizes and networks do not change the data.

    :param series: the subject's scans.
    :param plans: grid and normal form.
    :param configuration_name: name of one of its configurations.
    :returns: 16 hexadecimal digits.
    """
    plan, task, scans = plans.configuration(configuration_name), get_task(plans.task), existing_scans(series)
    files = [(*scan.images, scan.label) if prepares_labels(plans) else scan.images for scan in scans]
    content = {
        "format": FORMAT,
        "scans": [
            [scan.case, scan.time, *([path.name, file_digest(path)] for path in paths if path)]
            for scan, paths in zip(scans, files, strict=True)
        ],
        "spacing": plan.spacing,
        "transpose": plans.transpose_forward,
        "channels": [channel.numbers() for channel in plans.channels],
        "task": plans.task,
        "labels": values_to_locate(plans.labels),
    }
    if task.uses_phases:
        content["phases"] = [scan.phase for scan in scans]
    if plans.phase_channels:
        content["phase_channels"] = phase_numbers(plans)
    if plans.temporal.period is not None:
        content["period"] = period_of(scans, plans.temporal.period)
    if plans.covariates:
        content["covariates"] = _covariates(scans, plans)
    if plan.own_grid:
        content["spacing"] = "own"
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _covariates(scans: Sequence[Scan], plans: Plans) -> list[Covariates]:
    """Return the covariates of each scan; empty where the plans have none."""
    names = [covariate.name for covariate in plans.covariates]
    return [covariates_of(scan, names) for scan in scans] if names else []


def _check_volumes(raw: RawSeries, channel_names: list[str]) -> None:
    """Refuse scans with different grids, missing channels or voxels that are not finite."""
    first = f"{raw.names[0]} of the same subject, {raw.subject},"
    for volume, source in zip(raw.volumes, raw.names, strict=True):
        if len(volume.array) != len(channel_names):
            raise DataError(
                f"{source} has {len(volume.array)} channels, expected {len(channel_names)}: {', '.join(channel_names)}."
            )
        check_same_grid(volume.geometry, source, raw.volumes[0].geometry, first, REGISTER)
        if not np.isfinite(volume.array).all():
            count = int(np.size(volume.array) - np.isfinite(volume.array).sum())
            raise DataError(f"{source} has {count} voxels that are NaN or infinite, expected finite numbers only.")
