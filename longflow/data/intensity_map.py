"""Fit the map between the intensities of two scans of a subject: target = gain · source + offset.

The mean and standard deviation of a scan move with the disease: a growing lesion changes both. This map is fitted to
the tissue that did not change, as a symmetric regression (reduced major axis): its gain is the ratio of two standard
deviations, so noise in the source does not flatten it as it does in least squares, and the map back is its inverse.

1. Means over small blocks of both scans, in the body (Otsu's threshold of the sum of both, holes filled).
2. Candidates: the lines through the medians of intensity classes. Half of a class may have changed.
3. The candidate that most blocks agree with (MSAC: Torr and Zisserman, Computer Vision and Image Understanding, 2000).
4. Reduced major axis with Tukey's biweights, which are 0 for changed blocks, until it no longer moves.

Residuals do not depend on the sum of both standardised intensities, by which the body and the classes are chosen. So
neither choice prefers a gain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from longflow.data.body import body_mask

#: blocks of a scan, at most: more change no digit that matters
MOST_BLOCKS = 16_000
#: fewer blocks in the body determine no map
FEWEST_BLOCKS = 50
#: classes of intensity with about equally many blocks, whose medians the candidates pass through
CLASSES = 12
#: blocks that candidates are compared on
COMPARED_BLOCKS = 1_000
#: Tukey's constant: 95 % of the efficiency of least squares where nothing changed
TUKEY = 4.685
#: the weighted variance of normal deviates with these weights, as a share of their variance
VARIANCE_SHARE = 0.828
#: the median of absolute normal deviates is this share of their standard deviation
MEDIAN_DEVIATION = 0.3186
GAINS = 2.0 ** (np.arange(-3, 4) / 3)
#: residuals below this share of the body's deviation are rounding
ROUNDING = 1e-6
#: standard deviations over which changed blocks are taken to lie evenly
RANGE = 4.0
#: correlation of unchanged blocks below which a map is none: its gain is in doubt by 15 % and more
LEAST_CORRELATION = 0.85
#: steps of the refinement of all candidates, and of the best one
COMPARED_STEPS, MOST_STEPS = 10, 50


@dataclass(frozen=True)
class IntensityMap:
    """The intensities of a target scan from those of a source: gain · source + offset.

    :param gain: positive.
    :param offset: in units of the target.
    :param mean: of the source where nothing changed, in its units.
    :param deviation: standard deviation of the source there, in its units.
    :param unchanged: share of the body that agrees with the map.
    :param explained: share of the mean squared difference of both scans in the body that goes with the map, as far as
        its gain is beyond doubt: least squares of the target on the source gives gain · correlation, least squares of
        the source on the target gain / correlation, and a gain between them is as likely. Near 0 where units are
        shared. To neglect the map costs a forecast its square root, as a share of the error of the last scan.
    :param identity_because: why no map could be fitted, so that it is the identity; empty where one was.
    """

    gain: float = 1.0
    offset: float = 0.0
    mean: float = 0.0
    deviation: float = 1.0
    unchanged: float = 0.0
    explained: float = 0.0
    identity_because: str = ""

    @property
    def shift(self) -> float:
        """How far the map moves the mean of the unchanged body, in standard deviations of it."""
        return ((self.gain - 1) * self.mean + self.offset) / self.deviation


def fit_intensity_map(source: np.ndarray, target: np.ndarray) -> IntensityMap:
    """Fit the map from one scan to another of the same subject, on one grid.

    :param source: (z, y, x), any units.
    :param target: likewise.
    :returns: the map; the identity with a reason where nothing in common is found.
    """
    return map_of_blocks(map_blocks(source), map_blocks(target))


def map_blocks(volume: np.ndarray) -> np.ndarray:
    """Compute the means that a map is fitted to: over small blocks, at most :data:`MOST_BLOCKS`.

    Voxels at the end of an axis that fill no block are excluded, so that every mean has the same noise.

    :param volume: (z, y, x).
    :returns: (z', y', x'), float32.
    """
    means = np.asarray(volume, dtype=np.float32)
    for axis, size in enumerate(_block(volume.shape)):  # z first, where sums are quickest
        count = means.shape[axis] // size
        whole = np.take(means, range(count * size), axis) if means.shape[axis] % size else means
        means = whole.reshape(*means.shape[:axis], count, size, *means.shape[axis + 1 :]).mean(axis + 1)
    return means


def _block(shape: Sequence[int]) -> list[int]:
    """Choose the size of a block: the axis with the most blocks is halved while there are too many."""
    block = [1, 1, 1]
    while np.prod(counts := [size // edge for size, edge in zip(shape, block, strict=True)]) > MOST_BLOCKS:
        block[int(np.argmax(counts))] *= 2
    return block


def map_of_blocks(source: np.ndarray, target: np.ndarray) -> IntensityMap:
    """Fit the map from the means of one scan to those of another, as :func:`fit_intensity_map`.

    :param source: of :func:`map_blocks`.
    :param target: likewise.
    :returns: the map.
    """
    if not source.size or np.ptp(source) == 0 or np.ptp(target) == 0:
        return IntensityMap(identity_because="a scan has one value only")
    both = _standardised(source) + _standardised(target)
    # in a masked scan, what is exactly 0 was cut away
    body = body_mask(both, is_ct=False) & (source != 0) & (target != 0)
    x, y = source[body].astype(np.float64), target[body].astype(np.float64)
    if x.size < FEWEST_BLOCKS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return IntensityMap(identity_because=f"the body has {x.size} blocks in common, or one value only")
    # both with deviation 1: a block then counts the same whichever scan is the source
    scales = x.std(), y.std()
    x, y = x / scales[0], y / scales[1]
    few = slice(None, None, max(1, len(x) // COMPARED_BLOCKS))
    lines = _refined(x[few], y[few], _candidates(x[few], y[few]), COMPARED_STEPS)
    best = lines.costs().argmin()[None]
    fitted = _refined(x, y, (lines.gains[best], lines.offsets[best], lines.deviations[best]), MOST_STEPS)
    correlation = fitted.correlations[0]
    if not correlation > LEAST_CORRELATION:
        return IntensityMap(identity_because=f"the scans agree nowhere (correlation {correlation:.2f})")
    found = IntensityMap(
        gain=float(fitted.gains[0] * scales[1] / scales[0]),
        offset=float(fitted.offsets[0] * scales[1]),
        mean=float(fitted.means[0] * scales[0]),
        deviation=float(fitted.spreads[0] * scales[0]),
        unchanged=float(fitted.shares[0]),
    )
    return replace(found, explained=_explained(found, float(correlation), scales[0] * x, scales[1] * y))


def _explained(found: IntensityMap, correlation: float, x: np.ndarray, y: np.ndarray) -> float:
    """Compute ``IntensityMap.explained``. :param x: (blocks,), the source in the body. :param y: the target."""
    before = np.mean((y - x) ** 2)
    if before == 0:
        return 0.0
    low, high = found.gain * correlation, found.gain / correlation
    gain = min(max(1.0, low), high)  # 1, or the bound next to it
    return float(1 - np.mean((y - found.gain * found.mean - found.offset - gain * (x - found.mean)) ** 2) / before)


class _Lines(NamedTuple):
    """Fitted lines, (lines,) each; intensities are divided by the deviation of the body."""

    gains: np.ndarray
    offsets: np.ndarray
    deviations: np.ndarray  # of the residuals of unchanged blocks
    means: np.ndarray  # of their source
    spreads: np.ndarray  # standard deviation of their source
    shares: np.ndarray  # of unchanged blocks
    correlations: np.ndarray  # of source and target in them

    def costs(self) -> np.ndarray:
        """Return the description length: many blocks close to the line, the others anywhere within the range.

        A line along which source and target do not agree costs most: it is the noise within one tissue.
        """
        length = self.shares * np.log(self.deviations) + (1 - self.shares) * np.log(RANGE)
        return np.where(self.correlations > LEAST_CORRELATION, length, np.inf)


def _standardised(blocks: np.ndarray) -> np.ndarray:
    return (blocks - blocks.mean(dtype=np.float64)) / blocks.std(dtype=np.float64)


def _candidates(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List lines through the medians of intensity classes.

    :param x: (blocks,), deviation 1.
    :param y: likewise.
    :returns: (lines,) gains, offsets, and the deviation of the better half of each line's residuals.
    """
    order = np.argsort(x + y, kind="stable")
    classes = [(np.median(x[part]), np.median(y[part])) for part in np.array_split(order, CLASSES)]
    lines = [(gain, middle - gain * left) for left, middle in classes for gain in GAINS]
    gains, offsets = np.array(lines).T
    deviations = np.quantile(np.abs(_residuals(x, y, gains, offsets)), 0.25, axis=1) / MEDIAN_DEVIATION
    return gains, offsets, np.maximum(deviations, ROUNDING)


def _residuals(x: np.ndarray, y: np.ndarray, gains: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return (lines, blocks): the distance from each line, the same for both directions of the map."""
    return (y - gains[:, None] * x - offsets[:, None]) / np.sqrt(gains)[:, None]


@np.errstate(divide="ignore", invalid="ignore")  # along one value there is no line: its correlation is NaN
def _refined(x: np.ndarray, y: np.ndarray, lines: tuple[np.ndarray, ...], steps: int) -> "_Lines":
    """Fit the reduced major axis to the blocks that agree with each line; their deviation is fitted with it.

    :param lines: gains, offsets, deviations of residuals.
    """
    gains, offsets, deviations = lines
    for _ in range(steps):
        residuals = _residuals(x, y, gains, offsets)
        weights = np.clip(1 - (residuals / (TUKEY * deviations[:, None])) ** 2, 0, None) ** 2
        total = weights.sum(1)
        mean_x, mean_y = weights @ x / total, weights @ y / total
        in_x, in_y = x - mean_x[:, None], y - mean_y[:, None]
        variance_x, variance_y = (weights * in_x**2).sum(1) / total, (weights * in_y**2).sum(1) / total
        before, gains = gains, np.sqrt(variance_y / variance_x)
        offsets = mean_y - gains * mean_x
        deviations = np.maximum(np.sqrt((weights * residuals**2).sum(1) / total / VARIANCE_SHARE), ROUNDING)
        if (np.abs(gains - before) < ROUNDING * gains).all():
            break
    correlation = (weights * in_x * in_y).sum(1) / total / np.sqrt(variance_x * variance_y)
    return _Lines(gains, offsets, deviations, mean_x, np.sqrt(variance_x), (weights > 0).mean(1), correlation)
