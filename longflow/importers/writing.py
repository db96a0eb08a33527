"""Write a raw dataset from scans that are elsewhere: whole or not at all, and resumable.

Everything is written into a hidden folder next to the dataset. It gets the dataset's name once it is complete. A killed
import, run again, continues there; nothing ever reads an unfinished dataset.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow import __version__
from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import (
    Geometry,
    by_axis,
    check_same_grid,
    label_advice,
    read_geometry,
    read_image_of_any_size,
    write_volume,
)
from longflow.errors import ConfigurationError, DataError
from longflow.files import read_json, write_json
from longflow.importers.scans import Destination, ImportedDataset, ImportedScan
from longflow.parallel import for_each_subject
from longflow.task import get_task

logger = logging.getLogger(__name__)

FILE_ENDING = ".nii.gz"

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
    :returns: False where the dataset was imported with the same settings before, and nothing had to be done.
    :raises DataError: a source file cannot be used, or another dataset of this name exists.
    """
    scans = dataset.scans
    if not get_task(to.task).predicts_new_scans:
        scans = [replace(scan, part="context") if scan.part == "target" else scan for scan in scans]
    # the key is as in datasets that were imported earlier
    excluded = {"left_out": list(dataset.excluded)} if dataset.excluded else {}
    settings = {**dataset.settings, "task": to.task, **excluded}
    if to.raw.exists() and not to.overwrite:
        if _same_settings(to.raw / "import.json", settings):
            return False
        raise DataError(
            f"{to.raw} already exists and was made differently. Use another id, or --overwrite to replace it."
        )
    if not any(scan.part == "training" for scan in scans):
        raise ConfigurationError("Every subject is a test subject: none is left to train on. Name fewer with --test.")
    for part in dataset.excluded:
        logger.warning("Excluded: %s", part)
    unfinished = to.raw.with_name(f".unfinished-import-{to.raw.name}")
    if unfinished.exists() and not _same_settings(unfinished / "import.json", settings):
        shutil.rmtree(unfinished)
    write_json({"settings": settings, "longflow_version": __version__}, unfinished / "import.json")

    ordered = sorted(scans, key=lambda scan: (scan.subject, scan.time))
    work = {subject: (list(group), unfinished) for subject, group in groupby(ordered, key=lambda scan: scan.subject)}
    values: set[int] = set()
    for _, found in for_each_subject(_write_subject, work, to.processes, to.progress):
        values |= found
    _write_tables(replace(dataset, scans=ordered), to.task, values, unfinished)
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
    description = DatasetDescription(
        channel_names={"0": dataset.channel},
        file_ending=FILE_ENDING,
        time_unit=dataset.time_unit,
        labels=named_labels(values, dataset.label_names),
        task=task,
        numTraining=len(training),
        **dataset.about,
    )
    write_description(description, folder / "dataset.json")
    _write_table(training, folder / "scans.csv")
    if test := [scan for scan in dataset.scans if scan.part != "training"]:
        _write_table(test, folder / "imagesTs" / "scans.csv")


def _same_settings(path: Path, settings: Mapping[str, Any]) -> bool:
    """Compare with the settings of an earlier import; excluded parts of the source make no other dataset."""
    try:
        return {**read_json(path)["settings"], "left_out": []} == {**settings, "left_out": []}
    except (DataError, KeyError, TypeError):
        return False


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
        image_folder, label_folder = FOLDERS[scan.part]
        path = folder / image_folder / f"{scan.case}_0000{FILE_ENDING}"
        label_path = folder / label_folder / f"{scan.case}{FILE_ENDING}"
        if path.is_file():  # an earlier run wrote it, after its label
            if label_path.is_file():
                values |= _values(sitk.GetArrayFromImage(read_image_of_any_size(label_path)))
            continue
        image, geometry = source.volume(scan.image, scan.frame), read_geometry(scan.image)
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


def _values(array: np.ndarray) -> set[int]:
    return {int(value) for value in np.unique(array)}


class _Source:
    """Volumes of 3D and 4D files; the last file stays in memory, because its frames are read in turn."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.image: sitk.Image | None = None

    def volume(self, path: Path, frame: int | None) -> sitk.Image:
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
