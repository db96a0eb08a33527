"""What is compared of a scan: its grid, the shape of its histogram, its noise and sharpness, and a coarse picture.

Everything is cheap: a scan is thinned out first, so that a prediction does not become noticeably slower. Intensities
are compared in a normal form of their own, (x - mean) / standard deviation of the whole scan, so that units that differ
between scanners do not matter; mean and standard deviation themselves are measures, too.
"""

from dataclasses import dataclass

import numpy as np

#: cells of a picture along each axis
CELLS = 24
#: voxels along an axis that a picture and a histogram are made from, at most
MOST_ALONG_AXIS = 96
#: most slices in which noise and sharpness are measured
SLICES = 12
#: percentiles of the normal form
PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
#: the axes of files, in the order of arrays
AXES = ("z", "y", "x")
#: smallest number that is told from zero in ratios
TINY = 1e-6


@dataclass(frozen=True)
class Look:
    """What is compared of a scan.

    :param values: by name of the measure; per channel, names end with its number (``"noise 0"``).
    :param picture: (channels, 24, 24, 24), float64, mean intensities of equal parts of the field of view, in the normal
        form.
    :param mean: (channels,), in the file's units.
    :param deviation: (channels,), standard deviations, in the file's units.
    :param field: (z, y, x), field of view in mm.
    """

    values: dict[str, float]
    picture: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    field: np.ndarray


def look_at_scan(array: np.ndarray, spacing: tuple[float, ...]) -> Look:
    """Measure a scan.

    :param array: (channels, z, y, x), in the file's units, finite.
    :param spacing: (z, y, x), mm.
    :returns: its measures and picture.
    """
    field = np.array(spacing) * array.shape[1:]
    values = {f"spacing {axis}": float(np.log(step)) for axis, step in zip(AXES, spacing, strict=True)}
    values |= {f"field {axis}": float(np.log(extent)) for axis, extent in zip(AXES, field, strict=True)}
    pictures, means, deviations = [], [], []
    for channel, volume in enumerate(array):
        thin = volume[tuple(slice(None, None, -(-size // MOST_ALONG_AXIS)) for size in volume.shape)].astype(np.float32)
        mean, deviation = float(thin.mean(dtype=np.float64)), max(float(thin.std(dtype=np.float64)), TINY)
        normal = (thin - mean) / deviation
        for percentile, value in zip(PERCENTILES, np.percentile(normal, PERCENTILES), strict=True):
            values[f"histogram {percentile} {channel}"] = float(value)
        values[f"units {channel}"] = float(np.log(deviation))
        values[f"level {channel}"] = float(np.arcsinh(mean / deviation))
        noise, sharpness = _noise_and_sharpness(volume, deviation)
        values[f"noise {channel}"], values[f"sharpness {channel}"] = noise, sharpness
        pictures.append(_picture(normal.astype(np.float64)))
        means.append(mean)
        deviations.append(deviation)
    return Look(values, np.stack(pictures), np.array(means), np.array(deviations), field)


def _noise_and_sharpness(volume: np.ndarray, deviation: float) -> tuple[float, float]:
    """Measure differences of neighbouring voxels, in slices across the first axis.

    :returns: logarithms of the mean second difference relative to the standard deviation of the scan, and of the mean
        difference over two voxels relative to that over one: 0 for white noise, log 2 for a smooth image.
    """
    slices = volume[:: -(-len(volume) // SLICES)].astype(np.float32)
    second, near, far = [], [], []
    for axis in (1, 2):
        if slices.shape[axis] < 3:
            continue
        step = np.diff(slices, axis=axis)
        before, after = (
            np.take(step, range(step.shape[axis] - 1), axis),
            np.take(step, range(1, step.shape[axis]), axis),
        )
        second.append(np.abs(after - before).mean())
        near.append(np.abs(step).mean())
        far.append(np.abs(after + before).mean())
    if not near:
        return 0.0, 0.0
    noise = np.log(np.mean(second) / deviation + TINY)
    return float(noise), float(np.log((np.mean(far) + TINY * deviation) / (np.mean(near) + TINY * deviation)))


def _picture(volume: np.ndarray) -> np.ndarray:
    """Return means over equal parts of a volume: (24, 24, 24).

    They are rounded, so that they do not depend on the number of threads that add them up.
    """
    for axis, size in enumerate(volume.shape):
        volume = np.moveaxis(np.tensordot(_averages(size), volume, (1, axis)), 0, axis)
    return np.round(volume, 6)


def _averages(size: int) -> np.ndarray:
    """Return the (24, size) weights by which voxels along an axis count in each part, by the length that they share."""
    borders = np.linspace(0, size, CELLS + 1)
    places = np.arange(size)
    shared = np.minimum(borders[1:, None], places + 1) - np.maximum(borders[:-1, None], places)
    weights = np.clip(shared, 0, None)
    return weights / weights.sum(1, keepdims=True)


def halved(picture: np.ndarray) -> np.ndarray:
    """Return means of 2 x 2 x 2 cells: (channels, 12, 12, 12)."""
    half = CELLS // 2
    return picture.reshape(-1, half, 2, half, 2, half, 2).mean((2, 4, 6))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two pictures; 0 where one is constant."""
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norm if norm > TINY else 0.0


def stretched(correlation: float) -> float:
    """Return Fisher's transform of a correlation, whose spread depends little on its value."""
    return float(np.arctanh(np.clip(correlation, -0.9999, 0.9999)))
