"""A subject to register: its files, and how its scans, transforms and record are written."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from longflow.data.box import Box, box_slices
from longflow.data.dataset import DatasetDescription, Scan, Series
from longflow.data.images import (
    Geometry,
    check_same_grid,
    label_advice,
    read_array,
    read_geometry,
    read_image,
    write_volume,
)
from longflow.data.nifti import moved
from longflow.data.phases import phase_pairs
from longflow.errors import DataError
from longflow.files import atomic_write, file_digest, write_json
from longflow.paths import path_in
from longflow.reading import read_json
from longflow.registration.linear import transform_of

Model = Literal["rigid", "affine", "deformable"]

BSPLINE_ORDER_3 = sitk.sitkBSpline


@dataclass(frozen=True)
class SubjectToRegister:
    """A subject's scans with existing files, and their target.

    :param series: the scans in order of time.
    :param part: "Tr" or "Ts".
    :param model: of the transforms.
    :param description: dataset.json.
    :param raw: folder of the dataset.
    :param target: folder of the new dataset.
    :param phases: the two phases of a task that uses phases, the reference first; else empty.
    """

    series: Series
    part: str
    model: Model
    description: DatasetDescription
    raw: Path
    target: Path
    phases: tuple[str, ...] = ()

    @property
    def record(self) -> Path:
        """Return the path of the subject's record. It is written last: if it exists, the subject is finished."""
        suffix = "" if self.part == "Tr" else "_test"
        return path_in(self.target / "transforms", f"{self.series.subject}{suffix}.json")

    @property
    def sources(self) -> dict[str, str]:
        """Return the digest of every file that is read."""
        files = [path for scan in self.series.scans for path in files_of(scan)]
        return {path.relative_to(self.raw).as_posix(): file_digest(path) for path in files}

    @property
    def is_finished(self) -> bool:
        """Tell whether an earlier run has written all files, from the same sources and for the same phases."""
        try:
            record = read_json(self.record)
            written = [self.target / name for name in record["sources"]]
            return (
                record["sources"] == self.sources
                and tuple(record.get("phases", ())) == self.phases
                and all(path.is_file() for path in written)
            )
        except (DataError, KeyError, TypeError):
            return False

    @property
    def alone(self) -> bool:
        """Tell whether there is nothing to register: one scan, or no pair of phases."""
        if self.phases:
            return not phase_pairs(self.series, self.phases)
        return len(self.series.scans) == 1

    def target_of(self, path: Path) -> Path:
        """Return the path in the new dataset of a file of the raw dataset."""
        return self.target / path.relative_to(self.raw)


def files_of(scan: Scan) -> list[Path]:
    """List every file of a scan: its channels, and its label where there is one."""
    return [*scan.images, *([scan.label] if scan.label else [])]


def check_files(scan: Scan, geometry: Geometry) -> None:
    """Check that every channel and the label are on the grid of the first channel.

    :param scan: the scan.
    :param geometry: grid of its first channel.
    :raises DataError: a file is on another grid.
    """
    first = f"the first channel, {scan.images[0].name},"
    for path in files_of(scan)[1:]:
        found, advice = read_geometry(path), "All files of a scan must be on one grid."
        if path == scan.label:
            advice += f" {label_advice(found, read_geometry(scan.images[0]))}"
        check_same_grid(found, path, geometry, first, advice)


def grid_image(geometry: Geometry) -> sitk.Image:
    """Make an empty image on a grid, to resample to."""
    image = sitk.Image(geometry.size, sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def cropped(geometry: Geometry, box: Box) -> Geometry:
    """Return the grid of a crop.

    :param geometry: of the whole volume.
    :param box: [start, stop] along z, y, x.
    :returns: the grid of the voxels inside; the transforms of a NIfTI header move with it.
    """
    found = Geometry.of(grid_image(geometry)[tuple(reversed(box_slices(box)))])
    start = tuple(first for first, _ in reversed(box))
    return replace(found, nifti=moved(geometry.nifti, start) if geometry.by_transform else b"")


def copy_scan(scan: Scan, subject: SubjectToRegister) -> None:
    """Copy every file of a scan unchanged."""
    for path in files_of(scan):
        with atomic_write(subject.target_of(path)) as temporary:
            shutil.copyfile(path, temporary)


def crop_scan(scan: Scan, box: Box, subject: SubjectToRegister) -> None:
    """Crop every file of a scan to a box; the voxels inside are unchanged."""
    for path in files_of(scan):
        array, geometry = read_array(path)
        write_volume(array[box_slices(box)], cropped(geometry, box), array.dtype.name, subject.target_of(path))


def write_scan(scan: Scan, geometry: Geometry, transform: sitk.Transform, subject: SubjectToRegister) -> None:
    """Resample every channel by cubic splines, limited to its own range, and the label by nearest neighbour; each once.

    :param scan: the scan.
    :param geometry: the new grid.
    :param transform: from points of the new grid to points of the scan, mm.
    :param subject: its settings.
    """
    grid = grid_image(geometry)
    for path in scan.images:
        image = read_image(path)
        array = sitk.GetArrayViewFromImage(image)
        lowest, highest, data_type = float(array.min()), float(array.max()), array.dtype.name
        cubic = sitk.Resample(
            sitk.Cast(image, sitk.sitkFloat32), grid, transform, BSPLINE_ORDER_3, lowest, sitk.sitkFloat32
        )
        result = np.clip(sitk.GetArrayFromImage(cubic), lowest, highest)
        write_volume(result, geometry, data_type, subject.target_of(path))
    if scan.label is not None:
        ignore = subject.description.labels.get("ignore", 0)  # unknown outside the field of view
        label = read_image(scan.label)
        nearest = sitk.Resample(label, grid, transform, sitk.sitkNearestNeighbor, float(ignore))
        array = sitk.GetArrayViewFromImage(nearest)
        write_volume(array, geometry, array.dtype.name, subject.target_of(scan.label))


def write_transforms(
    scans: Sequence[Scan], matrices: Sequence[np.ndarray], fields: Sequence[sitk.Image | None], target: Path
) -> None:
    """Write ``{case}.tfm``, and ``{case}_displacement.nii.gz`` where there is a displacement: y -> A(y + u(y)).

    :param scans: the scans.
    :param matrices: A of each scan, 4 x 4, mm.
    :param fields: u of each scan, mm, or None.
    :param target: folder of the new dataset.
    """
    folder = target / "transforms"
    for scan, matrix, field in zip(scans, matrices, fields, strict=True):
        with atomic_write(path_in(folder, f"{scan.case}.tfm")) as temporary:
            sitk.WriteTransform(transform_of(matrix), str(temporary))
        if field is not None:
            with atomic_write(path_in(folder, f"{scan.case}_displacement.nii.gz")) as temporary:
                sitk.WriteImage(sitk.Cast(field, sitk.sitkVectorFloat32), str(temporary), useCompression=True)


def write_record(subject: SubjectToRegister, content: dict[str, Any]) -> None:
    """Write the record of a subject, once all its files are written."""
    phases = {"phases": list(subject.phases)} if subject.phases else {}
    write_json({**content, **phases, "sources": subject.sources}, subject.record)
