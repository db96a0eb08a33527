"""Go back to the files' grid and units."""

import numpy as np

from longflow.data.box import box_slices
from longflow.data.labels import label_manager
from longflow.errors import DataError
from longflow.nnunet import LOGITS_RESAMPLING, resample
from longflow.plans import Plans
from longflow.preprocessing.grid import inverse_order, resample_image, transposed
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.prepared import SeriesProperties


def to_input_space(volume: np.ndarray, properties: SeriesProperties, scan_index: int) -> np.ndarray:
    """Map a prepared volume to the files' grid and the units of one scan.

    :param volume: (channels, z, y, x), prepared, in the normal form.
    :param properties: of the prepared series.
    :param scan_index: position of the scan whose offset and scale are used; for a forecast the last context scan.
    :returns: float32 (channels, z, y, x); NaN outside the crop, where values are unknown.
    """
    crop = _to_crop(volume, properties)
    whole = np.full((len(crop), *properties.shape_before_crop), np.nan, dtype=np.float32)
    whole[(..., *box_slices(properties.crop))] = from_normal(
        crop, properties.offset[scan_index], properties.scale[scan_index]
    )
    return whole


def export_forecast(
    prediction: np.ndarray,
    last_context_prepared: np.ndarray,
    last_context_raw: np.ndarray,
    properties: SeriesProperties,
    scan_index: int,
) -> np.ndarray:
    """Map a forecast to the files' grid: the last context scan (LCI) as it is in its file, plus the predicted change.

    Only the change is resampled. Unchanged regions therefore stay as sharp as the input, and a prediction that equals
    the last context scan gives bit-identical voxels. Outside the crop, the forecast is the LCI.

    :param prediction: (channels, z, y, x), prepared, in the normal form.
    :param last_context_prepared: (channels, z, y, x), the LCI, prepared, in the normal form.
    :param last_context_raw: (channels, z, y, x), the LCI as in its files.
    :param properties: of the prepared series.
    :param scan_index: the LCI's position in ``properties``.
    :returns: float32 on the files' grid, in the LCI's units, neither rounded nor clipped to the files' type.
    """
    if list(last_context_raw.shape[1:]) != list(properties.shape_before_crop):
        raise DataError(
            f"The scan {properties.cases[scan_index]} has {list(last_context_raw.shape[1:])} voxels (z, y, x), but it "
            f"was prepared with {list(properties.shape_before_crop)}: its file has changed. Prepare the subject again."
        )
    # the offset cancels in a difference
    change = _to_crop(np.asarray(prediction, np.float32) - np.asarray(last_context_prepared, np.float32), properties)
    forecast = np.array(last_context_raw, dtype=np.float32)
    scale = np.asarray(properties.scale[scan_index], dtype=np.float32)[:, None, None, None]
    forecast[(..., *box_slices(properties.crop))] += scale * change
    return forecast


def labels_of_logits(logits: np.ndarray, plans: Plans) -> np.ndarray:
    """Convert logits to labels by nnU-Net's label handling (regions in their order).

    :param logits: (outputs, z, y, x), one output for each label or region of the plans.
    :param plans: with the labels.
    :returns: (z, y, x), int16.
    """
    manager = label_manager(plans.labels, plans.regions_class_order)
    return np.asarray(manager.convert_logits_to_segmentation(logits)).astype(np.int16)


def export_labels(logits: np.ndarray, properties: SeriesProperties, plans: Plans) -> np.ndarray:
    """Compute labels on the files' grid, as nnU-Net exports them: the logits are resampled, then labelled.

    :param logits: (outputs, z, y, x), prepared.
    :param properties: of the prepared scan.
    :param plans: with the labels.
    :returns: (z, y, x), int16, on the files' grid; 0 outside the crop.
    """
    _check_shape(logits, properties)
    shape, spacing = properties.transposed_crop_shape, properties.transposed_spacing
    resampled = resample(logits, shape, properties.spacing, spacing, LOGITS_RESAMPLING)
    labels = labels_of_logits(resampled, plans)
    whole = np.zeros(properties.shape_before_crop, dtype=np.int16)
    whole[box_slices(properties.crop)] = transposed(labels[None], inverse_order(properties.transpose))[0]
    return whole


def _to_crop(volume: np.ndarray, properties: SeriesProperties) -> np.ndarray:
    """Undo resampling and transposition: (channels, z, y, x) prepared to the crop on the files' grid."""
    _check_shape(volume, properties)
    resampled = resample_image(
        volume, properties.transposed_crop_shape, properties.spacing, properties.transposed_spacing
    )
    return transposed(resampled, inverse_order(properties.transpose))


def _check_shape(volume: np.ndarray, properties: SeriesProperties) -> None:
    if list(volume.shape[1:]) != list(properties.shape):
        raise DataError(
            f"A volume of {list(volume.shape[1:])} voxels does not fit the prepared series of {properties.subject}, "
            f"which has {list(properties.shape)}."
        )
