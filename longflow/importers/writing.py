"""Write a raw dataset from scans that are elsewhere: whole or not at all, and resumable.

Everything is written into a hidden folder next to the dataset. It gets the dataset's name once it is complete. A killed
import, run again, continues there; nothing ever reads an unfinished dataset.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow import __version__
from longflow.data.dataset import DatasetDescription, Scan, warn_of_spellings, write_description, write_scans
from longflow.data.images import (
    Geometry,
    by_axis,
    check_same_grid,
    label_advice,
    read_geometry,
    read_image_of_any_size,
    write_volume,
)
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.files import exclusive_lock, file_digest, link_or_copy, write_json
from longflow.importers.scans import Blend, Destination, ImportedDataset, ImportedScan, ManyFiles
from longflow.parallel import for_each_subject
from longflow.paths import lock_beside, path_in
from longflow.reading import read_json
from longflow.task import get_task

logger = logging.getLogger(__name__)

FILE_ENDING = ".nii.gz"

#: says what was imported, from which files, and which files were written
IMPORT_JSON = "import.json"

FOLDERS = {
    "training": ("imagesTr", "labelsTr"),
    "context": ("imagesTs", "labelsTs"),
    "target": ("targetsTs", "labelsTs"),
}


def write_dataset(dataset: ImportedDataset, to: Destination) -> bool:
    """Write a raw dataset: dataset.json, scans.csv, imagesTr, labelsTr; with test subjects also imagesTs and so on.

    For a task that predicts no new scans, the targets of test subjects are context like the others.

    :param dataset: its content.
    :param to: where to write it, and how.
    :returns: False where the dataset was imported of the same files with the same settings before, and nothing had to
        be done.
    :raises DataError: a source file cannot be used, or another dataset of this name exists. A dataset that an import
        did not write alone is never deleted.
    :raises InUseError: another process writes the dataset.
    """
    with exclusive_lock(lock_beside(to.raw), f"{to.raw.name} is being written"):
        return _write_dataset(dataset, to)


def _write_dataset(dataset: ImportedDataset, to: Destination) -> bool:
    """Write the dataset while its lock is held."""
    scans, task = dataset.scans, dataset.task or to.task
    if not get_task(task).predicts_new_scans:
        scans = [replace(scan, part="context") if scan.part == "target" else scan for scan in scans]
    # the key is as in datasets that were imported earlier
    excluded = {"left_out": list(dataset.excluded)} if dataset.excluded else {}
    settings = {**dataset.settings, "task": task, **excluded}
    record = {"settings": settings, "scans": _digest_of_rows(scans), "sources": _digests_of_sources(scans)}
    if to.raw.exists() and not _is_to_be_replaced(to.raw, record, to.overwrite):
        return False
    if not any(scan.part == "training" for scan in scans):
        raise ConfigurationError("Every subject is a test subject: none is left to train on. Name fewer with --test.")
    warn_of_spellings(scan.subject for scan in scans)
    _warn_of_scales(scans)
    for part in dataset.excluded:
        logger.warning("Excluded: %s", part)
    unfinished = to.raw.with_name(f".unfinished-import-{to.raw.name}")
    if unfinished.exists():
        _remove_outdated(unfinished, scans, record)
    write_json({**record, "longflow_version": __version__}, unfinished / IMPORT_JSON)

    ordered = sorted(scans, key=lambda scan: (scan.subject, scan.time))
    work = {subject: (list(group), unfinished) for subject, group in groupby(ordered, key=lambda scan: scan.subject)}
    values: set[int] = set()
    for _, found in for_each_subject(_write_subject, work, to.processes, to.progress):
        values |= found
    _write_tables(replace(dataset, scans=ordered), task, values, unfinished)
    written = _sizes(unfinished)
    write_json({**record, "written": written, "longflow_version": __version__}, unfinished / IMPORT_JSON)
    put_in_place(unfinished, to.raw)
    return True


def _write_tables(dataset: ImportedDataset, task: str, values: set[int], folder: Path) -> None:
    """Write dataset.json and the tables of scans.

    :param dataset: with its scans in order.
    :param values: label values that occur.
    :param folder: of the dataset.
    """
    training = [scan for scan in dataset.scans if scan.part == "training"]
    (folder / "imagesTr").mkdir(exist_ok=True)
    keys = {
        "channel_names": {"0": dataset.channel},
        "file_ending": FILE_ENDING,
        "time_unit": dataset.time_unit,
        "labels": named_labels(values, dataset.label_names),
        "task": task,
        "numTraining": len(training),
    }
    write_description(DatasetDescription(**{**keys, **dataset.about}), folder / "dataset.json")
    _write_table(training, folder / "scans.csv")
    if test := [scan for scan in dataset.scans if scan.part != "training"]:
        _write_table(test, folder / "imagesTs" / "scans.csv")


def _digest_of_rows(scans: Sequence[ImportedScan]) -> str:
    """Hash everything that tables and names say about the scans."""
    rows = [
        [scan.case, scan.subject, scan.time, scan.part, scan.frame, scan.label_frame, dict(scan.covariates)]
        + [_name_of_source(scan, path) for path in (scan.image, scan.label, *scan.further_channels)]
        for scan in scans
    ]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _name_of_source(scan: ImportedScan, source: Path | ManyFiles | None) -> str | None:
    """Return the name of a source in records: its path, or, of many files, only what it is for.

    Paths of an export can hold names and dates of patients.
    """
    if source is None or isinstance(source, Path):
        return source and os.path.abspath(source)
    return f"{'image' if source is scan.image else 'label'} of {scan.case}"


def _digests_of_sources(scans: Sequence[ImportedScan]) -> dict[str, str]:
    """Return the digest of every source that is read, by its name in records."""
    return {name: _digest_of_source(source) for scan in scans for name, source in _sources_of(scan).items()}


def _digest_of_source(source: Path | ManyFiles) -> str:
    if isinstance(source, Path):
        return file_digest(source)
    return hashlib.sha256("".join(map(file_digest, source.files)).encode()).hexdigest()


def _sources_of(scan: ImportedScan) -> dict[str, Path | ManyFiles]:
    """Return the sources of a scan by their names in records."""
    sources = [scan.image, *scan.further_channels, *([] if scan.label is None else [scan.label])]
    return {str(_name_of_source(scan, source)): source for source in sources}


def _read_record(folder: Path) -> dict[str, Any]:
    """Read ``import.json``; empty where it is missing or not what an import writes."""
    try:
        record = read_json(folder / IMPORT_JSON)
    except DataError:
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("settings"), dict) else {}


def _same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare settings; excluded parts of the source make no other dataset."""
    return {**one["settings"], "left_out": []} == {**other["settings"], "left_out": []}


def _is_to_be_replaced(raw: Path, record: Mapping[str, Any], overwrite: bool) -> bool:
    """Compare an existing dataset with an import.

    :param record: of the import.
    :returns: False: the dataset was made of the same files with the same settings.
    :raises DataError: it was made differently, or it is to be replaced but holds what an import did not write.
    """
    known = _read_record(raw)
    if not known:
        raise DataError(
            f"{raw} already exists and was not written by longflow_import (it has no {IMPORT_JSON}): it is never "
            "replaced. Use another id, or move the folder away."
        )
    if not overwrite:
        if not _same_settings(known, record):
            raise DataError(
                f"{raw} already exists and was made differently. Use another id, or --overwrite to replace it."
            )
        if "sources" not in known or all(known.get(name) == record[name] for name in ("scans", "sources")):
            return False
        changed = [Path(path).name for path, _ in known["sources"].items() ^ record["sources"].items()]
        cause = first_few(dict.fromkeys(changed)) or "the table of scans"
        logger.info("%s is imported again, because its source changed: %s.", raw.name, cause)
    _check_is_own(raw, known.get("written"), overwrite)
    return True


def _check_is_own(raw: Path, written: Any, overwrite: bool) -> None:
    """Refuse to delete files that an import did not write, and, without ``overwrite``, files that were edited since.

    :param written: size of each file, as recorded by the import; None: an earlier version did not record them.
    """
    if not isinstance(written, dict):
        raise DataError(
            f"{raw} was imported by an earlier version of longflow, which did not note the files that it wrote. Delete "
            "the folder yourself, then run the same command again."
        )
    sizes = _sizes(raw)
    if foreign := [name for name in sizes if name not in written]:
        raise DataError(
            f"{raw} is not replaced: it holds files that longflow_import did not write ({first_few(foreign)}). Move "
            "them to another folder, or use another id."
        )
    if not overwrite and (edited := [name for name, size in sizes.items() if written[name] != size]):
        raise DataError(
            f"{raw} is not imported again, although its source changed: files were edited since ({first_few(edited)}). "
            "Use another id, or --overwrite to replace it."
        )


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file of a dataset, apart from import.json and hidden files."""
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir() and path.name[0] != "."]
    return {path.relative_to(folder).as_posix(): path.lstat().st_size for path in files if path.name != IMPORT_JSON}


def _remove_outdated(unfinished: Path, scans: Sequence[ImportedScan], record: Mapping[str, Any]) -> None:
    """Keep what a stopped import wrote of the same files with the same settings."""
    known = _read_record(unfinished)
    if not known or not _same_settings(known, record):
        shutil.rmtree(unfinished)
        return
    same = {path for path, digest in known.get("sources", {}).items() if record["sources"].get(path) == digest}
    kept: set[Path] = set()
    for scan in scans:
        if same.issuperset(_sources_of(scan)):
            images, label = _files_of(scan, unfinished)
            kept |= set(images) if scan.label is None else {*images, label}
    for path in unfinished.glob("*/*"):
        if path not in kept:
            path.unlink()


def _files_of(scan: ImportedScan, folder: Path) -> tuple[list[Path], Path]:
    """Return the image of each channel and the label image of a scan in the dataset."""
    images, labels = FOLDERS[scan.part]
    ending = scan.kept_ending or FILE_ENDING
    names = [f"{scan.case}_{channel:04d}{ending}" for channel in range(1 + len(scan.further_channels))]
    return [path_in(folder / images, name) for name in names], path_in(folder / labels, f"{scan.case}{ending}")


def _write_table(scans: list[ImportedScan], path: Path) -> None:
    write_scans([Scan(scan.case, scan.subject, scan.time, (), None, scan.covariates) for scan in scans], path)


def put_in_place(unfinished: Path, raw: Path) -> None:
    """Give the finished folder its name; the dataset that it replaces is removed afterwards.

    :param unfinished: the finished folder under its temporary name.
    :param raw: its final path.
    """
    replaced = raw.with_name(f".replaced-{raw.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if raw.exists():
        os.replace(raw, replaced)
    os.replace(unfinished, raw)
    shutil.rmtree(replaced, ignore_errors=True)


def named_labels(values: set[int], names: Sequence[str]) -> dict[str, int]:
    """Make ``labels`` of dataset.json: consecutive from 0, as nnU-Net requires, and a name for every value.

    >>> named_labels({0, 2}, ["cavity"])
    {'background': 0, 'cavity': 1, 'label_2': 2}
    """
    if not values and not names:
        return {}
    highest = max([len(names), *values])
    found = [names[value - 1] if value <= len(names) else f"label_{value}" for value in range(1, highest + 1)]
    return {"background": 0, **{name: value for value, name in enumerate(found, start=1)}}


def _write_subject(argument: tuple[list[ImportedScan], Path]) -> set[int]:
    """Write the missing files of a subject; return the label values that occur."""
    scans, folder = argument
    source, label_source = _Source(), _Source()
    values: set[int] = set()
    for scan in scans:
        if scan.kept_ending:
            _keep_files(scan, folder)
            continue
        (path,), label_path = _files_of(scan, folder)
        if path.is_file():  # an earlier run wrote it, after its label
            if label_path.is_file():
                values |= _values(sitk.GetArrayFromImage(read_image_of_any_size(label_path)))
            continue
        if not isinstance(scan.image, Path):
            values |= _write_many_files(scan, path, label_path)
            continue
        image, geometry = source.volume(scan.image, scan.frame), read_geometry(scan.image).repaired
        if scan.label is not None:
            label = label_source.volume(scan.label, scan.label_frame)
            array = label_array(label, scan.label)
            if array.any():
                values |= _values(array)
                _check_same_grid(scan, geometry, read_geometry(scan.label))
                write_volume(array, geometry, array.dtype.name, label_path)
        array = sitk.GetArrayViewFromImage(image)
        write_volume(array, geometry, array.dtype.name, path)
    return values


def _write_many_files(scan: ImportedScan, path: Path, label_path: Path) -> set[int]:
    """Write a scan whose image and label are many files each, the label first; return the label values that occur."""
    array, geometry = scan.image.read()
    values: set[int] = set()
    if scan.label is not None:
        label, of_label = scan.label.read()
        check_same_grid(of_label, scan.label.name, geometry, f"its image, {scan.image.name},", "Exclude the labels.")
        if label.any():
            values = _values(label)
            write_volume(label, geometry, label.dtype.name, label_path)
    write_volume(array, geometry, array.dtype.name, path)
    return values


def _keep_files(scan: ImportedScan, folder: Path) -> None:
    """Link or copy the files of a scan as they are."""
    images, label = _files_of(scan, folder)
    for source, path in zip((scan.image, *scan.further_channels), images, strict=True):
        link_or_copy(source, path)
    if scan.label is not None:
        link_or_copy(scan.label, label)


def _warn_of_scales(scans: Sequence[ImportedScan]) -> None:
    """Name the images whose voxel size is taken from pixdim, since their transform has axes of 1 mm."""
    repaired = []
    for path in sorted({scan.image for scan in scans if isinstance(scan.image, Path) and not scan.kept_ending}):
        with suppress(DataError):  # said when the scan is imported
            grid = read_geometry(path)
            repaired += [path] if grid.repaired is not grid else []
    if repaired:
        logger.warning(
            "The sform of %d images has no scale (axes of 1 mm), unlike their pixdim: %s. The voxel size in pixdim is "
            "taken, and the imported images get a right sform.",
            *(len(repaired), first_few(map(str, repaired), most=3)),
        )


def _values(array: np.ndarray) -> set[int]:
    return {int(value) for value in np.unique(array)}


class _Source:
    """Volumes of 3D and 4D files; the last file stays in memory, because its frames are read in turn."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.image: sitk.Image | None = None

    def volume(self, path: Path, frame: int | Blend | None) -> sitk.Image:
        if path != self.path:
            self.path, self.image = path, read_image_of_any_size(path)
        dimensions = self.image.GetDimension()
        if dimensions != (3 if frame is None else 4):
            raise DataError(
                f"{path} has {dimensions} dimensions ({by_axis(self.image.GetSize())}), expected "
                f"{'3: one file per scan' if frame is None else '4: the last one is time'}."
            )
        if frame is None:
            return self.image
        if isinstance(frame, Blend):
            volumes = [sitk.Cast(self.volume(path, number), sitk.sitkFloat32) for number in frame.frames]
            return sum(weight * volume for weight, volume in zip(frame.weights, volumes, strict=True))
        if frame >= self.image.GetSize()[3]:
            raise DataError(f"{path} has {self.image.GetSize()[3]} frames, expected at least {frame + 1}.")
        return self.image[:, :, :, frame]


def label_array(label: sitk.Image, path: Path) -> np.ndarray:
    """Convert label values to the smallest unsigned integers that hold them.

    :param label: the label image.
    :param path: its file, for messages.
    :returns: (z, y, x), uint8 or uint16.
    :raises DataError: a value is not a whole number from 0 to 65535.
    """
    array = sitk.GetArrayViewFromImage(label)
    whole = np.rint(array)
    if not np.array_equal(array, whole) or whole.min() < 0:
        raise DataError(
            f"{path} holds label values from {array.min():g} to {array.max():g}, expected whole numbers from 0 on. "
            "Resample label images with nearest neighbour; interpolation makes such values."
        )
    if float(whole.max()) > np.iinfo(np.uint16).max:
        raise DataError(
            f"{path} holds the label value {whole.max():.0f}, expected at most {np.iinfo(np.uint16).max}. Number the "
            "structures 1, 2, 3 ... in the label images and run the import again."
        )
    return whole.astype(np.uint8 if whole.max() < 256 else np.uint16)


def _check_same_grid(scan: ImportedScan, of_image: Geometry, of_label: Geometry) -> None:
    differences = of_image.differences(of_label)
    if scan.same_voxels and differences and differences[0][0] != "size":
        logger.warning("%s: its %s differs from that of its image, which is used.", scan.label, differences[0][0])
        return
    check_same_grid(of_label, scan.label, of_image, f"its image, {scan.image},", label_advice(of_label, of_image))
