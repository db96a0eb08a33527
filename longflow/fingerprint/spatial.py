"""The fingerprint of images: shapes, spacings, types and intensities, in nnU-Net's terms."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from longflow.data.body import brighter_than_mean
from longflow.data.box import box_slices, nonzero_box
from longflow.data.dataset import Series
from longflow.data.images import check_same_grid, read_label, read_scan
from longflow.data.intensity_map import IntensityMap
from longflow.data.recurrence import scan_similarity
from longflow.errors import DataError
from longflow.fingerprint.intensities import neighbour_maps
from longflow.fitness.looks import Look, look_at_scan
from longflow.integrity.problems import REGISTER
from longflow.nnunet import foreground_intensities

#: most intensity samples of the whole dataset and of one scan; nnU-Net's 1e8 fill memory and change no digit used
SAMPLES_OF_DATASET, SAMPLES_OF_SCAN = 5_000_000, 10_000


#: where intensities are sampled: in the body, or, as in nnU-Net, in the labelled voxels
Foreground = Literal["bodies", "labels"]


class ChannelIntensities(BaseModel):
    """Intensities of a channel within the foreground of all scans, in file units; names are nnU-Net's."""

    model_config = ConfigDict(extra="forbid")

    mean: float
    median: float
    std: float = Field(ge=0)
    min: float
    max: float
    percentile_99_5: float
    percentile_00_5: float
    count: int = Field(ge=0, description="voxels of the foreground, over all scans")
    data_types: list[str] = Field(description="types found in the files")


class SpatialFingerprint(BaseModel):
    """Shapes and spacings of every subject, file axes (z, y, x); keys as nnU-Net's ``ExperimentPlanner`` reads them."""

    model_config = ConfigDict(extra="forbid")

    spacings: list[list[float]] = Field(description="mm, one entry per subject")
    shapes_before_crop: list[list[int]] = Field(description="voxels, one entry per subject")
    shapes_after_crop: list[list[int]] = Field(description="voxels of the box that holds all scans of the subject")
    median_relative_size_after_cropping: float = Field(gt=0, le=1)
    foreground: Foreground = "bodies"
    foreground_intensity_properties_per_channel: dict[str, ChannelIntensities]


@dataclass
class SubjectFindings:
    """The measured properties of one subject.

    :param spacing: (z, y, x), mm.
    :param shape_before_crop: (z, y, x), voxels.
    :param shape_after_crop: (z, y, x), voxels of the box that holds all scans.
    :param samples: for each channel, intensities drawn in the foreground of the scans.
    :param counts: for each channel, number of voxels of the foreground.
    :param data_types: for each channel, types of the files.
    :param maps: for each channel, the intensity map from each scan to the next; empty where tasks need none.
    :param similarity: (scans, scans), correlations of the scans; None where tasks need none.
    :param looks: of the scans, for the fitness gate.
    """

    spacing: tuple[float, ...]
    shape_before_crop: tuple[int, ...]
    shape_after_crop: tuple[int, ...]
    samples: list[np.ndarray]
    counts: list[int]
    data_types: list[set[str]]
    maps: list[list[IntensityMap]]
    similarity: np.ndarray | None = None
    looks: list[Look] = field(default_factory=list)


def examine_subject(work: tuple[Series, int, Foreground, bool]) -> SubjectFindings:
    """Read all scans of a subject, crop them to one box, sample intensities.

    :param work: the series; number of intensities to draw from each scan and channel; where to draw them (with
        "labels", scans without a label give none); whether the scans of a subject are compared with each other. (It is
        one argument, for worker processes.)
    :returns: the measured properties.
    :raises DataError: a file cannot be read, holds NaN or infinite voxels, or is on another grid than the others.
    """
    series, samples_of_scan, foreground, compares = work
    scans = series.with_images().scans
    if not scans:
        raise DataError(f"Subject {series.subject} has no scan whose images exist. Check with longflow_verify.")
    images, types, first = [], [set() for _ in scans[0].images], None
    for scan in scans:
        channels = [read_scan((path,)) for path in scan.images]
        first = first or channels[0].geometry
        for path, volume, found in zip(scan.images, channels, types, strict=True):
            check_same_grid(
                volume.geometry,
                path,
                first,
                f"{scans[0].images[0]} of the same subject",
                f"{REGISTER} longflow_verify lists every scan on another grid.",
            )
            found.add(volume.data_type)
        # what is read is not kept next to its copy
        images.append(channels[0].array if len(channels) == 1 else np.concatenate([one.array for one in channels]))

    box = nonzero_box(images)
    crop = box_slices(box)

    channels = range(len(images[0]))
    samples, counts = [[] for _ in channels], [0 for _ in channels]
    for scan, image in zip(scans, images, strict=True):
        labels = read_label(scan.label, scan.images[0], first) if foreground == "labels" else None
        if foreground == "labels" and labels is None:
            continue
        for channel in channels:
            voxels = image[channel][crop]
            inside = brighter_than_mean(voxels) if labels is None else labels[crop] > 0
            samples[channel].append(foreground_intensities(voxels, inside, samples_of_scan))
            counts[channel] += int(inside.sum())
    return SubjectFindings(
        spacing=first.array_spacing,
        shape_before_crop=images[0].shape[1:],
        shape_after_crop=tuple(stop - start for start, stop in box),
        samples=[np.concatenate(drawn) if drawn else np.zeros(0, np.float32) for drawn in samples],
        counts=counts,
        data_types=types,
        maps=neighbour_maps(images) if compares else [],
        similarity=scan_similarity([image[(slice(None), *crop)] for image in images]) if compares else None,
        looks=[look_at_scan(image, first.array_spacing) for image in images],
    )


def combine(findings: list[SubjectFindings], foreground: Foreground = "bodies") -> SpatialFingerprint:
    """Combine the properties of all subjects.

    :param findings: of each subject, in order.
    :param foreground: where intensities were sampled.
    :returns: the fingerprint of the images.
    :raises DataError: no voxel is labelled.
    """
    properties = {}
    for channel in range(len(findings[0].samples)):
        samples = np.concatenate([found.samples[channel] for found in findings])
        if not len(samples):
            raise DataError(
                "The label images in labelsTr hold nothing but background (0). Expected the values that 'labels' in "
                "dataset.json names. Without labels, remove the folder."
            )
        low, median, high = np.percentile(samples, (0.5, 50, 99.5))
        properties[str(channel)] = ChannelIntensities(
            mean=float(samples.mean(dtype=np.float64)),
            median=float(median),
            std=float(samples.std(dtype=np.float64)),
            min=float(samples.min()),
            max=float(samples.max()),
            percentile_99_5=float(high),
            percentile_00_5=float(low),
            count=sum(found.counts[channel] for found in findings),
            data_types=sorted(set().union(*(found.data_types[channel] for found in findings))),
        )
    relative = [np.prod(found.shape_after_crop) / np.prod(found.shape_before_crop) for found in findings]
    return SpatialFingerprint(
        spacings=[list(found.spacing) for found in findings],
        shapes_before_crop=[list(found.shape_before_crop) for found in findings],
        shapes_after_crop=[list(found.shape_after_crop) for found in findings],
        median_relative_size_after_cropping=float(np.median(relative)),
        foreground=foreground,
        foreground_intensity_properties_per_channel=properties,
    )


def samples_of_scan(scans: int) -> int:
    """Return the number of intensities to draw from each scan of a dataset.

    :param scans: number of scans of the dataset.
    :returns: samples per scan and channel.
    """
    return max(100, min(SAMPLES_OF_SCAN, SAMPLES_OF_DATASET // max(scans, 1)))
