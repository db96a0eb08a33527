"""Make DICOM series as scanners write them, and their truth."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

CT, MR, ENHANCED_CT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "2.1"))
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING = (3.0, 0.8, 0.5)  # slices, rows, columns


def phantom(shape=(6, 10, 12), seed=0) -> np.ndarray:
    """Return whole values of a smooth volume, (z, y, x), int16."""
    z, y, x = np.indices(shape)
    return (100 * z + 7 * y + 3 * x + seed * 11 - 500).astype(np.int16)


def uid(*parts) -> str:
    """Return a UID that is the same for the same parts."""
    return generate_uid(entropy_srcs=["longflow tests", *map(str, parts)])


def slice_header(patient="p1", study="s1", series="1", number=0, **values) -> FileDataset:
    """Return a CT slice without pixels; values by keyword replace or add elements."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID = CT
    header.SOPInstanceUID = uid(patient, study, series, number)
    header.PatientID, header.PatientName, header.PatientBirthDate = patient, "Miller^Anna", "19600102"
    header.PatientSex, header.StudyID, header.AccessionNumber = "F", "5", "A1"
    header.StudyInstanceUID, header.SeriesInstanceUID = uid(patient, study), uid(patient, study, series)
    header.FrameOfReferenceUID = uid(patient, study, "frame")
    header.StudyDate = header.AcquisitionDate = "20200110"
    header.StudyTime, header.AcquisitionTime = "080000", "081500"
    header.Modality, header.Manufacturer = "CT", "SIEMENS"
    header.SeriesDescription, header.SeriesNumber = "Abdomen portal venous 3.0", series
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.InstanceNumber, header.AcquisitionNumber = number + 1, 1
    header.PatientPosition = "HFS"
    for name, value in values.items():
        setattr(header, name, value)
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


def set_pixels(header: Dataset, pixels: np.ndarray, slope=1, intercept=-1024) -> None:
    """Store values, (rows, columns) or (frames, rows, columns), with a rescale; None: without one."""
    signed = intercept is None
    stored = pixels if signed else np.rint((pixels.astype(float) - intercept) / slope)
    stored = stored.astype(np.int16 if signed else np.uint16)
    header.Rows, header.Columns = stored.shape[-2:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, int(signed)
    if signed and "RescaleSlope" in header:
        del header.RescaleSlope, header.RescaleIntercept
    if not signed:
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
    header.PixelData = stored.tobytes()


def write_series(
    folder: Path,
    volume=None,
    *,
    orientation=AXIAL,
    spacing=SPACING,
    origin=(-20.0, -30.0, 40.0),
    tilt=0.0,
    skip=(),
    change=None,
    shuffle=True,
    first_number=0,
    **values,
) -> list[Path]:
    """Write a volume as one file for each slice, under names that say nothing.

    :param tilt: mm by which each slice is shifted along its columns against the one before.
    :param skip: places of slices that are not written.
    :param change: ``change(header, place)`` before a slice is saved.
    :param first_number: of the instances; it makes their UIDs.
    :returns: the files in the order of the slices.
    """
    volume = phantom() if volume is None else volume
    across, down = np.reshape(orientation, (2, 3))
    normal = np.cross(across, down)
    names = np.random.default_rng(1).permutation(len(volume)) if shuffle else np.arange(len(volume))
    folder.mkdir(parents=True, exist_ok=True)
    start = len(list(folder.iterdir()))
    paths = []
    for place, pixels in enumerate(volume):
        if place in skip:
            continue
        header = slice_header(number=first_number + place, **values)
        position = np.array(origin) + place * (spacing[0] * normal + tilt * down)
        header.ImagePositionPatient = [float(f"{value:.6g}") for value in position]
        header.ImageOrientationPatient = list(orientation)
        header.PixelSpacing, header.SliceThickness = list(spacing[1:]), spacing[0]
        if "PixelData" not in header:
            set_pixels(header, pixels)
        if change:
            change(header, place)
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        paths.append(folder / f"IM{start:05d}_{names[place]:03d}")
        header.save_as(paths[-1], enforce_file_format=True)
    return paths


def enhanced(volume: np.ndarray, orders=None, spacing=SPACING, origin=(-20.0, -30.0, 40.0), **values) -> FileDataset:
    """Return an enhanced CT: all slices in one file, in an order, with a rescale of each frame."""
    header = slice_header(**{"SOPClassUID": ENHANCED_CT, **values})
    order = list(range(len(volume))) if orders is None else list(orders)
    slopes = [1 + place % 2 for place in range(len(volume))]
    stored = np.stack([(volume[place] + 1000) * 2 // slopes[place] for place in order]).astype(np.uint16)
    set_pixels(header, stored, 1, 0)
    del header.RescaleSlope, header.RescaleIntercept
    header.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = list(spacing[1:])
    shared.PixelMeasuresSequence[0].SliceThickness = spacing[0]
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for place in order:
        group = Dataset()
        group.PlanePositionSequence = Sequence([Dataset()])
        group.PlanePositionSequence[0].ImagePositionPatient = [origin[0], origin[1], origin[2] + place * spacing[0]]
        group.PixelValueTransformationSequence = Sequence([Dataset()])
        group.PixelValueTransformationSequence[0].RescaleSlope = slopes[place] / 2
        group.PixelValueTransformationSequence[0].RescaleIntercept = -1000
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return header


def save_big_endian(path: Path) -> None:
    """Convert a file to big endian."""
    header = pydicom.dcmread(path)
    pixels = header.pixel_array
    meta, header = header.file_meta, Dataset(header)
    header.PixelData, header.file_meta = pixels.byteswap().tobytes(), meta
    meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, header, implicit_vr=False, little_endian=False, enforce_file_format=True)


def edit(path: Path, **values) -> None:
    """Change elements of a file."""
    header = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(header, name, value)
    header.save_as(path)
