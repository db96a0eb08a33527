"""Where the scans of a folder come from: the DICOM instances of each image, kept in a file next to the table.

The file holds UIDs, which identify: it is as private as the DICOM files themselves.
"""

from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydicom import DataElement, Dataset, dcmread
from pydicom.config import RAISE
from pydicom.valuerep import DS, PersonName, validate_value

from longflow.data.images import SAME_PLACE, Geometry
from longflow.dicom.equipment import repeatable_uid
from longflow.dicom.stacks import SAME_DIRECTION, tilt_of
from longflow.errors import DataError, first_few
from longflow.files import write_json
from longflow.reading import read_json
from longflow.schema import validated

if TYPE_CHECKING:
    from longflow.dicom.files import Export
    from longflow.dicom.headers import Frame

#: name of the file in a folder of images
SOURCES_JSON = "dicom_sources.json"

#: attributes that every DICOM image has, though they may be empty; some exports lack them
MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("SeriesNumber", "PositionReferenceIndicator"),
)
#: kinds of values whose form the standard fixes
CHECKED = ("AS", "CS", "DA", "DS", "DT", "IS", "TM")


class Source(BaseModel):
    """The DICOM instances that an image was made from.

    :param study: StudyInstanceUID.
    :param series: SeriesInstanceUID.
    :param instances: SOPInstanceUIDs in the order of slices; of a multi-frame file, one.
    :param frames: of a multi-frame file, the frames in the order of slices, counted from 0; empty: all of them.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    series: str
    instances: tuple[str, ...]
    frames: tuple[int, ...] = ()


class _Sources(BaseModel):
    images: dict[str, Source]


def write_sources(folder: Path, sources: Mapping[str, Source]) -> None:
    """Write the sources of the images of a folder; those of images that are known already are replaced.

    :param folder: with ``scans.csv``.
    :param sources: by the name of the image without its ending: ``{case}_{channel:04d}``.
    """
    known = read_sources(folder) | dict(sources)
    write_json({"images": {name: known[name].model_dump() for name in sorted(known)}}, folder / SOURCES_JSON)


def read_sources(folder: Path) -> dict[str, Source]:
    """Read the sources of the images of a folder; empty where there is no such file.

    :raises ConfigurationError: the file was changed.
    """
    path = folder / SOURCES_JSON
    return validated(_Sources, read_json(path), path).images if path.is_file() else {}


def source_of(frames: "Sequence[Frame]") -> Source | None:
    """Return the source of a volume.

    :param frames: its slices, in order.
    :returns: None where no object can refer to its slices (tiles of a mosaic, or slices of several series), or none is
        on its grid (a tilted gantry, which is resampled).
    """
    if any(frame.tile >= 0 for frame in frames) or tilt_of(frames).any():
        return None
    if len({frame.instance.series_uid for frame in frames}) > 1:
        return None
    instances = tuple(dict.fromkeys(frame.instance.sop_uid for frame in frames))
    one = frames[0].instance
    if 1 < len(instances) < len(frames):
        return None  # several multi-frame files
    numbers = tuple(frame.index for frame in frames) if len(instances) == 1 else ()
    return Source(study=one.study_uid, series=one.series_uid, instances=instances, frames=numbers)


@dataclass(frozen=True)
class SourceSeries:
    """The headers that an image was made from.

    :param headers: without pixels, in the order of slices; of a multi-frame file, one.
    :param frames: of a multi-frame file, the frames in the order of slices, counted from 0; else empty.
    :param geometry: grid of the slices as they are stored: along rows, along columns, along slices.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...]
    geometry: Geometry

    @property
    def first(self) -> Dataset:
        """Return the first header, for whatever all slices share."""
        return self.headers[0]

    @property
    def positions(self) -> np.ndarray:
        """Return the place of the first voxel of each slice, (slices, 3), mm."""
        return np.array([_plane(header, frame)[0] for header, frame in self.slices])

    @property
    def slices(self) -> list[tuple[Dataset, int | None]]:
        """Return header and frame of each slice; the frame is None where every slice has a file."""
        if not self.frames:
            return [(header, None) for header in self.headers]
        return [(self.headers[0], frame) for frame in self.frames]


def read_series(source: Source, files: Mapping[str, Path]) -> SourceSeries:
    """Read the headers that an image was made from.

    :param files: of the export, by SOPInstanceUID.
    :raises DataError: an instance is missing, or the slices have no place in space.
    """
    if missing := [uid for uid in source.instances if uid not in files]:
        raise DataError(
            f"{len(missing)} of {len(source.instances)} DICOM instances of series {source.series} are not in the "
            f"export: {first_few(missing, most=2)}. Give the folder with the series that the scan was imported from."
        )
    headers = tuple(_usable(dcmread(files[uid], stop_before_pixels=True)) for uid in source.instances)
    # some single-frame files have groups, too, with nothing in them
    is_multi_frame = "NumberOfFrames" in headers[0] and "PerFrameFunctionalGroupsSequence" in headers[0]
    frames = (source.frames or tuple(range(int(headers[0].NumberOfFrames)))) if is_multi_frame else ()
    slices = [(headers[0], frame) for frame in frames] or [(header, None) for header in headers]
    geometry = _grid(slices, files[source.instances[0]])
    for header, frame in slices:
        _complete(header, frame, geometry.spacing[2])
        header.FrameOfReferenceUID = headers[0].FrameOfReferenceUID  # some de-identified series have one for each slice
        if frame is None:
            header.ImageOrientationPatient = headers[0].ImageOrientationPatient  # equal but for rounding
    return SourceSeries(headers, frames, geometry)


def files_by_uid(export: "Export") -> dict[str, Path]:
    """Return the files of an export by SOPInstanceUID. :param export: its headers."""
    return {instance.sop_uid: instance.path for instance in export.instances if instance.sop_uid}


def slices_in_order(array: np.ndarray, geometry: Geometry, series: SourceSeries) -> np.ndarray:
    """Order the voxels of an image as its DICOM slices are stored.

    An image may have its axes in another order, or in another direction: its voxels are the same.

    :param array: (z, y, x), on the grid of the series.
    :param geometry: of the image.
    :returns: (slices, rows, columns).
    :raises DataError: the image is not on the grid of the series.
    """
    turn = _turn(geometry, series.geometry)
    if turn is None:
        differences = geometry.differences(series.geometry)
        raise DataError(
            "it is not on the grid of the DICOM series that it was made from: "
            + "; ".join(f"{name} {here}, the series has {there}" for name, here, there in differences)
            + ". A registered or resampled scan has no DICOM series of its own: predict from the scans as they were "
            "imported."
        )
    order, flips = turn
    turned = np.flip(array.transpose(2, 1, 0).transpose(order), flips)  # x, y, z of the series
    return np.ascontiguousarray(turned.transpose(2, 1, 0))


def is_on_grid(geometry: Geometry, series: SourceSeries) -> bool:
    """Tell whether the voxels of an image are those of a series, in whatever order."""
    return _turn(geometry, series.geometry) is not None


def _turn(geometry: Geometry, target: Geometry) -> tuple[np.ndarray, list[int]] | None:
    """Find how the axes of an image are turned against those of a series.

    :returns: the image's axis along each axis of the series, and the axes of the series along which the image runs
        backwards; None: they are two grids.
    """
    axes = np.rint((np.linalg.inv(_affine(geometry)) @ _affine(target))[:3, :3]).astype(int)
    if not np.array_equal(abs(axes) @ abs(axes).T, np.eye(3)):
        return None
    order = abs(axes).argmax(axis=0)
    flips = [place for place, axis in enumerate(order) if axes[axis, place] < 0]
    if [geometry.size[axis] for axis in order] != list(target.size):
        return None
    return (order, flips) if _farthest(geometry, target, order, flips) <= SAME_PLACE else None


def _affine(geometry: Geometry) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    matrix[:3, 3] = geometry.origin
    return matrix


def _farthest(geometry: Geometry, target: Geometry, order: np.ndarray, flips: list[int]) -> float:
    """Return the largest distance between a corner voxel of the series and its voxel in the image, mm.

    :param order: the image's axis along each axis of the series.
    :param flips: axes of the series along which the image runs backwards.
    """
    last = np.array(target.size) - 1
    of_series = np.array(list(np.ndindex(2, 2, 2))) * last
    turned = of_series.copy()
    turned[:, flips] = last[flips] - turned[:, flips]
    of_image = np.empty_like(turned)
    of_image[:, order] = turned
    places = [
        np.c_[voxels, np.ones(len(voxels))] @ _affine(grid).T
        for voxels, grid in ((of_series, target), (of_image, geometry))
    ]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max())


def _grid(slices: list[tuple[Dataset, int | None]], path: Path) -> Geometry:
    """Return the grid of slices.

    :raises DataError: they have no place in space.
    """
    header = slices[0][0]
    try:
        planes = [_plane(one, frame) for one, frame in slices]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} does not say where its slices are ({error}). Expected ImagePositionPatient, "
            "ImageOrientationPatient and PixelSpacing."
        ) from error
    (first, rows, columns, spacing, thickness), last = planes[0], planes[-1][0]
    if any(np.abs((one[1] - rows, one[2] - columns)).max() > SAME_DIRECTION for one in planes):
        raise DataError(f"{path} and the other slices of its series have several directions. Import the scan again.")
    normal = np.cross(rows, columns)
    step = thickness
    if len(slices) > 1 and (length := float(np.linalg.norm(last - first))) > 0:
        normal, step = (last - first) / length, length / (len(slices) - 1)
    direction = np.stack([rows, columns, normal], axis=1)
    return Geometry(
        (int(header.Columns), int(header.Rows), len(slices)),
        (spacing[1], spacing[0], step),
        tuple(first.tolist()),
        tuple(direction.ravel().tolist()),
    )


def _plane(header: Dataset, frame: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, ...], float]:
    """Return place, direction of a row, direction of a column, spacing (rows, columns) and thickness of a slice."""
    position, orientation, measures = header, header, header
    if frame is not None:
        position = functional_group(header, frame, "PlanePositionSequence")
        orientation = functional_group(header, frame, "PlaneOrientationSequence")
        measures = functional_group(header, frame, "PixelMeasuresSequence")
    cosines = np.array(orientation.ImageOrientationPatient, dtype=float)
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    return (
        np.array(position.ImagePositionPatient, dtype=float),
        *(cosines[:3], cosines[3:]),
        tuple(float(value) for value in measures.PixelSpacing),
        abs(float(thickness)),
    )


def functional_group(header: Dataset, frame: int, name: str) -> Dataset:
    """Return a functional group of a frame of a multi-frame image: its own, else the one that frames share.

    :raises AttributeError: it has neither.
    """
    own = header.PerFrameFunctionalGroupsSequence[frame] if "PerFrameFunctionalGroupsSequence" in header else Dataset()
    return getattr(own if name in own else header.SharedFunctionalGroupsSequence[0], name)[0]


def _usable(header: Dataset) -> Dataset:
    """Return a header from which an object can be made, whatever the export lacks.

    Texts are in UTF-8: an object can hold those of several series, whatever their character sets. Dates, numbers and
    codes that break the standard are removed. Attributes that may be empty, but must be there, are there. A series
    without a frame of reference gets one of its own.
    """
    header.decode()
    for element in list(header):
        if element.VR == "PN" and element.value:
            names = element.value if element.VM > 1 else [element.value]
            plain = [PersonName(str(name)) for name in names]
            element.value = plain if element.VM > 1 else plain[0]
        elif element.VR in CHECKED and not _is_valid(element):
            if element.VR == "DS" and (decimals := _shortened(element.value)):
                element.value = decimals
            else:
                del header[element.tag]
    header.SpecificCharacterSet = "ISO_IR 192"
    for name in MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, None)
    if not header.get("FrameOfReferenceUID"):
        header.FrameOfReferenceUID = repeatable_uid("frame of reference", str(header.SeriesInstanceUID))
    return header


def _complete(header: Dataset, frame: int | None, step: float) -> None:
    """Add what highdicom needs of a source: the thickness of slices, and shared groups of a multi-frame file.

    :param step: mm between slices, for a thickness that is not known.
    """
    if frame is None:
        if not header.get("SliceThickness"):
            header.SliceThickness = DS(step, auto_format=True)
        return
    if not header.get("SharedFunctionalGroupsSequence"):
        header.SharedFunctionalGroupsSequence = [Dataset()]
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        shared = header.SharedFunctionalGroupsSequence[0]
        if name not in shared:
            setattr(shared, name, [functional_group(header, frame, name)])


def _shortened(values: Any) -> list[DS]:
    """Round decimals that are longer than the standard's 16 letters, as many are; empty where they are no numbers."""
    try:
        numbers = [float(value) for value in (values if isinstance(values, MutableSequence) else [values])]
    except (TypeError, ValueError):
        return []
    return [DS(number, auto_format=True) for number in numbers] if np.isfinite(numbers).all() else []


def _is_valid(element: DataElement) -> bool:
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            text = getattr(value, "original_string", None) or ("" if value is None else str(value))
            validate_value(element.VR, text, RAISE)
    except ValueError:
        return False
    return True
