"""Label maps as DICOM segmentations (SEG), which refer to the slices of their scan."""

from collections.abc import Sequence

import numpy as np
from highdicom import PlanePositionSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription

from longflow.dicom.equipment import (
    MANUFACTURER,
    PURPOSE,
    SERIAL_NUMBER,
    algorithm,
    contributing_equipment,
    new_uid,
    repeatable_uid,
    stamp,
)
from longflow.dicom.segments import Structure
from longflow.dicom.sources import SourceSeries, functional_group
from longflow.errors import ConfigurationError
from longflow.version import __version__

#: every voxel has one label: of the standard since 2023, not yet read by most viewers
LABELMAP = "LABELMAP"


def label_segmentation(
    labels: np.ndarray,
    source: SourceSeries,
    structures: Sequence[Structure],
    method: str,
    series_number: int,
    kind: str = "BINARY",
) -> Segmentation:
    """Make the DICOM segmentation of a label map.

    :param labels: (slices, rows, columns), integers, as :func:`slices_in_order` returns it.
    :param source: the series of the scan; patient, study and frame of reference are taken from it.
    :param structures: what the labels mean; segment ``n`` is the ``n``-th of them. Those of regions may overlap.
    :param method: of the model, for the description of the algorithm.
    :param series_number: in the study.
    :param kind: "BINARY" or "LABELMAP".
    :returns: the segmentation; slices without a label have no frame.
    :raises ConfigurationError: a label map is requested of structures that overlap.
    """
    several = [value for one in structures for value in one.values]
    overlap = len(set(several)) < len(several)
    if kind == LABELMAP and overlap:
        raise ConfigurationError(
            "The structures of this dataset overlap (regions). Expected structures with one label each for a DICOM "
            "label map: write the default, BINARY."
        )
    made = Segmentation(
        source_images=list(source.headers),
        pixel_array=_segments(labels, structures, overlap),
        segmentation_type=SegmentationTypeValues(kind),
        segment_descriptions=[
            _description(number, one, source, method) for number, one in enumerate(structures, start=1)
        ],
        series_instance_uid=new_uid(),
        series_number=series_number,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=__version__,
        device_serial_number=SERIAL_NUMBER,
        plane_positions=_positions(source),
        content_label="SEGMENTATION",
        content_description=f"Labels of a trained model, {PURPOSE}",
        contributing_equipment=[contributing_equipment()],
        specific_character_set="ISO_IR 192",
    )
    stamp(made, series_number, f"Labels ({PURPOSE})")
    return made


def _segments(labels: np.ndarray, structures: Sequence[Structure], overlap: bool) -> np.ndarray:
    """Return segment numbers (slices, rows, columns), or for structures that overlap a mask of each on a last axis."""
    if overlap:
        return np.stack([np.isin(labels, one.values) for one in structures], axis=-1).astype(np.uint8)
    numbers = np.zeros(labels.shape, np.min_scalar_type(len(structures)))
    for number, one in enumerate(structures, start=1):
        numbers[np.isin(labels, one.values)] = number
    return numbers


def _description(number: int, structure: Structure, source: SourceSeries, method: str) -> SegmentDescription:
    """Return the description of a segment. Its tracking UID is that of the structure in all scans of the patient."""
    patient = str(source.first.PatientID or source.first.StudyInstanceUID)
    return SegmentDescription(
        segment_number=number,
        segment_label=structure.name[:64],
        segmented_property_category=structure.category,
        segmented_property_type=structure.type,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(method),
        tracking_uid=repeatable_uid(patient, structure.name),
        tracking_id=structure.name[:64],
        display_color=structure.cielab,
    )


def _positions(source: SourceSeries) -> list[PlanePositionSequence] | None:
    """Return the places of the frames of a multi-frame source, which may be some of its frames, in any order."""
    if not source.frames:
        return None
    groups = (functional_group(source.first, frame, "PlanePositionSequence") for frame in source.frames)
    return [PlanePositionSequence("PATIENT", group.ImagePositionPatient) for group in groups]
