"""The integrity of CT values: whether they can be Hounsfield units."""

from typing import NamedTuple

import numpy as np

#: number of voxels that are examined at most
VOXELS = 1_000_000
#: HU; fat, fluid, muscle and organs with and without contrast
SOFT_TISSUE = (-200.0, 300.0)
#: HU; no tissue or air (with its noise) is below the first, and only metal is above the second
LOWEST, HIGHEST = -1200.0, 3100.0
#: HU; a single value below this is padding outside the field of view, as -2000, -2048 or -3024
FILLING = -1100.0
#: share of the voxels that may be outside the range of tissue: rings of interpolated padding, metal
BEYOND = 0.10
#: scanners mostly store HU + 1024
STORED = 1024.0

#: the expected values, for messages
HOUNSFIELD_UNITS = "Hounsfield units: air at -1000, soft tissue at -100 to 100"


class Doubt(NamedTuple):
    """The reason why values are no HU.

    :param found: the values found.
    :param advice: the remedy.
    """

    found: str
    advice: str


def hounsfield_doubt(array: np.ndarray) -> Doubt | None:
    """Find out why the values of a CT cannot be HU.

    Scans of every part of the body contain soft tissue. An intercept that was applied twice or not at all shifts its
    values; padding outside the field of view and metal do not matter.

    :param array: any shape, finite numbers of one channel.
    :returns: the reason; None where the values can be HU.
    """
    sample = np.asarray(array).ravel()[:: max(1, array.size // VOXELS)].astype(np.float64)
    lowest, highest = sample.min(), sample.max()
    span = f"values from {lowest:.6g} to {highest:.6g}"
    seen = sample[sample > lowest] if lowest < FILLING else sample
    if not seen.size or lowest == highest:
        return None  # constant, which is reported elsewhere

    def share(low: float, high: float) -> float:
        return float(np.mean((seen >= low) & (seen < high)))

    if np.ptp(seen) < 20:
        advice = "The values look normalised. Convert the scan again from its source, without scaling its values."
        return Doubt(span, advice)
    soft, twice = share(*SOFT_TISSUE), share(*(edge - STORED for edge in SOFT_TISSUE))
    if share(-np.inf, LOWEST) > BEYOND or (lowest < FILLING and soft < 0.01 and twice > 0.5):
        advice = (
            "The rescale slope and intercept were probably applied twice. Convert the scan again from its source, or "
            "add 1024 to it, if that is the scanner's intercept."
        )
        return Doubt(f"{span}, {soft:.0%} of the voxels in the range of soft tissue", advice)
    stored = share(STORED - 150, STORED + 150)
    if share(HIGHEST, np.inf) > BEYOND or (share(-np.inf, SOFT_TISSUE[0]) < 0.001 and stored > 0.05):
        advice = (
            "The rescale slope and intercept were probably not applied. Convert the scan again from its source, or "
            "subtract 1024 from it, if that is the scanner's intercept."
        )
        return Doubt(f"{span}, {stored:.0%} of the voxels near {STORED:.0f}", advice)
    return None
