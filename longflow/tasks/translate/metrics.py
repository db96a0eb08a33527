"""How far a translation is from the scan that was acquired in the wanted phase, as numbers.

Volumes are (channels, z, y, x) in input units. Every number is computed for each channel and then averaged over
channels. Hounsfield units are clipped to [-1000, 1000] before anything else, prediction and truth alike, as in MFM
(B.3, section 4.4): beyond, there is metal and table. Other units are not clipped: an overshoot is an error.

Medical Flow Matching (MFM, section 4.3) has numbers of its own, which stand beside the usual ones so that results can
be laid beside its tables:

- PSNR with 2000 as the largest value (eq. 8), whatever the image holds. Of CT alone: other units have no such number.
- SSIM (eq. 7) on values mapped to [0, 1], with C1 = (k1 L)^2 and C2 = k2 L, k1 = k2 = 0.01, L the largest value of the
  truth. C2 is not squared, as printed: 0.01 instead of the usual 0.0009 at L = 1. The variance of soft tissue is far
  below that, so this SSIM is close to 1 for almost any two scans of the same body. The luminance term is printed
  without its factor of 2, which would give a half for identical images; the factor is surely meant and is used here.
  Images are slices there, hence the mean over slices, and as in scikit-image means and variances are those of windows.

Where a number is not defined it is None, never a stand-in such as 0 or infinity:

- truth of a single value: PSNR and SSIM with its range (and MFM's SSIM where that value maps to 0);
- translation identical to the truth: both PSNR (they would be infinite);
- no CT channel: MFM's PSNR;
- no body in the truth: MAE in the body and the through-plane error, which a single slice has not either;
- slices narrower than three voxels: SSIM;
- a structure that is not in the truth: its MAE.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from skimage.metrics import structural_similarity

from longflow.errors import DataError
from longflow.tasks.forecast.metrics import SSIM_WINDOW, check_volumes, mean_of_defined, ssim, value_range, window_size

#: Hounsfield units are clipped to these (MFM B.3)
HU_LIMITS = (-1000.0, 1000.0)

#: the largest value in MFM's PSNR (section 4.4: values from 0 to 2000)
MFM_LARGEST = 2000.0
#: of MFM's SSIM (section 4.3)
MFM_K1, MFM_K2 = 0.01, 0.01

_CLIPPED = "CT clipped to [-1000, 1000] HU"

#: what each number means, in the order of tables; written beside every result
DEFINITIONS = {
    "body_mae": f"mean absolute error inside the body, as it is in the truth, input units; {_CLIPPED}",
    "mae": f"mean absolute error over the whole image (MFM eq. 6), input units; {_CLIPPED}",
    "psnr": (
        f"peak signal-to-noise ratio, dB, the data range being the truth's range; {_CLIPPED}; undefined for identical "
        "images"
    ),
    "psnr_mfm": f"the same with 2000 as data range (MFM eq. 8); {_CLIPPED}; CT channels only",
    "ssim": (
        f"mean structural similarity (scikit-image), windows of {SSIM_WINDOW} voxels along each axis or the largest "
        "odd number that fits, data range = the truth's range, both images shifted by the truth's minimum; slice by "
        f"slice where an axis has fewer than 3 voxels; {_CLIPPED}"
    ),
    "ssim_mfm": (
        "SSIM as MFM prints it (eq. 7, with the factor of 2 that its luminance term lacks): mean over slices, windows "
        f"of {SSIM_WINDOW} x {SSIM_WINDOW} pixels, values mapped to [0, 1] (CT from [-1000, 1000] HU, others from the "
        "truth's range, clipped), C1 = (0.01 L)^2, C2 = 0.01 L, L = largest value of the truth"
    ),
    "through_plane_error": (
        "mean of |change from slice to slice - the same in the truth| inside the body, input units per mm, along the "
        f"axis of the largest spacing: how well slices fit each other; {_CLIPPED}"
    ),
}

Metrics = dict[str, float | None]


def translation_metrics(
    translation: np.ndarray, truth: np.ndarray, body: np.ndarray, spacing: Sequence[float], ct: Sequence[bool]
) -> Metrics:
    """All numbers of :data:`DEFINITIONS` for one scan.

    :param translation, truth: (channels, z, y, x), input units. :param body: where the body is in the truth, (z, y, x).
    :param spacing: mm, (z, y, x). :param ct: for each channel whether its units are Hounsfield's.
    :raises DataError: shapes differ, or a voxel is NaN or infinite.
    """
    check_volumes(translation=translation, truth=truth)
    _check_shape("mask of the body", body, truth)
    channels = [
        _channel_metrics(translation[c], truth[c], body, spacing, is_ct)
        for c, is_ct in enumerate(_per_channel(ct, truth))
    ]
    metrics = {name: mean_of_defined([channel[name] for channel in channels]) for name in DEFINITIONS}
    if any(channel["psnr"] is None for channel in channels):
        metrics["psnr"] = None  # infinite in one channel is infinite on average; it must not merely drop out
    if any(channel["psnr_mfm"] is None for channel, is_ct in zip(channels, ct, strict=True) if is_ct):
        metrics["psnr_mfm"] = None
    return metrics


def label_mae(
    translation: np.ndarray,
    truth: np.ndarray,
    labels: np.ndarray,
    structures: Mapping[str, Sequence[int]],
    ct: Sequence[bool],
) -> Metrics:
    """Mean absolute error inside each structure of the truth, input units; CT clipped to [-1000, 1000] HU.

    :param labels: of the truth, (z, y, x). :param structures: label values of each structure by its name.
    :raises DataError: shapes differ, or a voxel is NaN or infinite.
    """
    check_volumes(translation=translation, truth=truth)
    _check_shape("label map", labels, truth)
    errors: dict[str, list[float | None]] = {name: [] for name in structures}
    for c, is_ct in enumerate(_per_channel(ct, truth)):
        error = np.abs(in_limits(translation[c], is_ct) - in_limits(truth[c], is_ct))
        for name, values in structures.items():
            errors[name].append(_mean_where(error, np.isin(labels, values)))
    return {name: mean_of_defined(of_channels) for name, of_channels in errors.items()}


def body_mae(translation: np.ndarray, truth: np.ndarray, body: np.ndarray, ct: Sequence[bool]) -> float | None:
    """``body_mae`` of :data:`DEFINITIONS` alone."""
    return label_mae(translation, truth, body, {"body": (1,)}, ct)["body"]


def in_limits(channel: np.ndarray, is_ct: bool) -> np.ndarray:
    """One channel in float64, Hounsfield units clipped."""
    channel = channel.astype(np.float64)
    return np.clip(channel, *HU_LIMITS, out=channel) if is_ct else channel


def through_plane(spacing: Sequence[float]) -> int:
    """The axis across the slices: that of the largest spacing; the first of those that are as large, within 1 %.

    >>> through_plane((1.0, 1.0, 1.001)), through_plane((0.7, 3.0, 0.7))
    (0, 1)
    """
    return int(np.argmax(np.asarray(spacing) >= 0.99 * max(spacing)))


def _channel_metrics(
    translation: np.ndarray, truth: np.ndarray, body: np.ndarray, spacing: Sequence[float], is_ct: bool
) -> Metrics:
    """The numbers of one channel; volumes (z, y, x)."""
    limits = HU_LIMITS if is_ct else (float(truth.min()), float(truth.max()))
    translation, truth = in_limits(translation, is_ct), in_limits(truth, is_ct)
    error, data_range, across = translation - truth, value_range(truth), through_plane(spacing)
    rmse = math.sqrt(np.mean(np.square(error)))
    varies = data_range > 0
    return {
        "body_mae": _mean_where(np.abs(error), body),
        "mae": float(np.abs(error).mean()),
        "psnr": 20 * math.log10(data_range / rmse) if varies and rmse > 0 else None,
        "psnr_mfm": 20 * math.log10(MFM_LARGEST / rmse) if is_ct and rmse > 0 else None,
        "ssim": ssim(translation, truth, data_range) if varies else None,
        "ssim_mfm": _ssim_of_mfm(translation, truth, limits, across) if limits[0] < limits[1] else None,
        "through_plane_error": _through_plane_error(error, body, across, spacing[across]),
    }


def _ssim_of_mfm(translation: np.ndarray, truth: np.ndarray, limits: tuple[float, float], across: int) -> float | None:
    """MFM eq. 7 on values mapped from ``limits`` to [0, 1]: the mean over the slices across an axis.

    L is that of the scan, not of each slice: a slice of air alone has L = 0, for which eq. 7 says nothing. scikit-image
    squares both constants, so it is given the k2 whose square is what is printed.
    """
    low, high = limits
    largest = (min(max(float(truth.max()), low), high) - low) / (high - low)
    x, y = np.moveaxis(truth, across, 0), np.moveaxis(translation, across, 0)
    if largest == 0 or min(x.shape[1:]) < 3:
        return None
    settings = {"data_range": largest, "K1": MFM_K1, "K2": math.sqrt(MFM_K2 / largest)}
    settings["win_size"] = window_size(x.shape[1:])

    def mapped(image: np.ndarray) -> np.ndarray:
        return (np.clip(image, low, high) - low) / (high - low)

    return float(
        np.mean([structural_similarity(*map(mapped, slices), **settings) for slices in zip(x, y, strict=True)])
    )


def _through_plane_error(error: np.ndarray, body: np.ndarray, across: int, distance: float) -> float | None:
    """The change of the error from slice to slice is the error of the change."""
    error, body = np.moveaxis(error, across, 0), np.moveaxis(body, across, 0)
    mean = _mean_where(np.abs(np.diff(error, axis=0)), body[1:] & body[:-1])
    return None if mean is None else mean / distance


def _mean_where(values: np.ndarray, mask: np.ndarray) -> float | None:
    return float(values[mask].mean()) if mask.any() else None


def _per_channel(ct: Sequence[bool], truth: np.ndarray) -> Sequence[bool]:
    if len(ct) != len(truth):
        raise DataError(f"The scan has {len(truth)} channels, but it is said of {len(ct)} whether they are CT.")
    return ct


def _check_shape(name: str, found: np.ndarray, truth: np.ndarray) -> None:
    if found.shape != truth.shape[1:]:
        raise DataError(f"The {name} has {found.shape} voxels (z, y, x), the truth {truth.shape[1:]}.")
