"""Registration of a raw dataset: the scans of each subject are aligned in a new raw dataset.

In the new dataset, the scans of a subject are on the grid of its mid-space; every scan is resampled once. A task that
uses contrast phases is registered otherwise: to the scans in the first phase, which are not changed
(:mod:`longflow.registration.pairs`). The folder ``transforms`` keeps the transform of every scan. A registration that
fails the checks is reported and not written.
"""

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow import __version__
from longflow.data.body import bright_image
from longflow.data.dataset import DatasetDescription, Series, read_description, series_of_folder, write_scans
from longflow.data.images import Geometry, by_axis, read_geometry, read_image
from longflow.data.memory import check_memory
from longflow.data.phases import phases_of_dataset
from longflow.errors import DataError, LongflowError, first_few
from longflow.files import exclusive_lock, write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import lock_beside, path_in
from longflow.reading import read_json
from longflow.registration.agreement import COLUMNS, agreement_of_dataset
from longflow.registration.checks import (
    RegistrationError,
    check_folding,
    check_matrix,
    check_orientation,
    check_overlap,
    check_similarity,
    correlation,
    resampled,
    similarity,
)
from longflow.registration.deformable import deformations, has_ants, transform_of_field
from longflow.registration.linear import mid_grid, pyramid, scan_of_reference, scans_of_mid, transform_of
from longflow.registration.pairs import excluded_scans, register_pairs, scans_of_pairs, slices_kept
from longflow.registration.subject import (
    Model,
    SubjectToRegister,
    check_files,
    copy_scan,
    grid_image,
    write_record,
    write_scan,
    write_transforms,
)
from longflow.task import get_task

logger = logging.getLogger(__name__)

#: file in the new dataset that says how it was made
RECORD = "registration.json"
#: table of how the phases of each pair agree before and after
AGREEMENT_CSV = "registration.csv"
#: bytes at the peak for each voxel of a subject's largest scan, and for each scan of it (measured on MS follow-ups)
BYTES_PER_VOXEL = {"rigid": (60, 20), "affine": (60, 20), "deformable": (100, 60)}


@dataclass(frozen=True)
class Failure:
    """A subject that is excluded from the new dataset.

    :param subject: its name.
    :param cause: why it could not be registered.
    """

    subject: str
    cause: str


def register_dataset(
    raw: Path,
    target: Path,
    model: Model,
    *,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Failure]:
    """Write a raw dataset with aligned scans in each subject; finished subjects of an earlier run are kept.

    :param raw: folder of the dataset to register; it is only read.
    :param target: folder of the new dataset.
    :param model: of the transforms.
    :param processes: number of worker processes; None: as many as cores and memory allow.
    :param overwrite: replace a dataset that an earlier registration made differently.
    :param progress: called with (subjects done, all subjects, name).
    :returns: the subjects that could not be registered; the new dataset excludes them.
    :raises DataError: the dataset cannot be read, no subject could be registered, or another dataset is at ``target``.
    :raises InUseError: another process writes the new dataset.
    """
    description = read_description(raw / "dataset.json")
    with exclusive_lock(lock_beside(target), f"{target.name} is being written"):
        _prepare_target(raw, target, model, overwrite)
        return _register_all(raw, target, model, description, processes, progress)


def _register_all(
    raw: Path,
    target: Path,
    model: Model,
    description: DatasetDescription,
    processes: int | None,
    progress: Progress | None,
) -> list[Failure]:
    """Register what is not finished, and write the tables of the new dataset."""
    parts, phases = _scans_to_register(raw, description)
    subjects = {
        _name(one, part): SubjectToRegister(one.with_images(), part, model, description, raw, target, phases)
        for part, series in parts.items()
        for one in series
    }
    _warn_of_single_scans(subjects, phases)
    work = {name: subject for name, subject in subjects.items() if subject.series.scans and not subject.is_finished}
    fitting = processes_that_fit(processes, [_bytes_needed(subject) for subject in work.values()]) if work else 1
    causes = {
        name: cause for name, cause in for_each_subject(register_subject, work, fitting, progress) if cause is not None
    }
    for name in causes:
        _forget(subjects[name])
    if agreement := agreement_of_dataset(target):
        write_csv(COLUMNS, agreement, target / AGREEMENT_CSV)
    if cropped := slices_kept(subject for name, subject in subjects.items() if name not in causes):
        logger.warning("Cut to the slices that both phases show: %s.", first_few(cropped))
    _write_tables(parts, causes, raw, target)
    return [Failure(name, causes[name]) for name in sorted(causes)]


def _name(series: Series, part: str) -> str:
    """Return the name of a subject in messages. :param part: "Tr" or "Ts"."""
    return series.subject if part == "Tr" else f"{series.subject} (test)"


def _scans_to_register(raw: Path, description: DatasetDescription) -> tuple[dict[str, list[Series]], tuple[str, ...]]:
    """Return the series by part ("Tr", "Ts"), and the two phases of a task that uses phases; else no phase."""
    parts = {"Tr": series_of_folder(raw / "imagesTr", description, raw / "labelsTr")}
    if (raw / "imagesTs").is_dir():
        test = series_of_folder(raw / "imagesTs", description, raw / "labelsTs")
        parts["Ts"] = [_with_targets(one, raw) for one in test]
    if not get_task(description.task).uses_phases:
        return parts, ()
    phases = tuple(phases_of_dataset(description, [one.with_images() for one in parts["Tr"]]))
    for words in excluded_scans([one for series in parts.values() for one in series], phases):
        logger.warning("Excluded: %s", words)
    return {part: [scans_of_pairs(one, phases) for one in series] for part, series in parts.items()}, phases


def _warn_of_single_scans(subjects: dict[str, SubjectToRegister], phases: tuple[str, ...]) -> None:
    single = [name for name, subject in subjects.items() if subject.alone]
    if single:
        count = f"{len(single)} of {len(subjects)} subjects have" if len(subjects) > 1 else "The subject has"
        what = f"no pair of {' and '.join(phases)}" if phases else "one scan"
        logger.warning(
            "%s %s. There is nothing to register; the files are copied (%s).", count, what, first_few(single)
        )


def _prepare_target(raw: Path, target: Path, model: Model, overwrite: bool) -> None:
    settings = {"source": raw.name, "model": model}
    if target.resolve() == raw.resolve():
        raise DataError(f"{target} is the dataset to register. Give the new dataset another name with -o.")
    if target.exists() and not is_made_by(target, raw.name, model) and not overwrite:
        raise DataError(f"{target} already exists and was made differently. Use another name with -o, or --overwrite.")
    if target.exists() and overwrite:
        if not (target / RECORD).is_file():
            raise DataError(
                f"{target} was not made by longflow_register: it has no {RECORD}. It is not replaced. Use another name "
                "with -o."
            )
        shutil.rmtree(target)
    write_json({"settings": settings, "longflow_version": __version__}, target / RECORD)


def is_made_by(target: Path, source: str, model: Model) -> bool:
    """Tell whether a folder holds a dataset, complete or not, that was registered in this way.

    :param target: the folder.
    :param source: name of the dataset that was registered.
    :param model: of the transforms.
    :returns: False also where the folder does not exist.
    """
    try:
        return read_json(target / RECORD)["settings"] == {"source": source, "model": model}
    except (DataError, KeyError, TypeError):
        return False


def _with_targets(series: Series, raw: Path) -> Series:
    """Add the images of requested scans of a test subject, where targetsTs has them."""
    scans = []
    for scan in series.scans:
        reference = tuple(raw / "targetsTs" / path.name for path in scan.images)
        exists = not scan.exists and all(path.is_file() for path in reference)
        scans.append(replace(scan, images=reference) if exists else scan)
    return Series(series.subject, tuple(scans))


def _bytes_needed(subject: SubjectToRegister) -> int:
    try:
        voxels = max(int(np.prod(read_geometry(scan.images[0]).size)) for scan in subject.series.scans)
    except LongflowError:
        return 0  # the file cannot be read; the worker reports it
    once, for_each = BYTES_PER_VOXEL[subject.model]
    return voxels * (once + for_each * len(subject.series.scans))


def _forget(subject: SubjectToRegister) -> None:
    """Remove the files that an earlier run wrote of a subject that can no longer be registered."""
    subject.record.unlink(missing_ok=True)
    for name in subject.sources:
        (subject.target / name).unlink(missing_ok=True)
    for scan in subject.series.scans:
        for ending in (".tfm", "_displacement.nii.gz"):
            path_in(subject.target / "transforms", f"{scan.case}{ending}").unlink(missing_ok=True)


def _write_tables(parts: dict[str, list[Series]], causes: dict[str, str], raw: Path, target: Path) -> None:
    kept = {part: [one for one in series if _name(one, part) not in causes] for part, series in parts.items()}
    if not kept["Tr"]:
        raise DataError(
            f"No subject of {raw} could be registered, so no dataset was written. First causes: "
            + first_few((f"{name}: {cause}" for name, cause in causes.items()), most=3)
        )
    if any(kept.get("Ts", [])):
        write_scans([scan for one in kept["Ts"] for scan in one.scans], target / "imagesTs" / "scans.csv")
    write_scans([scan for one in kept["Tr"] for scan in one.scans], target / "scans.csv")
    content = read_json(raw / "dataset.json")
    if "numTraining" in content:
        content["numTraining"] = sum(len(one.scans) for one in kept["Tr"])
    if "time_unit" not in content:  # of a LongiSeg dataset, whose table is not scans.csv
        content["time_unit"] = "visits"
    write_json(content, target / "dataset.json")


def register_subject(subject: SubjectToRegister) -> str | None:
    """Register and write one subject. This runs in a worker.

    :param subject: its files and settings.
    :returns: None, or the reason why nothing was written.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # one process per core is at work already
    try:
        if subject.alone:
            for scan in subject.series.scans:
                copy_scan(scan, subject)
            write_record(subject, {"model": "none: the subject has nothing that it could be registered to"})
        elif subject.phases:
            register_pairs(subject)
        else:
            _register(subject)
    except LongflowError as error:
        return str(error)
    except RuntimeError as error:
        return f"the registration failed ({str(error).strip().splitlines()[-1].strip()})"
    return None


def _register(subject: SubjectToRegister) -> None:
    scans = subject.series.scans
    images = [read_image(scan.images[0]) for scan in scans]
    for scan, image in zip(scans, images, strict=True):
        check_files(scan, Geometry.of(image))
    matrices, report = _linear(images, subject)
    geometry = mid_grid([Geometry.of(image) for image in images], matrices)
    found = f"{by_axis(geometry.size)} voxels of {by_axis(geometry.spacing, 3)} mm to cover all scans"
    check_memory(4 * len(scans) * math.prod(geometry.size), scans[0].images[0], found)
    grid = grid_image(geometry)
    transforms: list[sitk.Transform] = [transform_of(matrix) for matrix in matrices]
    on_grid = [resampled(image, grid, transform) for image, transform in zip(images, transforms, strict=True)]
    report["overlap of the fields of view"] = check_overlap([np.isfinite(array) for array in on_grid])
    fields: list[sitk.Image | None] = [None] * len(scans)
    if subject.model == "deformable":
        fields, further = _deform(on_grid, grid)
        report.update(further)
        transforms = [
            sitk.CompositeTransform([linear, transform_of_field(field)])
            for linear, field in zip(transforms, fields, strict=True)
        ]
    for scan, transform in zip(scans, transforms, strict=True):
        write_scan(scan, geometry, transform, subject)
    write_transforms(scans, matrices, fields, subject.target)
    write_record(subject, {"model": subject.model, **report})


def _linear(images: Sequence[sitk.Image], subject: SubjectToRegister) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Estimate and check the transforms from the mid-space to each scan.

    The scan in the middle of the series is registered to all others, since it is the nearest to all of them.

    :returns: 4 x 4 matrices on mm, one for each scan; entries of the subject's record.
    """
    pyramids = [pyramid(image) for image in images]
    middle = (len(images) - 1) // 2
    cases = [scan.case for scan in subject.series.scans]
    of_middle, before, after = [], {}, {}
    for index, levels in enumerate(pyramids):
        matrix = np.eye(4)
        if index != middle:
            pair = f"{cases[middle]} and {cases[index]}"
            try:
                matrix = scan_of_reference(pyramids[middle], levels, affine=subject.model == "affine")
                before[pair] = round(similarity(pyramids[middle][-1], levels[-1], np.eye(4)), 4)
                after[pair] = round(similarity(pyramids[middle][-1], levels[-1], matrix), 4)
                check_orientation(pyramids[middle], levels, matrix)
                check_similarity(before[pair], after[pair])
                check_matrix(matrix)
            except DataError as error:
                raise RegistrationError(f"{pair}: {error}") from error
        of_middle.append(matrix)
    return scans_of_mid(of_middle), {"correlation by the headers": before, "correlation after": after}


def _deform(on_grid: list[np.ndarray], grid: sitk.Image) -> tuple[list[sitk.Image], dict[str, Any]]:
    """Estimate and check the displacement fields on the mid-space grid.

    :param on_grid: (z, y, x) each, the scans in their linear mid-space, NaN outside their field of view.
    :param grid: an image on that grid.
    :returns: a field for each scan; entries of the subject's record.
    """
    filled = []
    for array in on_grid:
        image = sitk.GetImageFromArray(np.nan_to_num(array, nan=float(np.nanmin(array))))
        image.CopyInformation(grid)
        filled.append(image)
    backend = "syn" if has_ants() else "demons"
    fields = deformations(filled, backend)
    folded = max(check_folding(field) for field in fields)
    bodies = np.logical_or.reduce([sitk.GetArrayFromImage(bright_image(image)) > 0 for image in filled])
    after_arrays = [
        resampled(image, grid, transform_of_field(field)) for image, field in zip(filled, fields, strict=True)
    ]
    before, after = (_mean_agreement(arrays, bodies) for arrays in (on_grid, after_arrays))
    check_similarity(before, after)
    lengths = [float(np.linalg.norm(sitk.GetArrayViewFromImage(field)[bodies], axis=-1).max()) for field in fields]
    return fields, {
        "deformed by": {"syn": "ANTs SyN", "demons": "SimpleITK diffeomorphic demons"}[backend],
        "correlation with the mean before deformation": round(before, 4),
        "correlation with the mean after deformation": round(after, 4),
        "share of voxels that fold": folded,
        "largest displacement in the body, mm": round(max(lengths), 2),
    }


def _mean_agreement(arrays: list[np.ndarray], mask: np.ndarray) -> float:
    """Return the lowest correlation of a scan with the mean of all scans."""
    mean = np.mean(arrays, axis=0)
    return min(correlation(mean, array, mask) for array in arrays)
