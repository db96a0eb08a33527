"""Whether the values of a CT can be Hounsfield units at all."""

from typing import NamedTuple

import numpy as np

#: so many voxels are enough to see it
VOXELS = 1_000_000
#: HU; fat, fluid, muscle and organs with and without contrast
SOFT_TISSUE = (-200.0, 300.0)
#: HU; no tissue, air and its noise included, is below it, and nothing but metal above the second
LOWEST, HIGHEST = -1200.0, 3100.0
#: HU; a single value from here on is a filling outside the field of view, as -2000, -2048 or -3024
FILLING = -1100.0
#: share of the voxels that may be beyond what there is: rings of interpolated filling, metal
BEYOND = 0.10
#: what CT stores is mostly HU + 1024
STORED = 1024.0

#: what is expected
HOUNSFIELD_UNITS = "Hounsfield units: air at -1000, soft tissue at -100 to 100"


class Doubt(NamedTuple):
    """Why values are no HU: what was found, and what to do."""

    found: str
    advice: str


def hounsfield_doubt(array: np.ndarray) -> Doubt | None:
    """Why the values of a CT cannot be HU; None where they can.

    Scans of any part of the body hold soft tissue. Its voxels move by an intercept that is applied once too often or
    not at all; filling outside the field of view and metal do not decide.

    :param array: a channel of finite numbers, any shape.
    """
    sample = np.asarray(array).ravel()[:: max(1, array.size // VOXELS)].astype(np.float64)
    lowest, highest = sample.min(), sample.max()
    span = f"values from {lowest:.6g} to {highest:.6g}"
    seen = sample[sample > lowest] if lowest < FILLING else sample
    if not seen.size or lowest == highest:
        return None  # constant, which is said elsewhere

    def share(low: float, high: float) -> float:
        return float(np.mean((seen >= low) & (seen < high)))

    if np.ptp(seen) < 20:
        advice = "They look normalised. Convert the scan again from its source, without scaling its values."
        return Doubt(span, advice)
    soft, twice = share(*SOFT_TISSUE), share(*(edge - STORED for edge in SOFT_TISSUE))
    if share(-np.inf, LOWEST) > BEYOND or (lowest < FILLING and soft < 0.01 and twice > 0.5):
        advice = (
            "It looks as if the rescale slope and intercept had been applied twice. Convert the scan again from its "
            "source, or add 1024 to it, if that is the scanner's intercept."
        )
        return Doubt(f"{span}, {soft:.0%} of the voxels in the range of soft tissue", advice)
    stored = share(STORED - 150, STORED + 150)
    if share(HIGHEST, np.inf) > BEYOND or (share(-np.inf, SOFT_TISSUE[0]) < 0.001 and stored > 0.05):
        advice = (
            "It looks as if the rescale slope and intercept had not been applied. Convert the scan again from its "
            "source, or subtract 1024 from it, if that is the scanner's intercept."
        )
        return Doubt(f"{span}, {stored:.0%} of the voxels near {STORED:.0f}", advice)
    return None
