"""Read labels of a series from DICOM: segmentations (SEG) and structure sets of radiotherapy (RTSTRUCT)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longflow.data.images import Geometry
from longflow.dicom.headers import SEGMENTATIONS, Frame, Instance
from longflow.dicom.libraries import require_dicom
from longflow.dicom.stacks import Stack, geometry_of, tilt_of
from longflow.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

#: share of the distance of slices by which a contour may be off its slice
OFF_SLICE = 0.1


@dataclass(frozen=True)
class DicomLabels:
    """Labels of a volume, which are read when they are needed.

    :param instances: the files that hold them.
    :param frames: slices of the volume, sorted along their normal.
    :param values: label value by name of a structure, lower case.
    """

    instances: tuple[Instance, ...]
    frames: tuple[Frame, ...]
    values: tuple[tuple[str, int], ...]

    @property
    def files(self) -> list[Path]:
        """Return the files."""
        return [instance.path for instance in self.instances]

    @property
    def name(self) -> str:
        """Return the first file, for messages."""
        return str(self.instances[0].path)

    def read(self) -> tuple[np.ndarray, Geometry]:
        """Read the labels, as :func:`read_labels`."""
        return read_labels(self.instances, self.frames, dict(self.values))


def name_of_structure(number: int, name: str) -> str:
    """Return the name by which structures of several files are the same: lower case, or that of the number."""
    return name.strip().casefold() or f"structure_{number}"


def time_point_of(instance: Instance, stack: Stack) -> int | None:
    """Find the time point of a stack that labels refer to.

    :param instance: of the labels.
    :param stack: a stack of a series that they refer to.
    :returns: the place of the point; None: they refer to another stack, or to several points alike.
    """
    if stack.instance.series_uid not in instance.references and not any(
        frame.instance.sop_uid in instance.references for point in stack.points for frame in point
    ):
        return None
    shared = [len({frame.instance.sop_uid for frame in point} & instance.references) for point in stack.points]
    if max(shared) == 0:
        return 0 if len(stack.points) == 1 else None
    return shared.index(max(shared)) if shared.count(max(shared)) == 1 else None


def read_labels(
    instances: Sequence[Instance], frames: Sequence[Frame], values: Mapping[str, int]
) -> tuple[np.ndarray, Geometry]:
    """Read the labels of a volume. Where structures overlap, the smaller one counts: a tumour within an organ.

    :param instances: SEG and RTSTRUCT files.
    :param frames: slices of the volume, sorted along their normal.
    :param values: label value by :func:`name_of_structure`.
    :returns: (z, y, x), uint8 or uint16; the grid of the volume.
    :raises DataError: the labels are on another grid, or a file cannot be read.
    """
    require_dicom()
    geometry = geometry_of(frames)
    if tilt_of(frames).any():
        raise DataError(
            f"{instances[0].path}: its series has a gantry tilt and is resampled, its labels are not. Exclude the "
            "labels (use = no)."
        )
    masks: list[tuple[int, np.ndarray]] = []
    for instance in instances:
        reading = _segments if instance.sop_class in SEGMENTATIONS else _regions
        for number, mask in reading(instance, geometry).items():
            name = name_of_structure(number, dict(instance.structures).get(number, ""))
            if name in values:
                masks.append((values[name], mask))
    labels = np.zeros(geometry.size[::-1], np.uint8 if max(values.values(), default=0) < 256 else np.uint16)
    for value, mask in sorted(masks, key=lambda one: -int(one[1].sum())):
        labels[mask] = value
    return labels, geometry


def _segments(instance: Instance, geometry: Geometry) -> dict[int, np.ndarray]:
    """Return the mask of each segment of a SEG, (z, y, x)."""
    import highdicom

    try:
        segmentation = highdicom.seg.segread(instance.path)
        volume = segmentation.get_volume(allow_missing_positions=True, rescale_fractional=True)
        found = volume.match_geometry(_volume_geometry(geometry), tol=1e-2)
        numbers = list(segmentation.segment_numbers)
    except Exception as error:  # highdicom raises many kinds; the common one is another grid
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"{instance.path}: this segmentation is not on the grid of its series, or is damaged. Exclude it "
            f"(use = no), or export it again. (The reader said: {said})"
        ) from error
    masks = np.moveaxis(np.asarray(found.array), -1, 0) > 0.5
    return {int(number): mask for number, mask in zip(numbers, masks, strict=True)}


def _volume_geometry(geometry: Geometry):
    """Return a grid as highdicom has it: (slices, rows, columns)."""
    import highdicom

    axes = np.reshape(geometry.direction, (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = (axes * geometry.spacing)[:, ::-1]
    affine[:3, 3] = geometry.origin
    return highdicom.VolumeGeometry(affine, geometry.size[::-1], coordinate_system="PATIENT")


def _regions(instance: Instance, geometry: Geometry) -> dict[int, np.ndarray]:
    """Return the mask of each region of an RTSTRUCT, (z, y, x).

    A voxel counts where its centre is inside an odd number of contours, so that holes stay holes.
    """
    import pydicom

    dataset = pydicom.dcmread(instance.path, force=True)
    masks: dict[int, np.ndarray] = {}
    for region in dataset.get("ROIContourSequence") or ():
        contours = [
            contour
            for contour in region.get("ContourSequence") or ()
            if contour.ContourGeometricType == "CLOSED_PLANAR"
        ]
        if contours:
            mask = np.zeros(geometry.size[::-1], bool)
            for contour in contours:
                _draw(mask, contour, geometry, instance.path)
            masks[int(region.ReferencedROINumber)] = mask
    return masks


def _draw(mask: np.ndarray, contour: "Dataset", geometry: Geometry, path: Path) -> None:
    """Invert the voxels inside a contour."""
    from skimage.draw import polygon

    points = np.reshape([float(value) for value in contour.ContourData], (-1, 3)) - geometry.origin
    x, y, z = (points @ np.reshape(geometry.direction, (3, 3)) / geometry.spacing).T
    place = int(np.rint(z.mean()))
    if np.abs(z - place).max() > OFF_SLICE or not 0 <= place < len(mask):
        raise DataError(
            f"{path}: a contour is between the slices of its series or outside of them, expected contours in the "
            "planes of the slices. Exclude the labels (use = no)."
        )
    rows, columns = polygon(y, x, mask.shape[1:])
    mask[place, rows, columns] ^= True
