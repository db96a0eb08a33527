"""What all importers share: writing a raw dataset from scans that lie elsewhere, whole or not at all, and resumably.

Everything is written into a hidden folder beside the dataset, which gets the dataset's name once it is complete. A
killed import, run again, goes on there; nothing ever reads a half-written dataset.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from longflow import __version__
from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import Geometry, by_axis, check_same_grid, read_image_of_any_size, write_volume
from longflow.errors import ConfigurationError, DataError, unknown_name
from longflow.files import read_json, write_json
from longflow.parallel import Progress, for_each_subject

logger = logging.getLogger(__name__)

FILE_ENDING = ".nii.gz"

#: the grid that scans are taken on, where a dataset offers two: each scan's own, or one that is common to a subject's
Space = Literal["native", "registered"]


@dataclass(frozen=True)
class ImportedScan:
    """Where a scan comes from and what it becomes.

    :param image: 3D file, or 4D file of which ``frame`` (from 0) is taken.
    :param label: 3D or 4D (``label_frame``) label file, or None; a frame without any label is not written.
    :param part: "training", "context" (imagesTs) or "target" (imagesTs' table, its image in targetsTs).
    :param same_voxels: the label was drawn on these very voxels, so the image's geometry counts where they differ.
    """

    case: str
    subject: str
    time: float
    image: Path
    frame: int | None = None
    label: Path | None = None
    label_frame: int | None = None
    part: str = "training"
    same_voxels: bool = False
    covariates: dict[str, str] = field(default_factory=dict, hash=False)


FOLDERS = {
    "training": ("imagesTr", "labelsTr"),
    "context": ("imagesTs", "labelsTs"),
    "target": ("targetsTs", "labelsTs"),
}


def import_dataset(
    scans: Sequence[ImportedScan],
    raw: Path,
    *,
    time_unit: str,
    channel: str,
    label_names: Sequence[str] = (),
    settings: dict[str, Any],
    task: str = "forecast",
    about: dict[str, Any] | None = None,
    left_out: Sequence[str] = (),
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Write a raw dataset: dataset.json, scans.csv, imagesTr, labelsTr, and imagesTs, targetsTs, labelsTs where asked.

    :param raw: the dataset's folder, ``.../Dataset101_Name``.
    :param label_names: names of the labels 1, 2, ...; without names they are called ``label_1`` ...
    :param settings: what the scans were chosen by; kept in ``import.json``, and compared when run again.
    :param task: what the dataset is for. The scans of test subjects that would be targets of forecasts are scans to
        segment like the others where it is "segment".
    :param about: further keys of dataset.json (licence, reference ...).
    :param left_out: what of the source does not become part of the dataset, each with its reason; said as warnings and
        kept in ``import.json``.
    :returns: False where the dataset was imported with the same settings before, and nothing had to be done.
    :raises DataError: a source file cannot be used, or another dataset of this name is there.
    """
    settings = {**settings, "task": task, **({"left_out": list(left_out)} if left_out else {})}
    if task == "segment":
        scans = [replace(scan, part="context") if scan.part == "target" else scan for scan in scans]
    if raw.exists() and not overwrite:
        if _same_settings(raw / "import.json", settings):
            return False
        raise DataError(f"{raw} exists already and was made differently. Use another id, or --overwrite to replace it.")
    if not any(scan.part == "training" for scan in scans):
        raise ConfigurationError(
            "Every subject is a test subject: nothing is left to train on. Name fewer with --test."
        )
    for part in left_out:
        logger.warning("Left out: %s", part)
    unfinished = raw.with_name(f".unfinished-import-{raw.name}")
    if unfinished.exists() and not _same_settings(unfinished / "import.json", settings):
        shutil.rmtree(unfinished)
    write_json({"settings": settings, "longflow_version": __version__}, unfinished / "import.json")

    ordered = sorted(scans, key=lambda scan: (scan.subject, scan.time))
    work = {subject: (list(group), unfinished) for subject, group in groupby(ordered, key=lambda scan: scan.subject)}
    values: set[int] = set()
    for _, found in for_each_subject(_write_subject, work, processes, progress):
        values |= found

    (unfinished / "imagesTr").mkdir(exist_ok=True)
    description = DatasetDescription(
        channel_names={"0": channel},
        file_ending=FILE_ENDING,
        time_unit=time_unit,
        labels=named_labels(values, label_names),
        task=task,
        numTraining=sum(scan.part == "training" for scan in scans),
        **(about or {}),
    )
    write_description(description, unfinished / "dataset.json")
    _write_table([scan for scan in ordered if scan.part == "training"], unfinished / "scans.csv")
    if test := [scan for scan in ordered if scan.part != "training"]:
        _write_table(test, unfinished / "imagesTs" / "scans.csv")
    put_in_place(unfinished, raw)
    return True


def with_test_subjects(scans: Sequence[ImportedScan], test: Sequence[str], targets: int) -> list[ImportedScan]:
    """The scans, those of the subjects ``test`` as context and, the last ``targets`` of each, as targets.

    :raises NotFoundError: there is no such subject. :raises ConfigurationError: one has too few scans for that.
    """
    times = moments(scans)
    for subject in test:
        if subject not in times:
            raise unknown_name("subject", subject, times)
        if not 1 <= targets < len(times[subject]):
            raise ConfigurationError(
                f"--test_targets {targets}: subject {subject} has {len(times[subject])} scans, of which at least one "
                "must be context and at least one a target."
            )
    first = {subject: sorted(times[subject])[-targets] for subject in test}
    return [
        replace(scan, part="context" if scan.time < first[scan.subject] else "target")
        if scan.subject in first
        else scan
        for scan in scans
    ]


def moments(scans: Sequence[ImportedScan]) -> dict[str, list[float]]:
    """The times of each subject, for ``settings``: an import of other times is another import."""
    found: dict[str, list[float]] = {}
    for scan in scans:
        found.setdefault(scan.subject, []).append(scan.time)
    return found


def _same_settings(path: Path, settings: dict[str, Any]) -> bool:
    try:
        return read_json(path)["settings"] == settings
    except (DataError, KeyError, TypeError):
        return False


def _write_table(scans: list[ImportedScan], path: Path) -> None:
    write_scans([Scan(scan.case, scan.subject, scan.time, (), None, scan.covariates) for scan in scans], path)


def put_in_place(unfinished: Path, raw: Path) -> None:
    """Give the finished folder its name; a dataset that it replaces is removed only afterwards."""
    replaced = raw.with_name(f".replaced-{raw.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if raw.exists():
        os.replace(raw, replaced)
    os.replace(unfinished, raw)
    shutil.rmtree(replaced, ignore_errors=True)


def named_labels(values: set[int], names: Sequence[str]) -> dict[str, int]:
    """``labels`` of dataset.json: consecutive from 0 as nnU-Net wants them, every value that occurs with a name.

    >>> named_labels({0, 2}, ["cavity"])
    {'background': 0, 'cavity': 1, 'label_2': 2}
    """
    if not values and not names:
        return {}
    highest = max([len(names), *values])
    found = [names[value - 1] if value <= len(names) else f"label_{value}" for value in range(1, highest + 1)]
    return {"background": 0, **{name: value for value, name in enumerate(found, start=1)}}


def _write_subject(argument: tuple[list[ImportedScan], Path]) -> set[int]:
    """Write what is missing of a subject's files; return the label values that occur."""
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
        image = source.volume(scan.image, scan.frame)
        if scan.label is not None:
            label = label_source.volume(scan.label, scan.label_frame)
            array = label_array(label, scan.label)
            if array.any():
                values |= _values(array)
                _check_same_grid(scan, image, label)
                write_volume(array, Geometry.of(image), array.dtype.name, label_path)
        array = sitk.GetArrayViewFromImage(image)
        write_volume(array, Geometry.of(image), array.dtype.name, path)
    return values


def _values(array: np.ndarray) -> set[int]:
    return {int(value) for value in np.unique(array)}


class _Source:
    """Volumes of 3D and 4D files; the last file stays in memory, because its frames are asked for in turn."""

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
            raise DataError(f"{path} has {self.image.GetSize()[3]} frames, but frame {frame} (from 0) is asked for.")
        return self.image[:, :, :, frame]


def label_array(label: sitk.Image, path: Path) -> np.ndarray:
    """Label values as the smallest unsigned integers that hold them.

    :raises DataError: a value is not a whole number from 0 on.
    """
    array = sitk.GetArrayViewFromImage(label)
    whole = np.rint(array)
    if not np.array_equal(array, whole) or whole.min() < 0:
        raise DataError(
            f"{path} holds label values from {array.min():g} to {array.max():g}, expected whole numbers from 0 on. "
            "Was it resampled with interpolation? Use nearest neighbour."
        )
    return whole.astype(np.uint8 if whole.max() < 256 else np.uint16)


def _check_same_grid(scan: ImportedScan, image: sitk.Image, label: sitk.Image) -> None:
    of_image, of_label = Geometry.of(image), Geometry.of(label)
    differences = of_image.differences(of_label)
    if scan.same_voxels and differences and differences[0][0] != "size":
        logger.warning("%s: its %s differs from its image's, which is used.", scan.label, differences[0][0])
        return
    advice = "A label image must lie on the grid of its scan."
    check_same_grid(of_label, scan.label, of_image, f"its image, {scan.image},", advice)
