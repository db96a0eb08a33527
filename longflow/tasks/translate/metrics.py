"""How far a translation is from the scan that was acquired in the requested phase, as numbers.

Volumes are (channels, z, y, x) in input units. Every number is computed for each channel and then averaged over
channels. Hounsfield units are clipped to [-1000, 1000] before anything else, prediction and reference alike, as in MFM
(B.3, section 4.4): beyond, there is metal and table. Other units are not clipped: an overshoot is an error.

Medical Flow Matching (MFM, section 4.3) has numbers of its own. They are computed next to the usual ones, so that
results can be compared with its tables:

- PSNR with 2000 as the largest value (eq. 8), whatever the image holds: of each slice, then the mean over slices, since
  its images are slices. Of CT alone: other units have no such number.
- SSIM (eq. 7) on values mapped to [0, 1], with C1 = (k1 L)^2 and C2 = k2 L, k1 = k2 = 0.01, L the largest value of the
  reference. C2 is not squared, as printed: 0.01 instead of the usual 0.0009 at L = 1. The variance of soft tissue is
  far below that, so this SSIM is close to 1 for almost any two scans of the same body. The luminance term is printed
  without its factor of 2, which would give a half for identical images; the factor is surely meant and is used here.
  Images are slices there, hence the mean over slices, and as in scikit-image means and variances are those of windows.

Where a number is not defined it is None, never a stand-in such as 0 or infinity:

- reference of a single value: PSNR and SSIM with its range (and MFM's SSIM where that value maps to 0);
- translation identical to the reference: both PSNR (they would be infinite). Slices that are identical are excluded
  from MFM's;
- no CT channel: MFM's PSNR;
- no CT made from another modality: SynthRAD's numbers (:mod:`longflow.tasks.translate.synthrad`);
- no body in the reference: MAE in the body and the through-plane error, which a single slice has not either;
- slices narrower than three voxels: SSIM;
- a structure that is not in the reference: its MAE.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from longflow.data.dataset import DatasetDescription
from longflow.errors import DataError
from longflow.evaluation.metric import INPUT_UNITS, Better, Compared, Metric, mean_of_all, mean_of_defined
from longflow.tasks.forecast.metrics import SSIM_WINDOW, check_volumes, ssim, value_range, window_size
from longflow.tasks.translate.synthrad import masked_mae, masked_ms_ssim, masked_psnr

#: Hounsfield units are clipped to these (MFM B.3)
HU_LIMITS = (-1000.0, 1000.0)

#: the largest value in MFM's PSNR (section 4.4: values from 0 to 2000)
MFM_LARGEST = 2000.0
#: of MFM's SSIM (section 4.3)
MFM_K1, MFM_K2 = 0.01, 0.01

_CLIPPED = "CT clipped to [-1000, 1000] HU"


@dataclass(frozen=True, eq=False)
class TranslationVolumes(Compared):
    """A translation with its reference.

    :param body: (z, y, x), bool, where the body is in the reference.
    :param ct: of each channel, whether its units are Hounsfield's.
    :param other_modality: whether the scan that was translated is of another modality: SynthRAD's numbers are computed.
    :raises DataError: shapes differ, or a voxel is NaN or infinite.
    """

    body: np.ndarray
    ct: Sequence[bool]
    other_modality: bool = False

    def __post_init__(self):
        check_volumes(translation=self.prediction, reference=self.reference)
        _check_shape("mask of the body", self.body, self.reference)
        _check_channels(self.ct, self.reference)

    @cached_property
    def channels(self) -> list["TranslationChannel"]:
        """Each channel alone, in its limits; metrics share what is computed of it."""
        return [
            TranslationChannel(
                in_limits(self.prediction[c], is_ct),
                in_limits(self.reference[c], is_ct),
                HU_LIMITS if is_ct else (float(self.reference[c].min()), float(self.reference[c].max())),
                is_ct,
            )
            for c, is_ct in enumerate(self.ct)
        ]


@dataclass(frozen=True, eq=False)
class TranslationChannel:
    """One channel of a translation; volumes (z, y, x), float64, Hounsfield units clipped.

    :param limits: lowest and highest value, mapped to 0 and 1 by MFM's SSIM.
    """

    translation: np.ndarray
    reference: np.ndarray
    limits: tuple[float, float]
    is_ct: bool

    @cached_property
    def error(self) -> np.ndarray:
        """Translation - reference."""
        return self.translation - self.reference

    @cached_property
    def range(self) -> float:
        """Range of the reference."""
        return value_range(self.reference)

    @cached_property
    def rmse(self) -> float:
        return math.sqrt(np.mean(np.square(self.error)))


def _over_channels(
    volumes: TranslationVolumes, of: Callable[[TranslationChannel, TranslationVolumes], float | None]
) -> float | None:
    """Return the mean of a number over the channels in which it is defined."""
    return mean_of_defined(of(channel, volumes) for channel in volumes.channels)


def _body_mae_of(channel: TranslationChannel, volumes: TranslationVolumes) -> float | None:
    return _mean_where(np.abs(channel.error), volumes.body)


def _mae_of(channel: TranslationChannel, volumes: TranslationVolumes) -> float:
    return float(np.abs(channel.error).mean())


def _psnr(volumes: TranslationVolumes) -> float | None:
    return mean_of_all(
        20 * math.log10(channel.range / channel.rmse) if channel.range > 0 and channel.rmse > 0 else None
        for channel in volumes.channels
    )


def _psnr_mfm(volumes: TranslationVolumes) -> float | None:
    return mean_of_all(_psnr_of_slices(channel, volumes) for channel in volumes.channels if channel.is_ct)


def _psnr_of_slices(channel: TranslationChannel, volumes: TranslationVolumes) -> float | None:
    """MFM eq. 8: the mean over the slices across the largest spacing.

    An identical slice has no number (infinity); in CT both are then air alone, clipped to -1000 HU.
    """
    slices = np.moveaxis(channel.error, through_plane(volumes.spacing), 0)
    mean_squares = np.square(slices).mean(axis=(1, 2))
    return mean_of_defined(10 * math.log10(MFM_LARGEST**2 / one) for one in mean_squares if one > 0)


def _ssim_of(channel: TranslationChannel, volumes: TranslationVolumes) -> float | None:
    return ssim(channel.translation, channel.reference, channel.range) if channel.range > 0 else None


def _ssim_mfm_of(channel: TranslationChannel, volumes: TranslationVolumes) -> float | None:
    """MFM eq. 7 on values mapped from the limits to [0, 1]: the mean over the slices across the largest spacing.

    L is that of the scan, not of each slice: a slice of air alone has L = 0, for which eq. 7 says nothing. scikit-image
    squares both constants, so it is given the k2 whose square is what is printed.
    """
    low, high = channel.limits
    if not low < high:
        return None
    largest = (min(max(float(channel.reference.max()), low), high) - low) / (high - low)
    across = through_plane(volumes.spacing)
    x, y = np.moveaxis(channel.reference, across, 0), np.moveaxis(channel.translation, across, 0)
    if largest == 0 or min(x.shape[1:]) < 3:
        return None
    settings = {"data_range": largest, "K1": MFM_K1, "K2": math.sqrt(MFM_K2 / largest)}
    settings["win_size"] = window_size(x.shape[1:])

    def mapped(image: np.ndarray) -> np.ndarray:
        return (np.clip(image, low, high) - low) / (high - low)

    return float(
        np.mean([structural_similarity(*map(mapped, slices), **settings) for slices in zip(x, y, strict=True)])
    )


def _through_plane_error_of(channel: TranslationChannel, volumes: TranslationVolumes) -> float | None:
    """The change of the error from slice to slice is the error of the change."""
    across = through_plane(volumes.spacing)
    error, body = np.moveaxis(channel.error, across, 0), np.moveaxis(volumes.body, across, 0)
    mean = _mean_where(np.abs(np.diff(error, axis=0)), body[1:] & body[:-1])
    return None if mean is None else mean / volumes.spacing[across]


def _synthrad(volumes: TranslationVolumes, of: Callable[..., float | None]) -> float | None:
    """Return one of SynthRAD's numbers: the mean over CT channels; None where MR and CT are not translated."""
    if not volumes.other_modality:
        return None
    pairs = zip(volumes.prediction, volumes.reference, volumes.ct, strict=True)
    return mean_of_all(of(translation, reference, volumes.body) for translation, reference, is_ct in pairs if is_ct)


def _metric(name: str, of: Callable, definition: str, better: Better | None = None, **shown: Any) -> Metric:
    """A metric that is the mean of a number over channels."""
    return Metric(name, "translate", partial(_over_channels, of=of), f"{definition}; {_CLIPPED}", better, **shown)


BODY_MAE = _metric(
    *("body_mae", _body_mae_of, "mean absolute error inside the body, as it is in the reference, input units", "lower"),
    unit=INPUT_UNITS,
    heading="MAE in the body",
    format=".4g",
)
MAE = _metric(
    *("mae", _mae_of, "mean absolute error over the whole image (MFM eq. 6), input units", "lower"),
    unit=INPUT_UNITS,
    heading="MAE, whole image",
    format=".4g",
)
PSNR = Metric(
    *("psnr", "translate", _psnr),
    f"peak signal-to-noise ratio, dB, the data range being the reference's range; {_CLIPPED}; undefined for identical "
    "images",
    *("higher", "dB", "PSNR", ".2f"),
)
PSNR_MFM = Metric(
    *("psnr_mfm", "translate", _psnr_mfm),
    f"peak signal-to-noise ratio with 2000 as data range, dB (MFM eq. 8): mean over slices; {_CLIPPED}; CT channels "
    "only; slices that are identical are excluded",
    *("higher", "dB", "PSNR as in MFM", ".2f"),
)
SSIM = _metric(
    *("ssim", _ssim_of),
    f"mean structural similarity (scikit-image), windows of {SSIM_WINDOW} voxels along each axis or the largest odd "
    "number that fits, data range = the reference's range, both images shifted by the reference's minimum; slice by "
    "slice where an axis has fewer than 3 voxels",
    better="higher",
    heading="SSIM",
)
SSIM_MFM = Metric(
    *("ssim_mfm", "translate", partial(_over_channels, of=_ssim_mfm_of)),
    "SSIM as MFM prints it (eq. 7, with the factor of 2 that its luminance term lacks): mean over slices, windows of "
    f"{SSIM_WINDOW} x {SSIM_WINDOW} pixels, values mapped to [0, 1] (CT from [-1000, 1000] HU, others from the "
    "reference's range, clipped), C1 = (0.01 L)^2, C2 = 0.01 L, L = largest value of the reference",
    better="higher",
    heading="SSIM as in MFM",
)
THROUGH_PLANE_ERROR = _metric(
    *("through_plane_error", _through_plane_error_of),
    "mean of |change from slice to slice - the same in the reference| inside the body, input units per mm, along the "
    "axis of the largest spacing: how well slices fit each other",
    better="lower",
    unit="input units/mm",
    heading="through-plane error",
    format=".3g",
)

_OF_SYNTHRAD = (
    "as in SynthRAD 2025: inside the body of the reference, both limited to [-1024, 3000] HU; of CT made from another "
    "modality alone"
)
MAE_SYNTHRAD = Metric(
    *("mae_synthrad", "translate", partial(_synthrad, of=masked_mae)),
    f"mean absolute error {_OF_SYNTHRAD}",
    *("lower", "HU", "MAE as in SynthRAD", ".4g"),
)
PSNR_SYNTHRAD = Metric(
    *("psnr_synthrad", "translate", partial(_synthrad, of=masked_psnr)),
    f"peak signal-to-noise ratio {_OF_SYNTHRAD}; data range 4024 HU",
    *("higher", "dB", "PSNR as in SynthRAD", ".2f"),
)
MS_SSIM_SYNTHRAD = Metric(
    *("ms_ssim_synthrad", "translate", partial(_synthrad, of=masked_ms_ssim)),
    f"structural similarity at five scales {_OF_SYNTHRAD}; data range 4024 HU",
    better="higher",
    heading="MS-SSIM as in SynthRAD",
)

#: in the order of metrics.csv
TRANSLATION_METRICS = (
    *(BODY_MAE, MAE, PSNR, PSNR_MFM, SSIM, SSIM_MFM, THROUGH_PLANE_ERROR),
    *(MAE_SYNTHRAD, PSNR_SYNTHRAD, MS_SSIM_SYNTHRAD),
)

Metrics = dict[str, float | None]


def label_mae(
    translation: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
    structures: Mapping[str, Sequence[int]],
    ct: Sequence[bool],
) -> Metrics:
    """Compute the mean absolute error inside each structure of the reference; CT clipped to [-1000, 1000] HU.

    :param translation: (channels, z, y, x), input units.
    :param reference: likewise.
    :param labels: (z, y, x), of the reference.
    :param structures: label values of each structure by its name.
    :param ct: of each channel, whether its units are Hounsfield's.
    :returns: input units, mean over channels, by structure.
    :raises DataError: shapes differ, or a voxel is NaN or infinite.
    """
    check_volumes(translation=translation, reference=reference)
    _check_shape("label map", labels, reference)
    _check_channels(ct, reference)
    errors: dict[str, list[float | None]] = {name: [] for name in structures}
    for c, is_ct in enumerate(ct):
        error = np.abs(in_limits(translation[c], is_ct) - in_limits(reference[c], is_ct))
        for name, values in structures.items():
            errors[name].append(_mean_where(error, np.isin(labels, values)))
    return {name: mean_of_defined(of_channels) for name, of_channels in errors.items()}


def body_mae(translation: np.ndarray, reference: np.ndarray, body: np.ndarray, ct: Sequence[bool]) -> float | None:
    """Compute ``body_mae`` alone.

    :param body: (z, y, x), bool.
    """
    return label_mae(translation, reference, body, {"body": (1,)}, ct)["body"]


def untranslated(
    source: np.ndarray, reference: np.ndarray, body: np.ndarray, description: DatasetDescription
) -> np.ndarray:
    """Return what a translation is compared with: the scan as it is, where both phases have the same units.

    Where they are different modalities: each channel by the linear map that fits the reference best inside its body
    (least squares), which no method knows. It is what a change of units alone could reach.

    :param source: (channels, z, y, x), the scan that was translated.
    :param reference: likewise, the acquired scan of the requested phase.
    :param body: (z, y, x), bool, where the body is in the reference; the whole image where it is empty.
    :param description: dataset.json.
    :returns: (channels, z, y, x).
    """
    if not description.phase_channels:
        return source
    inside = body if body.any() else np.ones_like(body)
    mapped = np.empty(source.shape, dtype=np.float32)
    for one, x, y in zip(mapped, source.astype(np.float64), reference, strict=True):
        gain, offset = np.polyfit(x[inside], y[inside], 1) if np.ptp(x[inside]) > 0 else (0.0, y[inside].mean())
        one[...] = gain * x + offset
    return mapped


def in_limits(channel: np.ndarray, is_ct: bool) -> np.ndarray:
    """Return one channel in float64, Hounsfield units clipped."""
    channel = channel.astype(np.float64)
    return np.clip(channel, *HU_LIMITS, out=channel) if is_ct else channel


def through_plane(spacing: Sequence[float]) -> int:
    """Return the axis across the slices: that of the largest spacing; the first of those as large, within 1 %.

    >>> through_plane((1.0, 1.0, 1.001)), through_plane((0.7, 3.0, 0.7))
    (0, 1)
    """
    return int(np.argmax(np.asarray(spacing) >= 0.99 * max(spacing)))


def _mean_where(values: np.ndarray, mask: np.ndarray) -> float | None:
    return float(values[mask].mean()) if mask.any() else None


def _check_channels(ct: Sequence[bool], reference: np.ndarray) -> None:
    if len(ct) != len(reference):
        raise DataError(
            f"The scan has {len(reference)} channels. Expected: {len(ct)}, for which it is known whether they are CT."
        )


def _check_shape(name: str, mask: np.ndarray, reference: np.ndarray) -> None:
    if mask.shape != reference.shape[1:]:
        raise DataError(f"The {name} has {mask.shape} voxels (z, y, x), the reference {reference.shape[1:]}.")
