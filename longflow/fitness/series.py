"""What is compared of a series: neighbouring scans, the course over three scans, intervals and horizons.

An observation is a dictionary of measures; a kind of observation has measures of its own. Every subject has some
observations of each kind: one of each scan, of each pair of neighbours, of each interval, and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from longflow.fitness.looks import AXES, PERCENTILES, TINY, Look, agreement, stretched

#: an observation: values by name of the measure
Observation = dict[str, float]
#: most horizons of a training subject: all differences of 30 scans would be 435
MOST_HORIZONS = 100


@dataclass(frozen=True)
class Observed:
    """Everything that is compared of a subject.

    :param looks: of the scans, in order of time.
    :param kinds: the contrast phase of each scan; empty strings where the task has none.
    :param further: observations of other kinds than scans: "pair", "course", "interval", "horizon", "series".
    """

    looks: Sequence[Look]
    kinds: Sequence[str]
    further: dict[str, list[Observation]] = field(default_factory=dict)


def observe_scans(looks: Sequence[Look], kinds: Sequence[str] = ()) -> Observed:
    """Observe scans that are seen one by one."""
    return Observed(looks, list(kinds) or [""] * len(looks))


def observe_series(looks: Sequence[Look], times: Sequence[float], horizons: Sequence[float] = ()) -> Observed:
    """Observe the scans of a subject together.

    :param looks: of the scans, in order of time.
    :param times: of all scans that are given, of which ``looks`` may be a part.
    :param horizons: target times minus the last context time; empty: every difference of two times.
    :returns: the observations.
    """
    every = [later - earlier for place, later in enumerate(times) for earlier in times[:place]]
    every = every[:: -(-len(every) // MOST_HORIZONS)] if every else []
    return Observed(
        looks,
        [""] * len(looks),
        {
            "pair": [compare(one, other) for one, other in pairwise(looks)],
            "course": [{"course": _course(*three)} for three in zip(looks, looks[1:], looks[2:], strict=False)],
            "interval": [{"interval": float(np.log(step))} for step in np.diff(times) if step > 0],
            "horizon": [{"horizon": float(np.log(step))} for step in horizons or every if step > 0],
            "series": [{"scans": float(np.log(max(len(times), 1)))}],
        },
    )


def compare(one: Look, other: Look) -> Observation:
    """Compare a scan with the one before it.

    :param one: the earlier scan.
    :param other: the later one, of the same grid.
    :returns: agreement, mirror images, shift, and changes of intensities, noise and sharpness.
    """
    given = agreement(one.picture, other.picture)
    values = {"agreement": stretched(given)}
    for number, axis in enumerate(AXES):
        values[f"pair mirrored {axis}"] = given - agreement(one.picture, np.flip(other.picture, 1 + number))
    for axis, distance in zip(AXES, _shift(one, other), strict=True):
        values[f"shift {axis}"] = float(distance)
    for channel, (deviation, later) in enumerate(zip(one.deviation, other.deviation, strict=True)):
        values[f"gain {channel}"] = float(np.log(later / deviation))
        values[f"step {channel}"] = float(np.arcsinh((other.mean[channel] - one.mean[channel]) / deviation))
        for name in ("noise", "sharpness", *(f"histogram {percentile}" for percentile in PERCENTILES)):
            values[f"change of {name} {channel}"] = other.values[f"{name} {channel}"] - one.values[f"{name} {channel}"]
    return values


def _shift(one: Look, other: Look) -> np.ndarray:
    """Estimate the displacement between two pictures from their gradients (Lucas and Kanade, IJCAI 1981).

    :returns: (z, y, x), mm.
    """
    # of a thin field, all cells along an axis are equal: that axis then has no gradient, and no shift
    mean = (one.picture + other.picture) / 2
    gradients = np.stack([np.gradient(mean, axis=1 + axis).ravel() for axis in range(3)]).astype(np.float64)
    system = gradients @ gradients.T
    system[np.diag_indices(3)] += 1e-3 * np.trace(system) / 3 + TINY
    cells = np.linalg.solve(system, gradients @ (one.picture - other.picture).ravel())
    return cells * one.field / one.picture.shape[-1]


def _course(before: Look, scan: Look, after: Look) -> float:
    """Measure how far a scan is from a course between its neighbours: the log of detour over direct way.

    It is 0 on a straight line, and larger where times are exchanged.
    """
    steps = np.linalg.norm(scan.picture - before.picture) + np.linalg.norm(after.picture - scan.picture)
    return float(np.log((steps + TINY) / (np.linalg.norm(after.picture - before.picture) + TINY)))
