"""The integrity of pairs: whether two scans are aligned, by block means, with one file in memory at a time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longflow.data.coarse import SHIFT, block_means, coarse_block, shift_between
from longflow.data.images import Geometry, by_axis
from longflow.integrity.problems import REGISTER, Problem, warning

#: HU; values beyond are padding and metal, which would outweigh the body
HU_LIMITS = (-1000, 1000)


@dataclass(frozen=True)
class Look:
    """The coarse view of a scan that is kept in memory.

    :param shown: path of the file in messages.
    :param geometry: its grid.
    :param means: (1, z, y, x), means over coarse blocks.
    """

    shown: str
    geometry: Geometry
    means: np.ndarray


def look_at(array: np.ndarray, shown: str, geometry: Geometry, is_ct: bool) -> Look:
    """Reduce a channel to its coarse view.

    :param array: (z, y, x), finite.
    :param shown: path of the file in messages.
    :param geometry: its grid.
    :param is_ct: whether the values are HU.
    :returns: the coarse view.
    """
    seen = np.clip(array, *HU_LIMITS) if is_ct else array
    return Look(shown, geometry, block_means(seen[None], coarse_block(geometry.array_spacing)))


def shift_problems(one: Look, other: Look) -> list[Problem]:
    """Warn where two scans on one grid match best after a shift of ``SHIFT`` coarse blocks or more.

    This quick check sees translation alone. A pair that it reports is shifted by a centimetre or more; a pair that it
    does not report may still be rotated or deformed.

    :param one: the reference.
    :param other: the scan that is reported.
    :returns: at most one problem.
    """
    if one.means.shape != other.means.shape or one.geometry.differences(other.geometry):
        return []  # reported already
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
            "aligned scans of a pair",
            f"A network would learn this shift. {REGISTER}",
        )
    ]
