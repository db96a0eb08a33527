"""Volumes over time as a DICOM structured report (TID 1500): one measurement group for each scan and structure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    LongitudinalTemporalOffsetFromEvent,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TimePointContext,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from longflow.dicom.equipment import MANUFACTURER, PURPOSE, new_uid, repeatable_uid, stamp
from longflow.dicom.segments import Structure
from longflow.version import __version__

MILLILITRE = Code("ml", "UCUM", "ml")
#: units of time that UCUM knows; times in frames or visits are written as text alone
TIME_UNITS = {
    "days": Code("d", "UCUM", "day"),
    "months": Code("mo", "UCUM", "month"),
    "years": Code("a", "UCUM", "year"),
    "s": Code("s", "UCUM", "second"),
    "ms": Code("ms", "UCUM", "millisecond"),
}
PROCEDURES = {"CT": codes.LN.CTUnspecifiedBodyRegion, "MR": codes.LN.MRIUnspecifiedBodyRegion}
IMAGING = Code("363679005", "SCT", "Imaging procedure")


@dataclass(frozen=True)
class TimePoint:
    """A scan of a subject whose structures were measured.

    :param name: of the case.
    :param time: in the time unit, since the first scan.
    :param segmentation: of the scan.
    :param modality: of the scan.
    :param source_series: SeriesInstanceUID of the scan.
    :param volumes: ml by structure.
    """

    name: str
    time: float
    segmentation: Segmentation
    modality: str
    source_series: str
    volumes: Mapping[str, float]


def volume_report(
    points: Sequence[TimePoint], structures: Sequence[Structure], time_unit: str, method: str, series_number: int
) -> Comprehensive3DSR:
    """Make the structured report of a subject's volumes; it belongs to the study of the last scan.

    :param points: in order of time.
    :param structures: that were measured; segment ``n`` of each segmentation is the ``n``-th of them.
    :param time_unit: of the dataset.
    :param method: of the model.
    :param series_number: in the study.
    :returns: the report: complete, and not verified by anybody.
    """
    groups = [
        _measured(point, order, number, one, time_unit, method)
        for order, point in enumerate(points, start=1)
        for number, one in enumerate(structures, start=1)
        if one.name in point.volumes
    ]
    device = DeviceObserverIdentifyingAttributes(
        repeatable_uid(MANUFACTURER, __version__),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=f"{MANUFACTURER} {__version__}",
    )
    content = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(codes.DCM.Device, device),
        ),
        procedure_reported=PROCEDURES.get(points[-1].modality, IMAGING),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = Comprehensive3DSR(
        evidence=[point.segmentation for point in reversed(points)],
        content=content,
        series_instance_uid=new_uid(),
        series_number=series_number,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        specific_character_set="ISO_IR 192",
    )
    stamp(made, series_number, f"Volumes over time ({PURPOSE})")
    return made


def _measured(
    point: TimePoint, order: int, number: int, structure: Structure, time_unit: str, method: str
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return the measurement group of a structure at a time point."""
    described = point.segmentation.get_segment_description(number)
    segment = ReferencedSegment(
        point.segmentation.SOPClassUID,
        point.segmentation.SOPInstanceUID,
        number,
        source_series=SourceSeriesForSegmentation(point.source_series),
    )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(described.tracking_uid, structure.name),
        referenced_segment=segment,
        time_point_context=_time_point(point, order, time_unit),
        finding_type=structure.type,
        finding_category=structure.category,
        algorithm_id=AlgorithmIdentification(f"{MANUFACTURER} {method}"[:64], __version__),
        measurements=[Measurement(codes.SCT.Volume, float(f"{point.volumes[structure.name]:.9g}"), MILLILITRE)],
    )


def _time_point(point: TimePoint, order: int, time_unit: str) -> TimePointContext:
    unit = TIME_UNITS.get(time_unit)
    offset = None
    if unit is not None:
        offset = LongitudinalTemporalOffsetFromEvent(float(f"{point.time:.9g}"), unit, codes.DCM.Baseline)
    return TimePointContext(
        f"{point.time:.9g} {time_unit} since the first scan",
        time_point_type=codes.DCM.Baseline if order == 1 else None,
        time_point_order=order,
        subject_time_point_identifier=point.name,
        temporal_offset_from_event=offset,
    )
