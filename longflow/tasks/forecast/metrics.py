"""How far a forecast is from the scan that was acquired, as numbers.

Volumes are (channels, z, y, x) in input units. Every number is computed for each channel with that channel's own range
and then averaged over channels. Where a number is not defined it is None, never a stand-in such as 0 or infinity:

- target of a single value (range 0): all but RMSE and MAE;
- forecast identical to the target: PSNR (it would be infinite);
- no voxel changed: RMSE, MAE and NRMSE of the changed region;
- last context image identical to the target: skill.
"""

import math

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from longflow.errors import DataError

#: a voxel belongs to the changed region where |target - last context image| exceeds this share of the target's range
CHANGED_THRESHOLD = 0.1

#: the largest window of SSIM, voxels along each axis (the default of scikit-image)
SSIM_WINDOW = 7

#: voxels that SSIM works on at a time
_SSIM_VOXELS = 2_000_000

#: what each number means, in the order of tables; written beside every result
DEFINITIONS = {
    "rmse": "root mean squared error, input units",
    "mae": "mean absolute error, input units",
    "nrmse": "RMSE / range of the target (maximum - minimum)",
    "psnr": "peak signal-to-noise ratio, dB, the data range being the target's range; undefined for identical images",
    "ssim": (
        f"mean structural similarity (scikit-image), windows of {SSIM_WINDOW} voxels along each axis or the largest "
        "odd number that fits, data range = the target's range, both images shifted by the target's minimum; slice by "
        "slice where an axis has fewer than 3 voxels"
    ),
    "changed_share": (
        "share of voxels in the changed region: "
        f"|target - last context image| > {CHANGED_THRESHOLD:g} x range of the target"
    ),
    "changed_rmse": "RMSE over the changed region alone, input units; undefined where it is empty",
    "changed_mae": "MAE over the changed region alone, input units; undefined where it is empty",
    "changed_nrmse": "RMSE over the changed region alone / range of the (whole) target; undefined where it is empty",
    "skill": "1 - RMSE / RMSE of the last context image (LCI): 1 perfect, 0 as LCI, negative worse than LCI",
}


def target_metrics(forecast: np.ndarray, target: np.ndarray, last_context: np.ndarray) -> dict[str, float | None]:
    """All numbers of :data:`DEFINITIONS` for one target.

    :param forecast, target, last_context: (channels, z, y, x), input units.
    :raises DataError: shapes differ, or a voxel is NaN or infinite.
    """
    check_volumes(forecast=forecast, target=target, last_context=last_context)
    channels = [_channel_metrics(*volumes) for volumes in zip(forecast, target, last_context, strict=True)]
    metrics = {name: mean_of_defined([channel[name] for channel in channels]) for name in DEFINITIONS}
    if any(channel["psnr"] is None for channel in channels):
        metrics["psnr"] = None  # infinite in one channel is infinite on average; it must not merely drop out
    return metrics


def nrmse(forecast: np.ndarray, target: np.ndarray) -> float | None:
    """RMSE / range of the target, mean over channels; None where every channel of the target is constant.

    :param forecast, target: (channels, z, y, x).
    """
    ranges = [value_range(channel) for channel in target]
    return mean_of_defined(
        [_rmse(forecast[c] - target[c]) / ranges[c] if ranges[c] > 0 else None for c in range(len(target))]
    )


def value_range(volume: np.ndarray) -> float:
    """Maximum - minimum."""
    return float(volume.max()) - float(volume.min())


def _channel_metrics(forecast: np.ndarray, target: np.ndarray, last_context: np.ndarray) -> dict[str, float | None]:
    """The numbers of one channel; volumes (z, y, x)."""
    data_range = value_range(target)
    changed, rmse_of_lci = _change(target, last_context, data_range)
    error = np.subtract(forecast, target, dtype=np.float64)
    rmse, error_in_changed = _rmse(error), error[changed]

    metrics: dict[str, float | None] = dict.fromkeys(DEFINITIONS)
    metrics["rmse"] = rmse
    metrics["mae"] = float(np.abs(error).mean())
    if data_range == 0:
        return metrics
    metrics["nrmse"] = rmse / data_range
    metrics["changed_share"] = float(changed.mean())
    if rmse > 0:
        metrics["psnr"] = float(peak_signal_noise_ratio(target, forecast, data_range=data_range))
    metrics["ssim"] = ssim(forecast, target, data_range)
    if error_in_changed.size:
        metrics["changed_rmse"] = _rmse(error_in_changed)
        metrics["changed_mae"] = float(np.abs(error_in_changed).mean())
        metrics["changed_nrmse"] = metrics["changed_rmse"] / data_range
    if rmse_of_lci > 0:
        metrics["skill"] = 1 - rmse / rmse_of_lci
    return metrics


def _change(target: np.ndarray, last_context: np.ndarray, data_range: float) -> tuple[np.ndarray, float]:
    """The changed region as a mask, and the RMSE of the last context image."""
    change = np.subtract(last_context, target, dtype=np.float64)
    return np.abs(change) > CHANGED_THRESHOLD * data_range, _rmse(change)


def ssim(forecast: np.ndarray, target: np.ndarray, data_range: float) -> float | None:
    """Mean structural similarity of one channel (z, y, x).

    SSIM presumes values in [0, data_range]: with Hounsfield units as they are, means near zero make its luminance term
    meaningless. So both images are shifted by the target's minimum, which changes nothing where that is zero.

    The window is a cube of :data:`SSIM_WINDOW` voxels, or of the largest odd number that fits the shortest axis. Along
    an axis of one or two voxels no window has an extent: there SSIM is the mean over 2D slices. None where slices are
    themselves narrower than three voxels.

    scikit-image needs about ten volumes of float64, so the first axis is worked on in slabs. Each slab is read with
    half a window on both sides; scikit-image leaves that margin out of its mean, so the slabs add up to the whole.
    """
    thin = [axis for axis, size in enumerate(target.shape) if size < 3]
    if len(thin) > 1:
        return None
    if thin:
        pairs = zip(np.moveaxis(forecast, thin[0], 0), np.moveaxis(target, thin[0], 0), strict=True)
        return float(np.mean([_ssim_of_slab(*slices, target.min(), data_range) for slices in pairs]))
    margin = window_size(target.shape) // 2
    inner = target.shape[0] - 2 * margin
    thickness = max(1, _SSIM_VOXELS // math.prod(target.shape[1:]))
    total = 0.0
    for start in range(0, inner, thickness):
        stop = min(start + thickness, inner)
        slab = slice(start, stop + 2 * margin)
        window = window_size(target.shape)
        total += (stop - start) * _ssim_of_slab(forecast[slab], target[slab], target.min(), data_range, window)
    return total / inner


def _ssim_of_slab(forecast, target, minimum, data_range: float, window: int | None = None) -> float:
    shifted = [np.subtract(volume, minimum, dtype=np.float64) for volume in (target, forecast)]
    return float(structural_similarity(*shifted, data_range=data_range, win_size=window or window_size(target.shape)))


def window_size(shape: tuple[int, ...]) -> int:
    """The largest odd number of voxels that fits, at most :data:`SSIM_WINDOW`."""
    shortest = min(*shape, SSIM_WINDOW)
    return shortest - (shortest % 2 == 0)


def check_volumes(**volumes: np.ndarray) -> None:
    """:raises DataError: the shapes differ, or a voxel is NaN or infinite; the volume is named."""
    shapes = {name: volume.shape for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"The shapes differ: {', '.join(f'{name} {shape}' for name, shape in shapes.items())}.")
    for name, volume in volumes.items():
        if not np.isfinite(volume).all():
            raise DataError(f"The {name.replace('_', ' ')} has {(~np.isfinite(volume)).sum()} NaN or infinite voxels.")


def _rmse(error: np.ndarray) -> float:
    return math.sqrt(np.mean(np.square(error, dtype=np.float64)))


def mean_of_defined(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
