"""Go back to the files' grid and units."""

from collections.abc import Iterable

import numpy as np

from longflow.data.box import box_slices
from longflow.data.labels import label_manager
from longflow.errors import DataError
from longflow.nnunet import LabelManager
from longflow.plans import Plans
from longflow.preprocessing.grid import inverse_order, resample_image, transposed
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.prepared import SeriesProperties
from longflow.preprocessing.resampling import cubic_slabs, linear_slices

#: a probability of one, in bytes
CERTAIN = 255


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
    forecast = np.array(last_context_raw, dtype=np.float32)
    crop = transposed(forecast[(..., *box_slices(properties.crop))], properties.transpose)
    scale = np.asarray(properties.scale[scan_index], dtype=np.float32)[:, None, None, None]
    # the offset cancels in a difference
    change = np.subtract(prediction, last_context_prepared, dtype=np.float32)
    _check_shape(change, properties)
    spacings = properties.spacing, properties.transposed_spacing
    for part, values in cubic_slabs(change, properties.transposed_crop_shape, *spacings):
        crop[:, part] += scale * values
    return forecast


def labels_of_logits(logits: np.ndarray, plans: Plans) -> np.ndarray:
    """Convert logits to labels by nnU-Net's label handling (regions in their order).

    :param logits: (outputs, z, y, x), one output for each label or region of the plans.
    :param plans: with the labels.
    :returns: (z, y, x), int16.
    """
    manager = label_manager(plans.labels, plans.regions_class_order)
    return np.stack([_labels(manager, one) for one in np.moveaxis(logits, 1, 0)])


def export_labels(logits: np.ndarray, properties: SeriesProperties, plans: Plans) -> np.ndarray:
    """Compute labels on the files' grid as :func:`export_slices`, from the logits of a whole scan.

    :param logits: (outputs, z, y, x), prepared.
    :param properties: of the prepared scan.
    :param plans: with the labels.
    :returns: (z, y, x), int16, on the files' grid; 0 outside the crop.
    """
    _check_shape(logits, properties)
    return export_slices(np.moveaxis(logits, 1, 0), properties, plans)


def export_slices(logits: Iterable[np.ndarray], properties: SeriesProperties, plans: Plans) -> np.ndarray:
    """Compute labels on the files' grid, as nnU-Net exports them: the logits are resampled, then labelled.

    :param logits: (outputs, y, x), prepared, of each slice in order; at no time more than two of them are held.
    :param properties: of the prepared scan.
    :param plans: with the labels.
    :returns: (z, y, x), int16, on the files' grid; 0 outside the crop.
    """
    manager = label_manager(plans.labels, plans.regions_class_order)
    whole = np.zeros(properties.shape_before_crop, dtype=np.int16)
    crop = transposed(whole[(None, *box_slices(properties.crop))], properties.transpose)[0]
    spacings = properties.spacing, properties.transposed_spacing
    resampled = linear_slices(logits, properties.shape, properties.transposed_crop_shape, *spacings)
    for labels, one in zip(crop, resampled, strict=True):
        labels[...] = _labels(manager, one)
    return whole


def export_probabilities(logits: Iterable[np.ndarray], properties: SeriesProperties, plans: Plans) -> np.ndarray:
    """Compute probabilities on the files' grid, as nnU-Net does: logits are resampled, then made probabilities.

    :param logits: (outputs, y, x), prepared, of each slice in order.
    :param properties: of the prepared scan.
    :param plans: with the labels.
    :returns: (outputs, z, y, x), uint8, in units of 1/255; outside the crop background is certain.
    """
    manager = label_manager(plans.labels, plans.regions_class_order)
    whole = np.zeros((manager.num_segmentation_heads, *properties.shape_before_crop), dtype=np.uint8)
    if not manager.has_regions:
        whole[0] = CERTAIN
    crop = transposed(whole[(slice(None), *box_slices(properties.crop))], properties.transpose)
    spacings = properties.spacing, properties.transposed_spacing
    resampled = linear_slices(logits, properties.shape, properties.transposed_crop_shape, *spacings)
    for place, one in enumerate(resampled):
        crop[:, place] = np.rint(CERTAIN * np.asarray(manager.apply_inference_nonlin(one)))
    return whole


def _labels(manager: LabelManager, logits: np.ndarray) -> np.ndarray:
    """Label a slice: (outputs, y, x) to (y, x)."""
    # NumPy compares half precision slowly
    labels = manager.convert_logits_to_segmentation(logits.astype(np.float32, copy=False))
    return np.asarray(labels).astype(np.int16)


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
