"""Read the headers of DICOM files: what a file is, and where and when each of its frames was acquired.

Pixels are not read. A frame is one slice: a single-frame file, a frame of an enhanced file (PS3.3 C.7.6.16, by its
functional groups), or a tile of a Siemens mosaic.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longflow.dicom import moments
from longflow.dicom.siemens import CSA, TILES, mosaic_of

if TYPE_CHECKING:
    from pydicom import Dataset

#: Philips' scale slope (private group "Philips MR Imaging DD 001", and its place in enhanced files)
SCALE_SLOPE, PHILIPS_FRAME = 0x2005100E, 0x2005140F
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
DIRECTORY = "1.2.840.10008.1.3.10"
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")

TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"),
    *("StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"),
    *("StudyTime", "SeriesTime", "AcquisitionTime", "AcquisitionDateTime", "ContentTime", "Modality", "Manufacturer"),
    *("SeriesDescription", "ProtocolName", "SeriesNumber", "ImageType", "BurnedInAnnotation", "FrameOfReferenceUID"),
    *("ContrastBolusAgent", "ContrastBolusStartTime", "InstanceNumber", "AcquisitionNumber", "TriggerTime"),
    *("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "NominalInterval", "HeartRate", "FrameTime"),
    *("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness"),
    *("SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SegmentSequence"),
    *("ReferencedSeriesSequence", "StructureSetROISequence", "ReferencedFrameOfReferenceSequence"),
    *(TILES, CSA, SCALE_SLOPE),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """What the frames of a file share.

    :param problem: why no frame of it can be used; empty where they can.
    :param contrast: the contrast agent; None: the header has no element for it.
    :param contrast_start: its start, s as in :mod:`longflow.dicom.moments`.
    :param structures: names of the segments (SEG) or regions (RTSTRUCT), by number.
    :param references: UIDs of the series and instances that the structures refer to.
    """

    path: Path
    sop_class: str = ""
    sop_uid: str = ""
    patient_id: str = ""
    issuer: str = ""
    patient_name: str = ""
    birth_date: str = ""
    study_uid: str = ""
    series_uid: str = ""
    frame_of_reference: str = ""
    study_date: str = ""
    acquisition_date: str = ""
    modality: str = ""
    manufacturer: str = ""
    description: str = ""
    series_number: str = ""
    image_type: tuple[str, ...] = ()
    contrast: str | None = None
    contrast_start: float | None = None
    burned_in: bool = False
    rows: int = 0
    columns: int = 0
    samples: int = 1
    structures: tuple[tuple[int, str], ...] = ()
    references: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def is_label(self) -> bool:
        """Tell whether it holds labels of another series."""
        return self.sop_class in (*SEGMENTATIONS, STRUCTURE_SET)


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice.

    :param index: number of the frame in its file, from 0.
    :param tile: place in a mosaic, from 0; -1: the frame is no mosaic. ``per_row``: tiles in a row.
    :param position: centre of the first voxel, mm (left, posterior, superior).
    :param orientation: direction of rows, then of columns.
    :param spacing: mm between rows, between columns.
    :param thickness: mm between slices where stated, else the thickness of the slice; 0: unknown.
    :param slope, intercept: from stored values to output values. ``scale_slope``: Philips', by which these are divided.
    :param trigger_time: ms after the R wave. ``interval``: R-R, ms. ``frame_time``: ms between frames.
    :param acquired, content: seconds as in :mod:`longflow.dicom.moments`.
    """

    instance: Instance
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    index: int = 0
    tile: int = -1
    per_row: int = 1
    thickness: float = 0.0
    slope: float = 1.0
    intercept: float = 0.0
    scale_slope: float = 0.0
    image_type: tuple[str, ...] = ()
    instance_number: float | None = None
    acquisition: float | None = None
    temporal_position: float | None = None
    trigger_time: float | None = None
    interval: float | None = None
    frame_time: float | None = None
    acquired: float | None = None
    content: float | None = None
    echo_time: float | None = None
    b_value: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return the rows and columns of the slice."""
        return self.instance.rows // self.per_row, self.instance.columns // self.per_row

    @property
    def normal(self) -> np.ndarray:
        """Return the cross product of row and column direction."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def depth(self) -> float:
        """Return the position along the normal, mm. Plain arithmetic: it is called for every slice, many times."""
        (a, b, c, d, e, f), (x, y, z) = self.orientation, self.position
        return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)


def is_dicom(start: bytes) -> bool:
    """Tell by its first 132 bytes whether a file is DICOM, with the preamble or (as old exports) without it."""
    if start[128:132] == b"DICM":
        return True
    # a data set without preamble begins with a group length or an element of group 0008 (or 0002)
    groups = (b"\x08\x00", b"\x02\x00")
    return (
        len(start) >= 12 and start[:2] in groups and start[3] == 0 and (start[4:6].isalpha() or start[6:8] == b"\0\0")
    )


def read_file(path: Path) -> tuple[Instance, list[Frame]] | None:
    """Read the header of a file.

    :param path: the file.
    :returns: the instance, and its frames (none where it has a problem or holds labels); None: no DICOM.
    """
    import pydicom

    try:
        with open(path, "rb") as file:
            if not is_dicom(file.read(132)):
                return None
            file.seek(0)
            header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(_tags()))
            end_of_header = file.tell()
        return _read(header, path, end_of_header)
    except OSError as error:
        return Instance(path, problem=f"the file cannot be read ({error.strerror or error})"), []
    except Exception as error:  # pydicom raises many kinds for damaged files
        return Instance(path, problem=f"the header is damaged or truncated ({type(error).__name__}: {error})"[:200]), []


@cache
def _tags() -> tuple[int, ...]:
    """Return the numbers of the elements to read."""
    from pydicom.datadict import tag_for_keyword

    return tuple(tag if isinstance(tag, int) else int(tag_for_keyword(tag) or 0) for tag in TAGS)


def _read(header: "Dataset", path: Path, end_of_header: int) -> tuple[Instance, list[Frame]] | None:
    instance = _instance(header, path)
    if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DIRECTORY:
        return None
    if instance.problem or instance.is_label:
        return instance, []
    if problem := _problem_of_pixels(header, path, end_of_header, instance):
        return replace(instance, problem=problem), []
    frames = list(_frames(header, instance))
    if any(not _is_placed(frame) for frame in frames):
        return replace(instance, problem="no position or orientation in the patient, or no pixel spacing"), []
    return instance, frames


def _is_placed(frame: Frame) -> bool:
    numbers = (*frame.position, *frame.orientation, *frame.spacing)
    if len(numbers) != 11 or not all(map(math.isfinite, numbers)) or min(frame.spacing) <= 0:
        return False
    return abs(np.linalg.norm(frame.normal) - 1) < 1e-2


def _instance(header: "Dataset", path: Path) -> Instance:
    """Read what identifies a file, and why it cannot be an image."""
    image_type = tuple(str(one).upper() for one in _several(header.get("ImageType")))
    structures, references = _structures(header)
    found = Instance(
        path=path,
        sop_class=_text(header, "SOPClassUID"),
        sop_uid=_text(header, "SOPInstanceUID"),
        patient_id=_text(header, "PatientID"),
        issuer=_text(header, "IssuerOfPatientID"),
        patient_name=_text(header, "PatientName"),
        birth_date=_text(header, "PatientBirthDate"),
        study_uid=_text(header, "StudyInstanceUID"),
        series_uid=_text(header, "SeriesInstanceUID"),
        frame_of_reference=_text(header, "FrameOfReferenceUID"),
        study_date=_text(header, "StudyDate"),
        acquisition_date=_text(header, "AcquisitionDate")
        or _text(header, "AcquisitionDateTime")[:8]
        or _text(header, "SeriesDate"),
        modality=_text(header, "Modality"),
        manufacturer=_text(header, "Manufacturer"),
        description=_text(header, "SeriesDescription") or _text(header, "ProtocolName"),
        series_number=_text(header, "SeriesNumber"),
        image_type=image_type,
        contrast=_text(header, "ContrastBolusAgent") if "ContrastBolusAgent" in header else None,
        contrast_start=moments.moment(
            header.get("AcquisitionDate") or header.get("StudyDate"), header.get("ContrastBolusStartTime")
        ),
        burned_in=_text(header, "BurnedInAnnotation").upper() == "YES",
        rows=int(header.get("Rows") or 0),
        columns=int(header.get("Columns") or 0),
        samples=int(header.get("SamplesPerPixel") or 1),
        structures=structures,
        references=references,
    )
    if not found.sop_class and not found.series_uid:
        return replace(found, problem="the header is truncated: it has neither a SOP class nor a series")
    return found


def _problem_of_pixels(header: "Dataset", path: Path, end_of_header: int, instance: Instance) -> str:
    """Tell why the file holds no usable slices; empty where it does."""
    if instance.sop_class.startswith(SECONDARY_CAPTURES):
        return "a secondary capture: a picture of a screen or a page, without geometry"
    if not instance.rows or not instance.columns:
        if "Image Storage" in _name_of(instance.sop_class):
            return "a truncated file: its header has no Rows and Columns"
        return f"no image ({instance.modality or 'unknown modality'}: {_name_of(instance.sop_class)})"
    if instance.samples != 1:
        return "a colour image"
    frames = int(header.get("NumberOfFrames") or 1)
    needed = instance.rows * instance.columns * frames * int(header.get("BitsAllocated") or 16) // 8
    syntax = str(header.file_meta.get("TransferSyntaxUID", UNCOMPRESSED[0])) if header.file_meta else UNCOMPRESSED[0]
    size = path.stat().st_size
    if syntax in UNCOMPRESSED and size < end_of_header + 8 + needed:
        return f"a truncated file: it has {size} bytes, its header describes {end_of_header + 8 + needed}"
    if frames > 1 and not _is_enhanced(header):
        return f"{frames} frames in one file without the position of each"
    return ""


def _name_of(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name if uid else "no SOP class"


def _frames(header: "Dataset", instance: Instance) -> Iterator[Frame]:
    """Return every slice of a file."""
    if _is_enhanced(header):
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        for index, own in enumerate(header.PerFrameFunctionalGroupsSequence):
            yield _frame_of_groups([own] if shared is None else [own, shared], header, instance, index)
        return
    frame = _classic_frame(header, instance)
    mosaic = mosaic_of(header, instance.image_type)
    yield from [frame] if mosaic is None else _tiles(frame, *mosaic)


def _is_enhanced(header: "Dataset") -> bool:
    """Tell whether frames have functional groups; some classic files have an empty sequence of them."""
    return any(len(group) for group in header.get("PerFrameFunctionalGroupsSequence") or ())


def _classic_frame(header: "Dataset", instance: Instance) -> Frame:
    """Return the slice of a single-frame file."""
    date = header.get("AcquisitionDate") or header.get("StudyDate")
    return Frame(
        instance=instance,
        position=_numbers(header.get("ImagePositionPatient")),
        orientation=_numbers(header.get("ImageOrientationPatient")),
        spacing=_numbers(header.get("PixelSpacing")),
        thickness=_number(header, "SpacingBetweenSlices") or _number(header, "SliceThickness") or 0.0,
        slope=_or(_number(header, "RescaleSlope"), 1.0),
        intercept=_or(_number(header, "RescaleIntercept"), 0.0),
        scale_slope=_scale_slope(header, instance),
        image_type=instance.image_type,
        instance_number=_number(header, "InstanceNumber"),
        acquisition=_number(header, "AcquisitionNumber"),
        temporal_position=_number(header, "TemporalPositionIdentifier"),
        trigger_time=_number(header, "TriggerTime"),
        interval=_interval(header),
        frame_time=_number(header, "FrameTime"),
        acquired=_or(
            moments.moment_of_datetime(header.get("AcquisitionDateTime")),
            moments.moment(date, header.get("AcquisitionTime")),
        ),
        content=moments.moment(header.get("ContentDate") or date, header.get("ContentTime")),
        echo_time=_number(header, "EchoTime"),
        b_value=_number(header, "DiffusionBValue"),
    )


def _frame_of_groups(groups: "list[Dataset]", header: "Dataset", instance: Instance, index: int) -> Frame:
    """Return a frame of an enhanced file by its own and the shared functional groups; its own come first."""

    def item(*names: str) -> "Dataset | dict":
        for group in groups:
            for name in names:
                if group.get(name):
                    return group[name][0]
        return {}

    measures, content = item("PixelMeasuresSequence"), item("FrameContentSequence")
    values = item("PixelValueTransformationSequence")
    kind = item("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence").get("FrameType")
    cardiac = item("CardiacSynchronizationSequence", "CardiacTriggerSequence")
    philips = next((group[PHILIPS_FRAME].value[0] for group in groups if PHILIPS_FRAME in group), {})
    return Frame(
        instance=instance,
        index=index,
        position=_numbers(item("PlanePositionSequence").get("ImagePositionPatient")),
        orientation=_numbers(item("PlaneOrientationSequence").get("ImageOrientationPatient")),
        spacing=_numbers(measures.get("PixelSpacing")),
        thickness=_number(measures, "SpacingBetweenSlices") or _number(measures, "SliceThickness") or 0.0,
        slope=_or(_number(values, "RescaleSlope"), 1.0),
        intercept=_or(_number(values, "RescaleIntercept"), 0.0),
        scale_slope=_scale_slope(philips, instance),
        image_type=tuple(str(one).upper() for one in _several(kind)) or instance.image_type,
        instance_number=float(index),
        acquisition=_number(content, "FrameAcquisitionNumber"),
        temporal_position=_number(content, "TemporalPositionIndex"),
        trigger_time=_or(
            _number(cardiac, "NominalCardiacTriggerDelayTime"), _number(cardiac, "ActualCardiacTriggerDelayTime")
        ),
        interval=_or(_number(cardiac, "RRIntervalTimeNominal"), _interval(header)),
        frame_time=_number(header, "FrameTime"),
        acquired=_or(
            moments.moment_of_datetime(content.get("FrameAcquisitionDateTime")),
            moments.moment_of_datetime(header.get("AcquisitionDateTime")),
        ),
        content=moments.moment_of_datetime(content.get("FrameReferenceDateTime")),
        echo_time=_number(item("MREchoSequence"), "EffectiveEchoTime"),
        b_value=_number(item("MRDiffusionSequence"), "DiffusionBValue"),
    )


def _tiles(mosaic: Frame, tiles: int, per_row: int, reverse: bool) -> Iterator[Frame]:
    """Return the slices of a mosaic.

    The header places the corner of the whole mosaic as if its centre were that of a tile.
    """
    across, down = np.reshape(mosaic.orientation, (2, 3))
    rows, columns = (number // per_row for number in (mosaic.instance.rows, mosaic.instance.columns))
    first = np.asarray(mosaic.position)
    first = first + across * mosaic.spacing[1] * (mosaic.instance.columns - columns) / 2
    first = first + down * mosaic.spacing[0] * (mosaic.instance.rows - rows) / 2
    step = mosaic.normal * mosaic.thickness * (-1 if reverse else 1)
    for tile in range(tiles):
        yield replace(mosaic, tile=tile, per_row=per_row, position=tuple((first + tile * step).tolist()))


def _scale_slope(header: Any, instance: Instance) -> float:
    """Return Philips' scale slope of MR; 0 where there is none."""
    if (
        SCALE_SLOPE not in header
        or not instance.manufacturer.upper().startswith("PHILIPS")
        or instance.modality != "MR"
    ):
        return 0.0
    value = header[SCALE_SLOPE].value
    if isinstance(value, bytes):  # implicit VR: a float of 32 bits
        value = np.frombuffer(value[:4], "<f4")[0] if len(value) >= 4 else 0.0
    return float(_several(value)[0]) if _several(value) else 0.0


def _interval(header: "Dataset") -> float | None:
    """Return the R-R interval, ms."""
    if interval := _number(header, "NominalInterval"):
        return interval
    rate = _number(header, "HeartRate")
    return 60_000 / rate if rate else None


def _structures(header: "Dataset") -> tuple[tuple[tuple[int, str], ...], frozenset[str]]:
    """Return the names of segments or regions by number, and the UIDs that they refer to."""
    named = [(int(one.SegmentNumber), _text(one, "SegmentLabel")) for one in header.get("SegmentSequence") or ()]
    named = [(number, name) for number, name in named if number > 0]  # 0 is the background of a LABELMAP
    named += [(int(one.ROINumber), _text(one, "ROIName")) for one in header.get("StructureSetROISequence") or ()]
    if not named:
        return (), frozenset()
    found: set[str] = set()
    series = list(header.get("ReferencedSeriesSequence") or ())
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            series += study.get("RTReferencedSeriesSequence") or ()
    for one in series:
        found.add(_text(one, "SeriesInstanceUID"))
        for name in ("ReferencedInstanceSequence", "ContourImageSequence"):
            found.update(_text(instance, "ReferencedSOPInstanceUID") for instance in one.get(name) or ())
    return tuple(named), frozenset(found - {""})


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip().strip("\0")


def _several(value: Any) -> list:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes) or not isinstance(value, Iterable) else list(value)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(one) for one in _several(value))


def _number(header: Any, name: str) -> float | None:
    found = _numbers(header.get(name))
    return found[0] if found and math.isfinite(found[0]) else None


def _or(value: float | None, other: Any) -> Any:
    return other if value is None else value
