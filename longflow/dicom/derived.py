"""Forecasts and translations as series of their modality: synthetic images in the patient's own study.

Every slice is a CT or MR image of its own, as all viewers read them, whether or not the source was multi-frame. The
attributes of the source are copied by a list, so that nothing of it is taken over unseen.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DS

from longflow.data.images import Geometry
from longflow.dicom.burned_in import burn_in
from longflow.dicom.equipment import copy_attributes, new_uid, repeatable_uid, stamp
from longflow.dicom.sources import SourceSeries, functional_group
from longflow.errors import DataError

#: what is written into the pixels of the first slice
BURNED_IN = ("SYNTHETIC", "research only")
#: what the description of every such series begins with
SYNTHETIC = "Synthetic, research only"

PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthDate"),
    *("PatientSex", "OtherPatientIDsSequence", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "PatientAge", "PatientSize", "PatientWeight"),
)
STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("IssuerOfAccessionNumberSequence", "StudyDescription"),
)
SPACE = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality")
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
ACQUISITION = ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "AcquisitionNumber")
OF_CT = ("KVP",)
#: without ScanOptions: gating needs the trigger time, and a prediction was not triggered
OF_MR = (
    *("ScanningSequence", "SequenceVariant", "MRAcquisitionType", "RepetitionTime", "EchoTime"),
    *("EchoTrainLength", "MagneticFieldStrength", "FlipAngle"),
)
#: whole numbers that 16 bits hold
INTEGERS = np.iinfo(np.int16)


@dataclass(frozen=True)
class Derivation:
    """What a derived series says about how it was made.

    :param series: short description, which fits after :data:`SYNTHETIC` into 64 letters.
    :param details: sentences.
    """

    series: str
    details: str


def derived_series(
    array: np.ndarray,
    source: SourceSeries,
    derivation: Derivation,
    series_number: int,
    burned_in: bool = True,
    own_grid: Geometry | None = None,
) -> Iterator[Dataset]:
    """Make the DICOM images of a predicted volume.

    :param array: (slices, rows, columns), in HU or in the units of the source, as :func:`slices_in_order` returns it;
        on a grid of its own, (z, y, x).
    :param source: the series whose patient, study, frame of reference and planes it has.
    :param derivation: for its descriptions.
    :param series_number: in the study.
    :param burned_in: write :data:`BURNED_IN` into the pixels of the first slice.
    :param own_grid: of a volume that is not on the grid of the source, as after registration: its frame of reference
        is its own, too, and the same for all volumes of the patient on this grid.
    :returns: one image after another, for each slice; Hounsfield units are rounded to whole numbers.
    :raises DataError: the source is neither CT nor MR.
    """
    modality = str(source.first.get("Modality", ""))
    if modality not in ("CT", "MR"):
        raise DataError(
            f"its source has the modality '{modality}'. Forecasts and translations of CT and MR can be written as "
            "DICOM; those of other modalities stay NIfTI."
        )
    stored, slope, intercept = _stored_values(array, modality)
    window = _window(source, array)
    pixels = list(stored)
    if burned_in:
        pixels[0] = burn_in(pixels[0], BURNED_IN, stored.max(), stored.min())
    template = _shared(source, modality, derivation, series_number)
    template.RescaleSlope, template.RescaleIntercept = slope, intercept
    template.RescaleType = "HU" if modality == "CT" else "US"
    template.WindowCenter, template.WindowWidth = window
    if own_grid is not None:
        template.FrameOfReferenceUID = _own_frame_of_reference(source, own_grid)
    for number, one in enumerate(pixels):
        image = Dataset()
        image.update(template)
        image.SOPInstanceUID, image.InstanceNumber = new_uid(), number + 1
        if own_grid is None:
            _copy_plane(*source.slices[number], image)
        else:
            _set_plane(own_grid, number, image)
        image.Rows, image.Columns = one.shape
        image.PixelData = np.ascontiguousarray(one, dtype="<i2").tobytes()
        image["PixelData"].VR = "OW"
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        yield image


def _stored_values(array: np.ndarray, modality: str) -> tuple[np.ndarray, float, float]:
    """Return 16-bit integers, slope and intercept: values = stored x slope + intercept.

    Hounsfield units, and whole numbers that fit, are stored as they are. Other numbers take the whole range of 16 bits.
    """
    low, high = float(array.min()), float(array.max())
    fits = low >= INTEGERS.min and high <= INTEGERS.max and np.array_equal(array, np.rint(array))
    if modality == "CT" or fits:
        return np.clip(np.rint(array), INTEGERS.min, INTEGERS.max).astype(np.int16), 1.0, 0.0
    slope = (high - low) / (INTEGERS.max - INTEGERS.min) or 1.0
    # DICOM writes a decimal with 16 letters: the voxels are stored for the number as it is read
    slope = float(f"{slope:.9e}")
    intercept = float(f"{low - INTEGERS.min * slope:.8e}")
    stored = np.rint((array.astype(np.float64) - intercept) / slope)
    return np.clip(stored, INTEGERS.min, INTEGERS.max).astype(np.int16), slope, intercept


def _window(source: SourceSeries, array: np.ndarray) -> tuple[float, float]:
    """Return centre and width of the window: the source's, else that of the volume's values."""
    first = source.first
    if "WindowCenter" in first and "WindowWidth" in first and first["WindowWidth"].VM:
        several = first["WindowWidth"].VM > 1
        centre, width = (float(value[0] if several else value) for value in (first.WindowCenter, first.WindowWidth))
        if width >= 1:
            return centre, width
    low, high = (float(value) for value in np.percentile(array, (1, 99)))
    return float(f"{(low + high) / 2:.6g}"), float(f"{max(high - low, 1.0):.6g}")


def _shared(source: SourceSeries, modality: str, derivation: Derivation, series_number: int) -> Dataset:
    """Return the attributes that all slices share."""
    header, made = source.first, Dataset()
    made.Laterality = made.PatientPosition = None  # may be empty where they are not known, but not missing
    copy_attributes(header, made, (*PATIENT, *STUDY, *SPACE, *LOSSY))
    _copy_acquisition(header, made)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.Modality = modality
    made.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
    made.SeriesInstanceUID = new_uid()
    stamp(made, series_number, f"{SYNTHETIC}: {derivation.series}")
    made.DerivationDescription = made.ImageComments = f"{SYNTHETIC}. {derivation.details}"[:1024]
    made.SyntheticData = "YES"
    made.BurnedInAnnotation = "NO"  # no letters that tell the patient or the date (PS3.3 C.7.6.1.1)
    made.ReferencedSeriesSequence = [_referenced_series(source)]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
    if modality == "CT":
        made.KVP = None
        copy_attributes(header, made, OF_CT)
    else:
        made.ScanningSequence, made.SequenceVariant = "RM", "NONE"
        made.ScanOptions = made.MRAcquisitionType = made.EchoTime = made.EchoTrainLength = made.RepetitionTime = None
        copy_attributes(header, made, OF_MR)
        if "IR" in made.ScanningSequence:
            made.InversionTime = None
            copy_attributes(header, made, ("InversionTime",))
    return made


def _copy_acquisition(header: Dataset, made: Dataset) -> None:
    """Copy the moment of the source's acquisition, unless a wrong clock put it into the future."""
    today = datetime.now().strftime("%Y%m%d")
    moments = [str(header.get(name) or "") for name in ("AcquisitionDate", "AcquisitionDateTime")]
    if not any(moment[:8] > today for moment in moments):
        copy_attributes(header, made, ACQUISITION)


def _copy_plane(header: Dataset, frame: int | None, image: Dataset) -> None:
    """Copy where a slice is, and refer to it."""
    image.SourceImageSequence = [_reference(header, frame)]
    if frame is None:
        copy_attributes(header, image, ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
        image.SliceThickness = None
        copy_attributes(header, image, ("SliceThickness", "SpacingBetweenSlices", "SliceLocation"))
        return
    image.ImagePositionPatient = functional_group(header, frame, "PlanePositionSequence").ImagePositionPatient
    image.ImageOrientationPatient = functional_group(header, frame, "PlaneOrientationSequence").ImageOrientationPatient
    image.SliceThickness = None
    measures = functional_group(header, frame, "PixelMeasuresSequence")
    copy_attributes(measures, image, ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"))


def _set_plane(grid: Geometry, number: int, image: Dataset) -> None:
    """Write where a slice of a grid is. :param number: of the slice, from 0."""
    axes = np.reshape(grid.direction, (3, 3))
    place = np.array(grid.origin) + axes[:, 2] * grid.spacing[2] * number
    image.ImagePositionPatient = _decimals(place)
    image.ImageOrientationPatient = _decimals(axes.T[:2].ravel())
    image.PixelSpacing = _decimals((grid.spacing[1], grid.spacing[0]))
    image.SliceThickness = image.SpacingBetweenSlices = _decimals(grid.spacing[2:])[0]


def _decimals(values: Iterable[float]) -> list[DS]:
    return [DS(float(value), auto_format=True) for value in values]


def _own_frame_of_reference(source: SourceSeries, grid: Geometry) -> UID:
    patient = str(source.first.PatientID or source.first.StudyInstanceUID)
    numbers = (*grid.size, *(f"{value:.4f}" for value in (*grid.spacing, *grid.origin, *grid.direction)))
    return repeatable_uid(patient, *map(str, numbers))


def _reference(header: Dataset, frame: int | None) -> Dataset:
    """Return the reference to the source of a slice."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    item.PurposeOfReferenceCodeSequence = [_code_item(codes.DCM.SourceImageForImageProcessingOperation)]
    return item


def _code_item(code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _referenced_series(source: SourceSeries) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = source.first.SeriesInstanceUID
    item.ReferencedInstanceSequence = []
    for header in source.headers:
        instance = Dataset()
        instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        item.ReferencedInstanceSequence.append(instance)
    return item
