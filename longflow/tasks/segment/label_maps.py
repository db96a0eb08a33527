"""Predicted label maps with subject, time and reference; and reading both."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from longflow.data.dataset import DatasetDescription, Scan, as_on_disk, series_of_folder, sidecar_path, stem_of
from longflow.data.images import Geometry, check_same_grid, read_image
from longflow.data.labels import structures
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.evaluation.metric import Compared
from longflow.evaluation.references import Prediction, dataset_folders
from longflow.paths import path_in
from longflow.reading import read_json
from longflow.tasks.segment.probabilities import labels_of_mean, read_probabilities

logger = logging.getLogger(__name__)

#: folders of a raw dataset that hold reference label maps, in the order in which they are searched
LABEL_FOLDERS = ("labelsTs", "labelsTr")


@dataclass(frozen=True)
class Structures:
    """The structures of a dataset.

    :param values: label values of each structure by its name; several where it is a region.
    :param ignore: label value of voxels whose reference is unknown, or None.
    :param known: every value that a label map may hold, background included.
    :param order: values of regions in the order in which they are written; empty without regions.
    """

    values: dict[str, tuple[int, ...]]
    ignore: int | None
    known: frozenset[int]
    order: tuple[int, ...] = ()

    @classmethod
    def of(cls, description: DatasetDescription) -> "Structures":
        """Read the structures of a dataset.

        :raises ConfigurationError: dataset.json names no structure.
        """
        values = structures(description.labels)
        if not values:
            raise ConfigurationError(
                "dataset.json names no structure in 'labels', so there is nothing to evaluate. Expected for example "
                '{"background": 0, "hippocampus": 1}.'
            )
        known, order = frozenset(description.label_values), tuple(description.regions_class_order)
        return cls(values, description.labels.get("ignore"), known, order)


@dataclass(frozen=True, kw_only=True)
class LabelPrediction(Prediction):
    """A predicted label map with its reference, one file each; of an ensemble, a file of probabilities of each model.

    :param time: of the scan, time units.
    """

    time: float


@dataclass
class LabelMaps:
    """Both label maps of a scan in memory, (z, y, x).

    :param known: True where the reference is known (not the ignore label).
    """

    prediction: np.ndarray
    reference: np.ndarray
    known: np.ndarray
    geometry: Geometry

    def masks(self, values: Sequence[int], where: np.ndarray | None = None) -> Compared:
        """Return boolean masks of a structure.

        :param values: label values of the structure.
        :param where: (z, y, x), bool, voxels that count; by default those whose reference is known.
        """
        where = self.known if where is None else where
        prediction, reference = (np.isin(labels, values) & where for labels in (self.prediction, self.reference))
        return Compared(prediction, reference, self.geometry.array_spacing)


def find_label_pairs(
    folder: Path, references: Sequence[Path], raw: Path, description: DatasetDescription
) -> tuple[list[LabelPrediction], list[str]]:
    """Find reference, subject and time of the label maps of a folder.

    Subjects and times are those of the folder's ``scans.csv``, which longflow_predict writes; of a folder without one
    (written by another program) those of the dataset's tables.

    :param references: folders of reference label maps; the first that has a case counts.
    :returns: label maps that have a reference, by subject in order of time; the cases of the others.
    :raises DataError: there is no label map or no reference, or a subject or time is missing or stands there twice.
    """
    paths, ending = _files_of(folder, description), description.file_ending
    of_case = {case: path for case in paths if (path := _reference_of(case, references, ending, paths[case]))}
    if not of_case:
        raise DataError(
            f"None of the {len(paths)} label maps in {folder} has a reference to be compared with. Looked for "
            f"{next(iter(paths))}{ending}{', ...' if len(paths) > 1 else ''} in: "
            f"{', '.join(map(str, references)) or 'no folder'}. Give the folder of the reference label maps: -r FOLDER"
        )
    scans = _scans_of(folder, list(of_case), raw, description)
    if (folder / "scans.csv").is_file() and (missing := [case for case in scans if case not in paths]):
        logger.warning(
            "%d scans of %s have no label map and are not evaluated: %s",
            *(len(missing), folder / "scans.csv", first_few(missing)),
        )
    pairs = [
        LabelPrediction(
            case=case, subject=scans[case].subject, time=scans[case].time, images=(paths[case],), reference=(path,)
        )
        for case, path in of_case.items()
    ]
    return sorted(pairs, key=lambda pair: (pair.subject, pair.time)), [case for case in paths if case not in of_case]


def find_label_maps(
    folder: Path, references: Sequence[Path], raw: Path, description: DatasetDescription
) -> list[LabelPrediction]:
    """Find subject and time of all label maps of a folder, and the reference of those that have one.

    Tables are searched as by :func:`find_label_pairs`.

    :param references: folders of reference label maps; the first that has a case counts.
    :returns: by subject in order of time.
    :raises DataError: there is no label map, or a subject or time is missing or stands there twice.
    """
    paths = _files_of(folder, description)
    scans = _scans_of(folder, list(paths), raw, description)
    maps = []
    for case, path in paths.items():
        reference = _reference_of(case, references, description.file_ending, path)
        of_case, scan = (reference,) if reference else (), scans[case]
        maps.append(LabelPrediction(case=case, subject=scan.subject, time=scan.time, images=(path,), reference=of_case))
    return sorted(maps, key=lambda one: (one.subject, one.time))


def _files_of(folder: Path, description: DatasetDescription) -> dict[str, Path]:
    """The label maps of a folder, by case."""
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. Expected: a folder that longflow_predict wrote.")
    ending = description.file_ending
    paths = {stem_of(path, ending): path for path in sorted(folder.glob(f"*{ending}")) if not path.name.startswith(".")}
    if not paths:
        raise DataError(
            f"{folder} holds no label maps: found no file {{case}}{ending}. "
            "Expected: a folder that longflow_predict wrote for this dataset."
        )
    return paths


def _scans_of(folder: Path, cases: Sequence[str], raw: Path, description: DatasetDescription) -> dict[str, Scan]:
    """Every scan in the table of the folder, or else in those of the dataset, by case."""
    own_table = (folder / "scans.csv").is_file()
    tables = [folder] if own_table else dataset_folders(raw, ("imagesTs", "imagesTr"))
    scans = {scan.case: scan for table in tables for one in series_of_folder(table, description) for scan in one.scans}
    if unknown := [case for case in cases if case not in scans]:
        raise DataError(
            f"Subject and time of {first_few(unknown)} are not known: no line for them in the table (scans.csv) of "
            f"{', '.join(map(str, tables)) or folder}. Add them: case,subject,time."
        )
    return scans


def _reference_of(case: str, references: Sequence[Path], ending: str, prediction: Path) -> Path | None:
    """The reference label map of a case; a prediction is not its own reference."""
    candidates = (as_on_disk(path_in(reference, f"{case}{ending}")) for reference in references)
    return next((path for path in candidates if path.is_file() and not path.samefile(prediction)), None)


def methods_of(pairs: Sequence[LabelPrediction]) -> list[str]:
    """List the methods that the sidecars of predictions name, sorted; none where there are no sidecars."""
    methods: set[str] = set()
    for folder, case in {(pair.images[0].parent, pair.case) for pair in pairs}:
        path = sidecar_path(folder, case)
        sidecar = read_json(path) if path.is_file() else {}
        named = sidecar.get("method", []) if isinstance(sidecar, dict) else []
        methods.update([named] if isinstance(named, str) else map(str, named))
    return sorted(methods)


def read_label_maps(pair: LabelPrediction, structures: Structures) -> LabelMaps:
    """Read both label maps of a scan.

    :raises DataError: they are on different grids, or hold values that dataset.json does not name; files are named.
    """
    (reference_file,) = pair.reference
    reference, grid = read_labels(reference_file, structures.known)
    if len(pair.images) == 1:
        prediction, geometry = read_labels(pair.images[0], structures.known - {structures.ignore})
        advice = "A label map can only be compared with a reference on its own grid: both on that of the scan."
        check_same_grid(geometry, pair.images[0], grid, reference_file, advice)
    else:
        prediction = labels_of_mean(map(read_probabilities, pair.images), structures.order)
        if prediction.shape != reference.shape:
            raise DataError(
                f"{pair.images[0]} has {prediction.shape} voxels (z, y, x), {reference_file} has {reference.shape}. "
                "Was the reference changed? Train the model again."
            )
    ignored = structures.ignore is not None
    known = reference != structures.ignore if ignored else np.ones_like(reference, bool)
    return LabelMaps(prediction, reference, known, grid)


def read_labels(path: Path, known: frozenset[int]) -> tuple[np.ndarray, Geometry]:
    """Read a label map.

    :param known: values that it may hold.
    :returns: (z, y, x), int32, and its grid.
    :raises DataError: it holds other values.
    """
    image = read_image(path)
    array = sitk.GetArrayFromImage(image)
    values = np.unique(array)
    if odd := [f"{value:g}" for value in values if value != np.rint(value)]:
        raise DataError(
            f"{path} holds {first_few(odd, most=3)}; label values are whole numbers. Was it resampled with "
            "interpolation? Use nearest neighbour."
        )
    if unknown := sorted({int(value) for value in values} - known):
        raise DataError(
            f"{path} holds the label value {first_few(unknown)}, which dataset.json does not name. Expected: "
            f"{', '.join(map(str, sorted(known)))}. Is it of another dataset? Else name the value under 'labels'."
        )
    return array.astype(np.int32), Geometry.of(image)
