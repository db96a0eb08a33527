"""Whether the two scans of a pair lie on each other, seen by coarse means: one file in memory at a time is enough."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longflow.data.coarse import SHIFT, block_means, coarse_block, shift_between
from longflow.data.images import Geometry, by_axis
from longflow.integrity.problems import REGISTER, Problem, warning

#: HU; what is beyond is filling and metal, which would outweigh the body
HU_LIMITS = (-1000, 1000)


@dataclass(frozen=True)
class Look:
    """What is kept of a scan. :param shown: its path for people. :param means: (1, z, y, x), over coarse blocks."""

    shown: str
    geometry: Geometry
    means: np.ndarray


def look_at(array: np.ndarray, shown: str, geometry: Geometry, is_ct: bool) -> Look:
    """:param array: (z, y, x), finite."""
    seen = np.clip(array, *HU_LIMITS) if is_ct else array
    return Look(shown, geometry, block_means(seen[None], coarse_block(geometry.array_spacing)))


def shift_problems(one: Look, other: Look) -> list[Problem]:
    """A warning where two scans on one grid fit each other best after a shift of ``SHIFT`` coarse blocks or more.

    A cheap look at the translation alone: what it finds is shifted by a centimetre or more; what it does not find may
    still be rotated or deformed.
    """
    if one.means.shape != other.means.shape or one.geometry.differences(other.geometry):
        return []  # said already
    blocks = shift_between(one.means, other.means)
    if np.abs(blocks).max() < SHIFT:
        return []
    spacing = one.geometry.array_spacing
    shift = blocks * coarse_block(spacing) * spacing
    return [
        warning(
            other.shown,
            "position",
            f"shifted by about {by_axis(np.abs(shift[::-1]), 2)} mm (x, y, z) against {Path(one.shown).name}",
            "scans of a pair that lie on each other",
            f"A network would learn the shift. {REGISTER}",
        )
    ]
