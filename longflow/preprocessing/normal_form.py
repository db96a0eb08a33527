"""Compute the invertible intensity normal form: normal = (raw - offset) / scale, per scan and channel.

There are five forms (``plans.channels``). ``absolute``: fixed numbers for all scans (CT). ``per_subject``: mean and
standard deviation of the subject's first scan, so that changes between the scans of one acquisition survive (contrast
arrival). ``matched``: the first scan's too, carried to every later scan by robust maps, each fitted between a scan and
the one before it on the tissue that did not change (:mod:`longflow.data.intensity_map`); for visits whose units differ.
``per_scan``: each scan's own; growth and atrophy change them, so they are not comparable between visits. ``min_max``:
each scan's own minimum and range, as in the authors' code of CRONOS and TFM for ACDC; one bright voxel changes them. A
forecast has no statistics of its own: it is mapped back with the last context scan's numbers. The numbers of a scan
never depend on later ones, so a target never changes its context.

The task chooses the region of the statistics (``Task.region``). "nonzero", for forecasts: the nonzero region. "body",
for translations: a scan is prepared alone, and skull-stripping or resampling may leave faint noise around one of two
phases only, so that their nonzero regions would differ. "box", for segmentation: all voxels of the scan's own nonzero
box, as in nnU-Net's ``ZScoreNormalization`` with ``use_mask_for_norm`` false. nnU-Net's planner sets it true where
cropping removes a quarter of the images; longflow never does. The other scans of the subject do not matter.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from longflow.data.body import body_mask, nonzero_mask
from longflow.data.box import box_slices, nonzero_box
from longflow.data.intensity_map import map_blocks, map_of_blocks
from longflow.plans import ChannelPlan

#: the voxels that statistics are taken of
Region = Literal["nonzero", "box", "body"]


def normal_form_of_series(
    scans: Sequence[np.ndarray], channels: Sequence[ChannelPlan], region: Region = "nonzero"
) -> tuple[list[list[float]], list[list[float]]]:
    """Compute offset and scale of every scan and channel.

    :param scans: (channels, z, y, x) each, raw, cropped, in order of time.
    :param channels: the plan of each channel.
    :param region: where statistics are taken.
    :returns: offsets and scales, a list per scan of a list per channel; a scale is never 0.
    """
    forms = {channel.normal_form for channel in channels}
    statistics: list[list[tuple[float, float]]] = []
    for position, scan in enumerate(scans):
        needed = "per_scan" in forms or (forms & {"per_subject", "matched"} and position == 0)
        statistics.append(region_statistics(scan, region) if needed else [])
    of_channels = [_numbers(channel, index, scans, statistics, region) for index, channel in enumerate(channels)]
    of_scans = list(zip(*of_channels, strict=True))
    return [[offset for offset, _ in one] for one in of_scans], [[scale for _, scale in one] for one in of_scans]


def _numbers(
    channel: ChannelPlan,
    index: int,
    scans: Sequence[np.ndarray],
    statistics: list[list[tuple[float, float]]],
    region: Region,
) -> list[tuple[float, float]]:
    """Return offset and scale of a channel in each scan."""
    if channel.normal_form == "absolute":
        return [(float(channel.offset), float(channel.scale))] * len(scans)
    if channel.normal_form == "per_scan":
        return [one[index] for one in statistics]
    if channel.normal_form == "min_max":
        return [_minimum_and_range(scan[index]) for scan in scans]
    first = statistics[0][index]
    if channel.normal_form == "per_subject":
        return [first] * len(scans)
    return _carried(first, [scan[index][None] for scan in scans], region)


def _minimum_and_range(channel: np.ndarray) -> tuple[float, float]:
    """Return offset and scale that map a channel to 0 ... 1; the scale of a constant one is 1. Zeros count, too."""
    low, high = float(channel.min()), float(channel.max())
    return low, (high - low) or 1.0


def _carried(first: tuple[float, float], scans: Sequence[np.ndarray], region: Region) -> list[tuple[float, float]]:
    """Carry offset and scale of the first scan to the later ones.

    Each scan is mapped from the one before it: neighbours differ least, and a forecast needs the map between the last
    two scans most. Where two neighbours have nothing in common, mean and standard deviation of both are all there is.

    :param scans: (1, z, y, x) each.
    """
    numbers, before = [first], map_blocks(scans[0][0])
    for position, scan in enumerate(scans[1:], start=1):
        blocks = map_blocks(scan[0])
        found = map_of_blocks(before, blocks)
        gain, added = found.gain, found.offset
        if found.identity_because:
            pair = scans[position - 1], scan
            (mean, deviation), (later_mean, later_deviation) = (region_statistics(one, region)[0] for one in pair)
            gain = later_deviation / deviation
            added = later_mean - gain * mean
        offset, scale = numbers[-1]
        numbers.append((gain * offset + added, gain * scale))
        before = blocks
    return numbers


def region_statistics(scan: np.ndarray, region: Region = "nonzero") -> list[tuple[float, float]]:
    """Compute mean and standard deviation of each channel.

    A region that holds one value only (or none) has scale 1: it becomes 0, and can be mapped back.

    :param scan: (channels, z, y, x), raw.
    :param region: "nonzero": within nnU-Net's nonzero region; "box": within the smallest box around it; "body": above
        Otsu's threshold of each channel, without holes.
    :returns: (mean, standard deviation) per channel.
    """
    # nnU-Net sums in float32: only with its rounding are prepared voxels, and so exported models' labels, equal
    precision = np.float32 if region == "box" else np.float64
    numbers = []
    for voxels in _voxels_of_region(scan, region):
        if voxels.size == 0:
            numbers.append((0.0, 1.0))
            continue
        mean, deviation = float(voxels.mean(dtype=precision)), float(voxels.std(dtype=precision))
        # a deviation within the rounding of float32 is no contrast
        smallest = float(np.finfo(np.float32).eps * np.abs(voxels).max())
        numbers.append((mean, deviation if deviation > smallest else 1.0))
    return numbers


def _voxels_of_region(scan: np.ndarray, region: Region) -> list[np.ndarray]:
    """Return the region's voxels of each channel."""
    if region == "body":
        return [channel[body_mask(channel, is_ct=False)] for channel in scan]
    inside = nonzero_mask(scan) if region == "nonzero" else box_slices(nonzero_box([scan]))
    return [channel[inside] for channel in scan]


def clipped(raw: np.ndarray, channels: Sequence[ChannelPlan]) -> np.ndarray:
    """Clip raw intensities to the limits of the plan.

    :param raw: (channels, z, y, x), raw units.
    :param channels: the plan of each channel.
    :returns: (channels, z, y, x); the same array where no channel is clipped.
    """
    if not any(channel.clip for channel in channels):
        return raw
    limits = [channel.clip or (-np.inf, np.inf) for channel in channels]
    low, high = (_per_channel(values) for values in zip(*limits, strict=True))
    return np.clip(raw, low, high)


def to_normal(raw: np.ndarray, offset: Sequence[float], scale: Sequence[float]) -> np.ndarray:
    """Map raw units to the normal form.

    :param raw: (channels, z, y, x).
    :param offset: per channel, raw units.
    :param scale: per channel, raw units.
    :returns: (channels, z, y, x), float32.
    """
    return (raw.astype(np.float32, copy=False) - _per_channel(offset)) / _per_channel(scale)


def from_normal(normal: np.ndarray, offset: Sequence[float], scale: Sequence[float]) -> np.ndarray:
    """Map the normal form to raw units.

    :param normal: (channels, z, y, x).
    :param offset: per channel, raw units.
    :param scale: per channel, raw units.
    :returns: (channels, z, y, x), float32.
    """
    return normal.astype(np.float32, copy=False) * _per_channel(scale) + _per_channel(offset)


def _per_channel(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[:, None, None, None]
