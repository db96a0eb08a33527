"""A series of scans to its prepared form: one crop, one grid and the normal form for all scans of a subject.

The way back is in :mod:`longflow.preprocessing.restore`, the files in :mod:`longflow.preprocessing.store`; both are
offered here too, as the front door of the room.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longflow.data.box import box_slices, nonzero_box
from longflow.data.coarse import block_means, coarse_block
from longflow.data.dataset import Scan, Series
from longflow.data.images import Volume, check_same_grid, read_label, read_scan
from longflow.errors import DataError
from longflow.integrity.problems import REGISTER
from longflow.nnunet import nonzero_mask
from longflow.plans import Plans
from longflow.preprocessing.class_locations import find_locations, wanted_values
from longflow.preprocessing.grid import (
    resample_image,
    resample_labels,
    resampled_shape,
    transposed,
)
from longflow.preprocessing.normal_form import clipped, normal_form_of_series, to_normal
from longflow.preprocessing.prepared import PreparedSeries, SeriesProperties
from longflow.preprocessing.restore import export_forecast, to_input_space
from longflow.preprocessing.store import load_prepared, prepared_subjects, save_prepared
from longflow.task import get_task

__all__ = [
    "PreparedSeries",
    "SeriesProperties",
    "export_forecast",
    "load_prepared",
    "prepare_series",
    "prepare_volumes",
    "prepared_subjects",
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

    :raises DataError: no scan has its files, a scan lacks a channel, the scans do not share one grid, a label is not
        on its scan's grid, or voxels are not finite numbers; the file is named.
    """
    scans = existing_scans(series)
    if not scans:
        raise DataError(f"Subject {series.subject} has no scan whose images exist.")
    volumes = [read_scan(scan.images) for scan in scans]
    prepared = prepare_volumes(
        series.subject,
        [scan.case for scan in scans],
        [scan.time for scan in scans],
        volumes,
        plans,
        configuration_name,
        labels=[
            read_label(scan.label, scan.images[0], volume.geometry) for scan, volume in zip(scans, volumes, strict=True)
        ],
        sources=[str(scan.images[0]) for scan in scans],
        phases=[scan.phase for scan in scans] if get_task(plans.task).uses_phases else (),
    )
    prepared.properties.digest = series_digest(series, plans, configuration_name)
    return prepared


def existing_scans(series: Series) -> list[Scan]:
    """The scans of a series that have images; one that has some of its channels only is an error."""
    scans = []
    for scan in series.scans:
        missing = [path for path in scan.images if not path.is_file()]
        if missing and len(missing) < len(scan.images):
            raise DataError(
                f"{missing[0]} does not exist: case {scan.case} has {len(scan.images) - len(missing)} of "
                f"{len(scan.images)} channels. Add the file, or take all channels of the case away."
            )
        if not missing:
            scans.append(scan)
    return scans


def prepare_volumes(
    subject: str,
    cases: Sequence[str],
    times: Sequence[float],
    volumes: Sequence[Volume],
    plans: Plans,
    configuration_name: str,
    *,
    labels: Sequence[np.ndarray | None] | None = None,
    sources: Sequence[str] | None = None,
    phases: Sequence[str] = (),
) -> PreparedSeries:
    """Prepare scans that are in memory.

    :param cases: a name per scan; :param times: in the plan's time unit, ascending.
    :param labels: (z, y, x) integers per scan, None where a scan has none.
    :param sources: what to call each scan in an error; its case otherwise.
    :param phases: the contrast phase of each scan, for the task "translate".
    """
    plan = plans.configuration(configuration_name)
    sources = list(sources) if sources else [f"Scan {case}" for case in cases]
    _check_volumes(subject, volumes, sources, plans.channel_names)
    geometry, arrays = volumes[0].geometry, [volume.array for volume in volumes]

    crop = nonzero_box(arrays)
    inside = (..., *box_slices(crop))
    region = get_task(plans.task).region
    # where the body ends depends on the air around it, and so on a crop: that of a pair is not that of a scan alone
    seen = arrays if region == "body" else [array[inside] for array in arrays]
    offset, scale = normal_form_of_series(seen, plans.channels, region)
    shape_after_crop = [stop - start for start, stop in crop]
    spacing = [geometry.array_spacing[axis] for axis in plans.transpose_forward]
    target = spacing if plan.own_grid else plan.spacing
    shape = resampled_shape([shape_after_crop[axis] for axis in plans.transpose_forward], spacing, target)

    images = np.empty((len(arrays), len(plans.channels), *shape), dtype=np.float32)
    for index, array in enumerate(arrays):
        normal = to_normal(clipped(array[inside], plans.channels), offset[index], scale[index])
        images[index] = resample_image(transposed(normal, plans.transpose_forward), shape, spacing, target)

    segmentations = locations = None
    if labels is not None and any(label is not None for label in labels):
        segmentations = np.full((len(arrays), *shape), -1, dtype=np.int16)
        for index, label in enumerate(labels):
            if label is not None:
                label = transposed(_outside_marked(label, arrays[index])[None][inside], plans.transpose_forward)[0]
                resampled = resample_labels(label, shape, spacing, target)
                segmentations[index] = np.where(resampled == OUTSIDE, 0, resampled)
        if get_task(plans.task).uses_labels:
            labelled = [None if label is None else segmentations[index] for index, label in enumerate(labels)]
            locations = find_locations(labelled, wanted_values(plans.labels))

    properties = SeriesProperties(
        subject=subject,
        cases=list(cases),
        times=[float(time) for time in times],
        offset=offset,
        scale=scale,
        data_type=[np.result_type(*(volume.data_type for volume in volumes)).name] * len(plans.channels),
        geometry=geometry,
        crop=crop,
        shape_before_crop=list(arrays[0].shape[1:]),
        shape_after_crop=shape_after_crop,
        transpose=list(plans.transpose_forward),
        shape=shape,
        spacing=list(target),
        phases=list(phases),
    )
    block = coarse_block(target)
    return PreparedSeries(properties, images, segmentations, block_means(images, block), block, locations)


def _outside_marked(label: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """The background beyond the nonzero region as a label of its own, as nnU-Net has it while it resamples.

    Resampling gives a voxel to the label with the largest share, so one background or two is not the same.
    """
    return np.where((label == 0) & ~nonzero_mask(scan), np.int16(OUTSIDE), label)


def series_digest(series: Series, plans: Plans, configuration_name: str) -> str:
    """A short hash of all that a prepared series depends on: its files (size and time of change) and the plan's grid
    and normal form. Patch sizes and networks are left out: they do not change the data.
    """
    plan = plans.configuration(configuration_name)
    scans = [
        [scan.case, scan.time, *(_file_state(path) for path in (*scan.images, scan.label) if path is not None)]
        for scan in existing_scans(series)
    ]
    content = {
        "format": FORMAT,
        "scans": scans,
        "spacing": plan.spacing,
        "transpose": plans.transpose_forward,
        "channels": [channel.numbers() for channel in plans.channels],
        "task": plans.task,
        "labels": wanted_values(plans.labels),
    }
    if get_task(plans.task).uses_phases:
        content["phases"] = [scan.phase for scan in existing_scans(series)]
    if plan.own_grid:
        content["spacing"] = "own"
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _file_state(path: Path) -> list[str | int]:
    state = path.stat()
    return [path.name, state.st_size, state.st_mtime_ns]


def _check_volumes(subject: str, volumes: Sequence[Volume], sources: list[str], channel_names: list[str]) -> None:
    """One grid, all channels, finite voxels."""
    for volume, source in zip(volumes, sources, strict=True):
        if len(volume.array) != len(channel_names):
            raise DataError(
                f"{source} has {len(volume.array)} channels, expected {len(channel_names)}: {', '.join(channel_names)}."
            )
        first = f"{sources[0]} of the same subject, {subject},"
        check_same_grid(volume.geometry, source, volumes[0].geometry, first, REGISTER)
        if not np.isfinite(volume.array).all():
            count = int(np.size(volume.array) - np.isfinite(volume.array).sum())
            raise DataError(f"{source} has {count} voxels that are NaN or infinite, expected finite numbers only.")
