"""The fingerprint of intensity units: the robust maps between neighbouring scans of a subject, and their spread."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from longflow.data.intensity_map import IntensityMap, map_blocks, map_of_blocks
from longflow.fingerprint.temporal import Distribution


class IntensityMaps(BaseModel):
    """Robust maps of one channel from each scan of a subject to the next, over voxels that did not change."""

    model_config = ConfigDict(extra="forbid")

    log_gains: Distribution = Field(description="natural logarithm of the gain; 0 where units are shared")
    shifts: Distribution = Field(
        description="of the mean of the unchanged body, in its standard deviations; 0 where units are shared"
    )
    explained: Distribution = Field(
        description="share of the mean squared difference of two neighbours that goes with the map: near 0 where units "
        "are shared"
    )
    without_map: int = Field(ge=0, description="pairs of neighbours that have nothing in common")


def neighbour_maps(scans: Sequence[np.ndarray]) -> list[list[IntensityMap]]:
    """Fit the map from each scan of a subject to the next one. Only block means of two scans are held.

    :param scans: (channels, z, y, x) each, raw, on one grid, in order of time.
    :returns: a list per channel, with one map fewer than there are scans.
    """
    maps: list[list[IntensityMap]] = [[] for _ in scans[0]]
    before: list[np.ndarray] = []
    for scan in scans:
        blocks = [map_blocks(channel) for channel in scan]
        for found, source, target in zip(maps, before, blocks, strict=False):
            found.append(map_of_blocks(source, target))
        before = blocks
    return maps


def combine_maps(maps_of_subjects: Sequence[Sequence[Sequence[IntensityMap]]]) -> dict[str, IntensityMaps] | None:
    """Combine the maps of all subjects.

    :param maps_of_subjects: :func:`neighbour_maps` of each subject.
    :returns: by channel number, as the intensities of the spatial fingerprint; None where no subject has two scans.
    """
    channels = [[one for maps in of_channel for one in maps] for of_channel in zip(*maps_of_subjects, strict=True)]
    if not any(channels):
        return None
    return {str(index): _combined(maps) for index, maps in enumerate(channels)}


def _combined(maps: list[IntensityMap]) -> IntensityMaps:
    fitted = [one for one in maps if not one.identity_because]
    return IntensityMaps(
        log_gains=Distribution.of([math.log(one.gain) for one in fitted]),
        shifts=Distribution.of([one.shift for one in fitted]),
        explained=Distribution.of([one.explained for one in fitted]),
        without_map=len(maps) - len(fitted),
    )
