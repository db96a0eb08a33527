"""The integrity of the voxels of one subject. It runs in a worker, with one file in memory at a time."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np

from longflow.data.images import REPLACE_INFINITE, Geometry, by_axis, label_advice, read_voxels, two_transforms
from longflow.data.nifti import describe_infinite
from longflow.errors import FileError, first_few
from longflow.integrity.hounsfield import HOUNSFIELD_UNITS, hounsfield_doubt
from longflow.integrity.pairs import Look, look_at, shift_problems
from longflow.integrity.problems import REGISTER, Problem, error, warning


@dataclass(frozen=True)
class FileToCheck:
    """A file that exists.

    :param path: of the file.
    :param shown: its path in messages, relative to the dataset's folder.
    :param kind: image or label.
    :param is_ct: whether it is an image whose channel is CT.
    """

    path: str
    shown: str
    kind: Literal["image", "label"]
    is_ct: bool = False


@dataclass
class SubjectToCheck:
    """A subject's scans in order of time, each with its images (in order of channels) and then its label, if any.

    :param label_values: values that dataset.json names.
    :param units_required: whether CT that is not in Hounsfield units is an error; else a warning.
    :param pairs: positions of scans that should be aligned.
    """

    subject: str
    scans: list[list[FileToCheck]]
    label_values: set[int]
    units_required: bool = False
    pairs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def has_labels(self) -> bool:
        return any(file.kind == "label" for scan in self.scans for file in scan)


def check_subject(subject: SubjectToCheck) -> tuple[list[Problem], set[int]]:
    """Find all problems of the files of a subject.

    :returns: the problems, and the label values that occur.
    """
    problems: list[Problem] = []
    values: set[int] = set()
    of_subject: tuple[str, Geometry] | None = None
    looks: dict[int, Look] = {}
    for position, scan in enumerate(subject.scans):
        of_scan: tuple[str, Geometry] | None = None
        for file in scan:
            try:
                array, geometry = read_voxels(Path(file.path))
            except FileError as problem:
                problems.append(error(file.shown, problem.field, problem.found, problem.expected, problem.advice))
                continue
            if file.kind == "image":
                found = intensity_problems(array, file)
                problems += found or (hounsfield_problems(array, file, subject.units_required) if file.is_ct else [])
                if not found and any(position in pair for pair in subject.pairs):
                    looks.setdefault(position, look_at(array, file.shown, geometry, file.is_ct))
            else:
                found, here = _check_labels(array, file, subject.label_values)
                problems += found
                values |= here
            problems += _check_header(geometry, file)
            if of_scan is not None:
                problems += _compare(file, geometry, of_scan, within_scan=True)
            elif of_subject is not None:
                problems += _compare(file, geometry, of_subject, within_scan=False)
            of_scan = of_scan or (file.shown, geometry)
            of_subject = of_subject or (file.shown, geometry)
    for one, other in subject.pairs:
        if one in looks and other in looks:
            problems += shift_problems(looks[one], looks[other])
    return problems, values


def intensity_problems(array: np.ndarray, file: FileToCheck) -> list[Problem]:
    """Check that the voxels of an image are finite numbers and not all the same."""
    with np.errstate(over="ignore"):  # what is too large for 32 bits is infinite
        infinite = describe_infinite(array.astype(np.float32) if array.dtype == np.float64 else array)
    if infinite:
        return [error(file.shown, "voxels", infinite, "finite numbers", REPLACE_INFINITE)]
    lowest, highest = array.min(), array.max()
    if lowest == highest:
        advice = "The image is empty. Copy the file again from its source, or exclude the scan."
        return [error(file.shown, "voxels", f"all {lowest:g}", "an image", advice)]
    return []


def hounsfield_problems(array: np.ndarray, file: FileToCheck, units_required: bool) -> list[Problem]:
    """Check that CT is in HU: an error for a task that clips HU, else a warning, since only contrasts count."""
    doubt = hounsfield_doubt(array)
    if doubt is None:
        return []
    kind = error if units_required else warning
    return [kind(file.shown, "values", doubt.found, HOUNSFIELD_UNITS, doubt.advice)]


def _check_labels(array: np.ndarray, file: FileToCheck, known: set[int]) -> tuple[list[Problem], set[int]]:
    found = np.unique(array)
    values = {int(value) for value in found if np.isfinite(value) and value == int(value)}
    if len(values) < len(found):
        odd = [f"{value:g}" for value in found if not np.isfinite(value) or value != int(value)]
        advice = "Resample label images with nearest neighbour; interpolation makes such values."
        return [error(file.shown, "label values", first_few(odd, most=3), "whole numbers", advice)], values
    unknown = sorted(values - known)
    if unknown:
        advice = "Name the value under labels in dataset.json, or correct the label image."
        allowed = ", ".join(map(str, sorted(known)))
        return [error(file.shown, "label values", first_few(unknown), allowed, advice)], values
    return [], values


def _check_header(geometry: Geometry, file: FileToCheck) -> list[Problem]:
    """Warn of a NIfTI header that holds two transforms, or two spacings."""
    if two := two_transforms(geometry):
        return [warning(file.shown, "header", *two)]
    if not (sform := geometry.by_transform.get("sform")):
        return []
    pixdim = nibabel.Nifti1Header(geometry.nifti, check=False)["pixdim"][1:4]
    if np.allclose(sform.spacing, pixdim, rtol=1e-2):
        return []
    return [
        warning(
            file.shown,
            "spacing",
            f"{by_axis(pixdim)} in pixdim, but {by_axis(sform.spacing)} in the sform",
            "one spacing",
            f"{by_axis(geometry.spacing)} is used. If it is wrong, write the file again with a correct header.",
        )
    ]


def _compare(file: FileToCheck, here: Geometry, other: tuple[str, Geometry], within_scan: bool) -> list[Problem]:
    name, geometry = other
    if not within_scan:
        advice = REGISTER
    elif file.kind == "label":
        advice = label_advice(here, geometry)
    else:
        advice = "All channels of a scan must be on one grid. Resample it to that grid."
    problems = []
    for what, expected, found in geometry.differences(here):
        if what == "direction":
            expected, found = "0 degrees", f"axes turned by {_angle(geometry, here):.3g} degrees"
        problems.append(error(file.shown, what, found, f"{expected}, as in {Path(name).name}", advice))
    return problems


def _angle(one: Geometry, other: Geometry) -> float:
    """Return the largest angle between corresponding axes of two geometries, degrees."""
    cosines = np.sum(np.reshape(one.direction, (3, 3)) * np.reshape(other.direction, (3, 3)), axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1)).max()))
