"""How far a forecast is from the acquired scan, as numbers.

Volumes are (channels, z, y, x) in input units. Every number is computed for each channel with that channel's own range
and then averaged over channels. Where a number is not defined it is None, never a stand-in such as 0 or infinity:

- reference of a single value (range 0): all but RMSE and MAE;
- forecast identical to the reference: PSNR (it would be infinite);
- forecast and reference with nothing in common: the error after matching;
- no voxel changed: RMSE, MAE, NRMSE and edges of the changed region;
- last context image identical to the reference: skill.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy.special import ndtr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from longflow.data.intensity_map import fit_intensity_map
from longflow.errors import DataError
from longflow.evaluation.metric import INPUT_UNITS, Better, Compared, Metric, mean_of_all, mean_of_defined

#: a voxel belongs to the changed region where |reference - last context image| exceeds this share of the range
CHANGED_THRESHOLD = 0.1

#: the largest window of SSIM, voxels along each axis (the default of scikit-image)
SSIM_WINDOW = 7

#: voxels that SSIM works on at a time
_SSIM_VOXELS = 2_000_000


@dataclass(frozen=True, eq=False)
class ForecastVolumes(Compared):
    """A forecast with its reference and the last context image.

    :param last_context: (channels, z, y, x), input units.
    :raises DataError: shapes differ, or a voxel is NaN or infinite.
    """

    last_context: np.ndarray

    def __post_init__(self):
        check_volumes(forecast=self.prediction, reference=self.reference, last_context=self.last_context)

    @cached_property
    def channels(self) -> list["ForecastChannel"]:
        """Each channel alone; metrics share what is computed of it."""
        volumes = zip(self.prediction, self.reference, self.last_context, strict=True)
        return [ForecastChannel(*of_channel) for of_channel in volumes]


@dataclass(frozen=True, eq=False)
class ForecastChannel:
    """One channel of a forecast; volumes (z, y, x), input units."""

    forecast: np.ndarray
    reference: np.ndarray
    last_context: np.ndarray

    @cached_property
    def range(self) -> float:
        """Range of the reference."""
        return value_range(self.reference)

    @cached_property
    def error(self) -> np.ndarray:
        """Forecast - reference, float64."""
        return np.subtract(self.forecast, self.reference, dtype=np.float64)

    @cached_property
    def rmse(self) -> float:
        return _rmse(self.error)

    @cached_property
    def matched_rmse(self) -> float | None:
        """RMSE after the robust map of the forecast onto the reference; None where there is none."""
        found = fit_intensity_map(self.forecast, self.reference)
        if found.identity_because:
            return None
        slices = zip(self.forecast, self.reference, strict=True)  # one at a time: no volume of float64
        return _rmse(np.array([_rmse(found.gain * one - other + found.offset) for one, other in slices]))

    @cached_property
    def change(self) -> tuple[np.ndarray, float]:
        """The changed region as a mask, and the RMSE of the last context image."""
        change = np.subtract(self.last_context, self.reference, dtype=np.float64)
        return np.abs(change) > CHANGED_THRESHOLD * self.range, _rmse(change)

    @cached_property
    def changed_error(self) -> np.ndarray | None:
        """The error in the changed region, flat; None where the region is empty or not defined."""
        if not self.range:
            return None
        error = self.error[self.change[0]]
        return error if error.size else None


def _over_channels(volumes: ForecastVolumes, of: Callable[[ForecastChannel], float | None]) -> float | None:
    """Return the mean of a number over the channels in which it is defined."""
    return mean_of_defined(of(channel) for channel in volumes.channels)


def _mae_of(channel: ForecastChannel) -> float:
    return float(np.abs(channel.error).mean())


def _rmse_of(channel: ForecastChannel) -> float:
    return channel.rmse


def _nrmse_of(channel: ForecastChannel) -> float | None:
    return channel.rmse / channel.range if channel.range else None


def _matched_nrmse_of(channel: ForecastChannel) -> float | None:
    return channel.matched_rmse / channel.range if channel.range and channel.matched_rmse is not None else None


def _psnr_of(channel: ForecastChannel) -> float | None:
    if not channel.range or not channel.rmse:
        return None
    return float(peak_signal_noise_ratio(channel.reference, channel.forecast, data_range=channel.range))


def _psnr(volumes: ForecastVolumes) -> float | None:
    return mean_of_all(_psnr_of(channel) for channel in volumes.channels)


def _ssim_of(channel: ForecastChannel) -> float | None:
    return ssim(channel.forecast, channel.reference, channel.range) if channel.range else None


def _changed_share_of(channel: ForecastChannel) -> float | None:
    return float(channel.change[0].mean()) if channel.range else None


def _changed_rmse_of(channel: ForecastChannel) -> float | None:
    return None if channel.changed_error is None else _rmse(channel.changed_error)


def _changed_mae_of(channel: ForecastChannel) -> float | None:
    return None if channel.changed_error is None else float(np.abs(channel.changed_error).mean())


def _changed_nrmse_of(channel: ForecastChannel) -> float | None:
    return None if channel.changed_error is None else _rmse(channel.changed_error) / channel.range


def _changed_null_of(channel: ForecastChannel) -> float | None:
    if not channel.range or not channel.change[0].any():
        return None
    change = np.subtract(channel.reference, channel.last_context, dtype=np.float64)
    return null_of_region(change, CHANGED_THRESHOLD * channel.range) / channel.range


def null_of_region(change: np.ndarray, threshold: float) -> float:
    """Compute the RMSE, in the changed region, of the last context image without its noise: a forecast of no change.

    The noise of both scans brings voxels into the region, and there the last context image has the worst of it. With
    independent normal noise of SD s in the change d, a share p of the region is expected from noise alone. An image
    without noise has the squared error d^2 / 4 + s^2 / 4 at such a voxel (half of d is expected to be the noise of
    either scan), and d^2 - s^2 / 2 at one that changed.

    :param change: reference - last context image, any unit.
    :param threshold: the region is where |change| exceeds it; at least one voxel.
    :returns: the same unit; without noise the RMSE of the last context image.
    """
    region = np.abs(change) > threshold
    squares, variance = float(np.mean(change[region] ** 2)), noise_of_change(change) ** 2
    if not variance:
        return math.sqrt(squares)
    level = threshold / math.sqrt(variance)
    tail = float(ndtr(-level))  # of one side
    share = min(1.0, 2 * tail * np.count_nonzero(change) / np.count_nonzero(region))
    of_noise = variance * (1 + level * math.exp(-(level**2) / 2) / math.sqrt(2 * math.pi) / tail) if tail else 0.0
    gained = share * (0.75 * of_noise - variance / 4) + (1 - share) * variance / 2
    return math.sqrt(max(0.0, squares - gained))


def noise_of_change(change: np.ndarray) -> float:
    """Estimate the SD of the noise in the difference of two scans, from neighbouring voxels.

    Anatomy that changed is smooth, or in few voxels: the median ignores both. Voxels without any difference (outside
    the body of a masked scan) are excluded. Noise that is alike in neighbouring voxels, as after resampling, is
    underestimated.

    :param change: (z, y, x).
    :returns: 0 where no neighbours differ.
    """
    along = np.moveaxis(change, int(np.argmax(change.shape)), 0)
    steps = np.abs(along[1:] - along[:-1])[(along[1:] != 0) & (along[:-1] != 0)]
    # of normal noise, the median of |steps| is 0.6745 x sqrt(2) SD
    return float(np.median(steps)) / (0.6745 * math.sqrt(2)) if steps.size else 0.0


def _edges_of(channel: ForecastChannel) -> float | None:
    if not channel.range or not channel.change[0].any():
        return None
    # the mean of the magnitude would not do: it is that of a sharp edge for a blurred one, since both climb as high
    forecast, reference = (
        _rmse(gradient_magnitude(volume)[channel.change[0]]) for volume in (channel.forecast, channel.reference)
    )
    return forecast / reference if reference else None


def _skill_of(channel: ForecastChannel) -> float | None:
    if not channel.range or not channel.change[1]:
        return None
    return 1 - channel.rmse / channel.change[1]


def _metric(name: str, of: Callable, definition: str, better: Better | None = None, **shown: Any) -> Metric:
    """A metric that is the mean of a number over channels."""
    return Metric(name, "forecast", partial(_over_channels, of=of), definition, better, **shown)


RMSE = _metric("rmse", _rmse_of, "root mean squared error, input units", "lower", unit=INPUT_UNITS)
MAE = _metric("mae", _mae_of, "mean absolute error, input units", "lower", unit=INPUT_UNITS, heading="MAE\n")
NRMSE = _metric("nrmse", _nrmse_of, "RMSE / range of the reference (maximum - minimum)", "lower", heading="NRMSE")
MATCHED_NRMSE = _metric(
    *("matched_nrmse", _matched_nrmse_of),
    "NRMSE after the intensities are mapped onto the reference's by one gain and one offset per channel, fitted to the "
    "tissue that is alike in both; so a scanner's change of units is no error. Undefined where nothing is alike",
    better="lower",
    heading="NRMSE,\nmatched",
)
PSNR = Metric(
    *("psnr", "forecast", _psnr),
    "peak signal-to-noise ratio, dB, the data range being the reference's range; undefined for identical images",
    *("higher", "dB", "PSNR", ".2f"),
)
SSIM = _metric(
    *("ssim", _ssim_of),
    f"mean structural similarity (scikit-image), windows of {SSIM_WINDOW} voxels along each axis or the largest odd "
    "number that fits, data range = the reference's range, both images shifted by the reference's minimum; slice by "
    "slice where an axis has fewer than 3 voxels",
    better="higher",
    unit="%",
    heading="SSIM",
    format=".2f",
    scale=100,
)
CHANGED_SHARE = _metric(
    *("changed_share", _changed_share_of),
    "share of voxels in the changed region: "
    f"|reference - last context image| > {CHANGED_THRESHOLD:g} x range of the reference",
)
CHANGED_RMSE = _metric(
    *("changed_rmse", _changed_rmse_of),
    "RMSE over the changed region alone, input units; undefined where it is empty",
    better="lower",
    unit=INPUT_UNITS,
)
CHANGED_MAE = _metric(
    *("changed_mae", _changed_mae_of),
    "MAE over the changed region alone, input units; undefined where it is empty",
    better="lower",
    unit=INPUT_UNITS,
)
CHANGED_NRMSE = _metric(
    *("changed_nrmse", _changed_nrmse_of),
    "RMSE over the changed region alone / range of the (whole) reference; undefined where it is empty",
    better="lower",
    heading="NRMSE,\nchanged region",
)
CHANGED_NULL = _metric(
    *("changed_null", _changed_null_of),
    "NRMSE over the changed region of the last context image without its noise, which forecasts no change: a forecast "
    "is only better than that if changed_nrmse is below it. The noise is estimated from neighbouring voxels",
)
EDGES = _metric(
    *("edges", _edges_of),
    "root mean square of the forecast's gradient magnitude / that of the reference's, in the changed region (central "
    "differences of voxels): 1 as sharp, below 1 blurred; undefined where the region is empty or flat",
)
SKILL = _metric(
    *("skill", _skill_of),
    "1 - RMSE / RMSE of the last context image (LCI): 1 perfect, 0 as LCI, negative worse than LCI",
    better="higher",
    heading="skill",
    format=".3f",
)

#: what each number means, in the order of metrics.csv
DEFINITIONS = {
    metric.name: metric.definition
    for metric in (
        RMSE,
        MAE,
        NRMSE,
        MATCHED_NRMSE,
        PSNR,
        SSIM,
        CHANGED_SHARE,
        CHANGED_RMSE,
        CHANGED_MAE,
        CHANGED_NRMSE,
        CHANGED_NULL,
        EDGES,
        SKILL,
    )
}


def nrmse(forecast: np.ndarray, reference: np.ndarray) -> float | None:
    """Compute RMSE / range of the reference, mean over channels.

    :param forecast: (channels, z, y, x).
    :param reference: likewise.
    :returns: None where every channel of the reference is constant.
    """
    ranges = [value_range(channel) for channel in reference]
    return mean_of_defined(
        _rmse(forecast[c] - reference[c]) / ranges[c] if ranges[c] > 0 else None for c in range(len(reference))
    )


def gradient_magnitude(volume: np.ndarray) -> np.ndarray:
    """Compute the length of the gradient, by central differences in units per voxel; axes of one voxel have none.

    :param volume: (z, y, x).
    :returns: (z, y, x), float32.
    """
    squares = np.zeros(volume.shape, np.float32)
    for axis in range(volume.ndim):
        if volume.shape[axis] > 1:
            squares += np.square(np.gradient(volume.astype(np.float32, copy=False), axis=axis))
    return np.sqrt(squares)


def value_range(volume: np.ndarray) -> float:
    """Return maximum - minimum."""
    return float(volume.max()) - float(volume.min())


def ssim(prediction: np.ndarray, reference: np.ndarray, data_range: float) -> float | None:
    """Compute the mean structural similarity of one channel.

    SSIM presumes values in [0, data_range]: with Hounsfield units as they are, means near zero make its luminance term
    meaningless. So both images are shifted by the reference's minimum, which changes nothing where that is zero.

    The window is a cube of :data:`SSIM_WINDOW` voxels, or of the largest odd number that fits the shortest axis. Along
    an axis of one or two voxels no window has an extent: there SSIM is the mean over 2D slices.

    scikit-image needs about ten volumes of float64, so the first axis is worked on in slabs. Each slab is read with
    half a window on both sides; scikit-image excludes that margin from its mean, so the slabs add up to the whole.

    :param prediction: (z, y, x).
    :param reference: likewise.
    :param data_range: of the reference.
    :returns: -1 to 1; None where slices are narrower than three voxels.
    """
    thin = [axis for axis, size in enumerate(reference.shape) if size < 3]
    if len(thin) > 1:
        return None
    if thin:
        pairs = zip(np.moveaxis(prediction, thin[0], 0), np.moveaxis(reference, thin[0], 0), strict=True)
        return float(np.mean([_ssim_of_slab(*slices, reference.min(), data_range) for slices in pairs]))
    margin = window_size(reference.shape) // 2
    inner = reference.shape[0] - 2 * margin
    thickness = max(1, _SSIM_VOXELS // math.prod(reference.shape[1:]))
    total = 0.0
    for start in range(0, inner, thickness):
        stop = min(start + thickness, inner)
        slab = slice(start, stop + 2 * margin)
        window = window_size(reference.shape)
        similarity = _ssim_of_slab(prediction[slab], reference[slab], reference.min(), data_range, window)
        total += (stop - start) * similarity
    return total / inner


def _ssim_of_slab(prediction, reference, minimum, data_range: float, window: int | None = None) -> float:
    shifted = [np.subtract(volume, minimum, dtype=np.float64) for volume in (reference, prediction)]
    window = window or window_size(reference.shape)
    return float(structural_similarity(*shifted, data_range=data_range, win_size=window))


def window_size(shape: tuple[int, ...]) -> int:
    """Return the largest odd number of voxels that fits, at most :data:`SSIM_WINDOW`."""
    shortest = min(*shape, SSIM_WINDOW)
    return shortest - (shortest % 2 == 0)


def check_volumes(**volumes: np.ndarray) -> None:
    """Check that volumes have one shape and that all voxels are finite.

    :raises DataError: they do not; the volume is named.
    """
    shapes = {name: volume.shape for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"The shapes differ: {', '.join(f'{name} {shape}' for name, shape in shapes.items())}.")
    for name, volume in volumes.items():
        if not np.isfinite(volume).all():
            raise DataError(f"The {name.replace('_', ' ')} has {(~np.isfinite(volume)).sum()} NaN or infinite voxels.")


def _rmse(error: np.ndarray) -> float:
    return math.sqrt(np.mean(np.square(error, dtype=np.float64)))
