"""Tiny DICOM series, made with pydicom: CT and MR, a file for each slice or one file of many frames."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from longflow.data.images import Geometry
from longflow.dicom.equipment import new_uid
from longflow.dicom.files import read_export
from longflow.dicom.sources import Source, files_by_uid

#: (slices, rows, columns)
SHAPE = (4, 24, 20)
#: oblique: rows and columns are turned by 10 degrees about the axis of the patient
COSINES = (0.984807753, 0.173648178, 0.0, -0.173648178, 0.984807753, 0.0)
PLACE, SPACING, STEP = (-20.5, 31.25, 100.0), (0.75, 0.5), 2.5


def make_series(
    folder: Path,
    array: np.ndarray | None = None,
    modality: str = "CT",
    patient: str = "P1",
    study: str = "",
    date: str = "20200102",
    **attributes: object,
) -> Source:
    """Write a series of single-frame images; the slices are written in reverse, with names that say nothing.

    :param array: (slices, rows, columns), integers from -1024 on.
    :param attributes: further attributes of every slice, by keyword; None removes one.
    :returns: its UIDs, in the order of slices.
    """
    array = phantom_array() if array is None else array
    study, series, frame_of_reference = study or new_uid(), new_uid(), new_uid()
    folder.mkdir(parents=True, exist_ok=True)
    uids = []
    for number, pixels in enumerate(array):
        one = _image(modality, patient, study, series, date)
        one.FrameOfReferenceUID = frame_of_reference
        one.InstanceNumber = len(array) - number
        one.ImagePositionPatient = [f"{PLACE[0]:.6g}", f"{PLACE[1]:.6g}", f"{PLACE[2] + STEP * number:.6g}"]
        one.ImageOrientationPatient = list(COSINES)
        one.PixelSpacing, one.SliceThickness = list(SPACING), STEP
        if modality == "CT":
            one.RescaleSlope, one.RescaleIntercept = 1, -1024
            pixels = pixels + 1024
        _set_pixels(one, pixels.astype("<u2"))
        for name, value in attributes.items():
            if value is None:
                delattr(one, name)
            else:
                setattr(one, name, value)
        one.save_as(folder / f"{100 - number}.dcm", enforce_file_format=True)
        uids.append(str(one.SOPInstanceUID))
    return Source(study=study, series=series, instances=tuple(uids))


def make_enhanced(folder: Path, array: np.ndarray | None = None, order: tuple[int, ...] = (), **named: str) -> Source:
    """Write one enhanced MR image of many frames.

    :param order: frames of the file, as numbers of slices; by default ascending.
    :returns: its UIDs, and its frames in the order of slices.
    """
    array = phantom_array() if array is None else array
    order = order or tuple(range(len(array)))
    study, series = named.get("study") or new_uid(), new_uid()
    one = _image("MR", named.get("patient", "P1"), study, series, named.get("date", "20200102"))
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    one.FrameOfReferenceUID, one.NumberOfFrames = new_uid(), len(array)
    for name in ("ScanningSequence", "SequenceVariant", "EchoTime", "RepetitionTime"):
        delattr(one, name)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), STEP
    orientation.ImageOrientationPatient = list(COSINES)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = []
    for number in order:
        group, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = [PLACE[0], PLACE[1], PLACE[2] + STEP * number]
        group.PlanePositionSequence = [plane]
        one.PerFrameFunctionalGroupsSequence.append(group)
    _set_pixels(one, array[list(order)].astype("<u2"))
    folder.mkdir(parents=True, exist_ok=True)
    one.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    frames = tuple(order.index(number) for number in range(len(array)))
    return Source(study=study, series=series, instances=(str(one.SOPInstanceUID),), frames=frames)


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of an export by SOPInstanceUID."""
    return files_by_uid(read_export(folder, processes=1))


def phantom_array() -> np.ndarray:
    """Return voxels that differ everywhere, from -1000 to 1400."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7 % 2400 - 1000).astype(np.int16)


def phantom_labels() -> np.ndarray:
    """Return two structures on the grid of the phantom; slice 0 is empty."""
    labels = np.zeros(SHAPE, np.int16)
    labels[1:3, 4:12, 3:9] = 1
    labels[2:, 14:20, 10:18] = 2
    return labels


def phantom_geometry() -> Geometry:
    """Return the grid of the phantom."""
    x, y = np.array(COSINES[:3]), np.array(COSINES[3:])
    direction = np.stack([x, y, np.cross(x, y)], axis=1)
    return Geometry(SHAPE[::-1], (SPACING[1], SPACING[0], STEP), PLACE, tuple(direction.ravel().tolist()))


def _image(modality: str, patient: str, study: str, series: str, date: str) -> Dataset:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    one.SOPInstanceUID = new_uid()
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.StudyInstanceUID, one.SeriesInstanceUID, one.Modality = study, series, modality
    one.SpecificCharacterSet = "ISO_IR 100"
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Müller^Anna", patient, "19500607", "F"
    one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = date
    one.StudyTime = one.SeriesTime = one.AcquisitionTime = one.ContentTime = "101500"
    one.AccessionNumber, one.StudyID, one.SeriesNumber, one.AcquisitionNumber = "A77", "1", 3, 1
    one.ReferringPhysicianName, one.Manufacturer, one.PatientPosition = "", "Phantom", "HFS"
    one.PositionReferenceIndicator, one.SeriesDescription = "", "phantom"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    if modality == "CT":
        one.KVP = 120
    elif modality == "MR":
        one.ScanningSequence, one.SequenceVariant, one.EchoTime, one.RepetitionTime = "GR", "SP", 4.5, 25
    return one


def _set_pixels(one: Dataset, pixels: np.ndarray) -> None:
    one.Rows, one.Columns = pixels.shape[-2:]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.PixelData = pixels.tobytes()
    one["PixelData"].VR = "OW"


def series_of(folder: Path) -> tuple[Source, Path]:
    """Find the largest series of a real export, one slice at each position, in the order of slices.

    :returns: its UIDs, and the folder.
    """
    series: dict[str, dict[float, Dataset]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "ImagePositionPatient" in header:
            cosines = np.array(header.ImageOrientationPatient, dtype=float)
            depth = round(float(np.cross(cosines[:3], cosines[3:]) @ np.array(header.ImagePositionPatient)), 3)
        elif "PerFrameFunctionalGroupsSequence" in header:
            depth = 0.0
        else:
            continue
        series.setdefault(str(header.SeriesInstanceUID), {}).setdefault(depth, header)
    slices = max(series.values(), key=len)
    headers = [slices[depth] for depth in sorted(slices)]
    uids = tuple(str(header.SOPInstanceUID) for header in headers)
    study, own = str(headers[0].StudyInstanceUID), str(headers[0].SeriesInstanceUID)
    return Source(study=study, series=own, instances=uids), folder
