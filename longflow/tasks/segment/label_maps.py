"""Which predicted label map belongs to which subject, time and truth; and reading both."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from longflow.data.dataset import DatasetDescription, series_of_folder
from longflow.data.images import Geometry, check_same_grid, read_image
from longflow.data.labels import structures
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.files import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Structures:
    """What is segmented.

    :param values: label values of each structure by its name; several where it is a region.
    :param ignore: the label value of voxels that nobody knows the truth of, or None.
    :param known: every value that a label map may hold, background included.
    """

    values: dict[str, tuple[int, ...]]
    ignore: int | None
    known: frozenset[int]

    @classmethod
    def of(cls, description: DatasetDescription) -> "Structures":
        """:raises ConfigurationError: dataset.json names no structure."""
        values = structures(description.labels)
        if not values:
            raise ConfigurationError(
                "dataset.json names no structure in 'labels', so there is nothing to evaluate. Expected for example "
                '{"background": 0, "hippocampus": 1}.'
            )
        return cls(values, description.labels.get("ignore"), frozenset(description.label_values))


@dataclass(frozen=True)
class LabelledScan:
    """A predicted label map beside the true one, of one scan.

    :param time: in the dataset's time unit. :param found: the prediction. :param true: the truth.
    """

    case: str
    subject: str
    time: float
    found: Path
    true: Path


@dataclass
class LabelMaps:
    """Both label maps of a scan in memory, (z, y, x).

    :param known: True where the truth is known (not the ignore label).
    """

    found: np.ndarray
    true: np.ndarray
    known: np.ndarray
    geometry: Geometry

    def masks(self, values: Sequence[int], where: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Boolean masks of a structure, found and true, restricted to ``where`` (by default: to what is known)."""
        where = self.known if where is None else where
        return np.isin(self.found, values) & where, np.isin(self.true, values) & where


def truth_folders(raw: Path) -> list[Path]:
    """Where a raw dataset keeps true label maps, in the order in which they are looked for."""
    return [folder for name in ("labelsTs", "labelsTr") if (folder := raw / name).is_dir()]


def find_labelled_scans(
    folder: Path, references: Sequence[Path], raw: Path, description: DatasetDescription
) -> tuple[list[LabelledScan], list[str]]:
    """The label maps of a folder that have a truth, by subject in order of time, and the cases of those without.

    Subjects and times are those of the folder's ``scans.csv``, which longflow_predict writes; of a folder without one
    (written by another program) those of the dataset's tables.

    :param references: folders of true label maps; the first that has a case counts.
    :raises DataError: there is no label map or no truth, or a subject or time is missing or stands there twice.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. Expected: a folder that longflow_predict wrote.")
    ending = description.file_ending
    found = {
        path.name.removesuffix(ending): path
        for path in sorted(folder.glob(f"*{ending}"))
        if not path.name.startswith(".")
    }
    if not found:
        raise DataError(
            f"{folder} holds no label maps: found no file {{case}}{ending}. "
            "Expected: a folder that longflow_predict wrote for this dataset."
        )
    true = {case: path for case in found if (path := _truth_of(case, references, ending, found[case]))}
    if not true:
        raise DataError(
            f"None of the {len(found)} label maps in {folder} has a truth to be compared with. Looked for "
            f"{next(iter(found))}{ending}{', ...' if len(found) > 1 else ''} in: "
            f"{', '.join(map(str, references)) or 'no folder'}. Give the folder of the true label maps: -r FOLDER"
        )
    own_table = (folder / "scans.csv").is_file()
    tables = [folder] if own_table else [images for name in ("imagesTs", "imagesTr") if (images := raw / name).is_dir()]
    scans = {scan.case: scan for table in tables for one in series_of_folder(table, description) for scan in one.scans}
    if unknown := [case for case in true if case not in scans]:
        raise DataError(
            f"Subject and time of {first_few(unknown)} are not known: no line for them in the table (scans.csv) of "
            f"{', '.join(map(str, tables)) or folder}. Add them: case,subject,time."
        )
    if own_table and (missing := [case for case in scans if case not in found]):
        logger.warning(
            "%d scans of %s have no label map and are not evaluated: %s",
            *(len(missing), folder / "scans.csv", first_few(missing)),
        )
    labelled = [LabelledScan(case, scans[case].subject, scans[case].time, found[case], true[case]) for case in true]
    return sorted(labelled, key=lambda scan: (scan.subject, scan.time)), [case for case in found if case not in true]


def _truth_of(case: str, references: Sequence[Path], ending: str, prediction: Path) -> Path | None:
    """The true label map of a case; a prediction is not its own truth."""
    candidates = (reference / f"{case}{ending}" for reference in references)
    return next((path for path in candidates if path.is_file() and not path.samefile(prediction)), None)


def methods_of(scans: Sequence[LabelledScan]) -> list[str]:
    """The methods that the sidecars of predictions name, sorted; none where there are no sidecars."""
    methods: set[str] = set()
    for folder, case in {(scan.found.parent, scan.case) for scan in scans}:
        path = folder / f"{case}.json"
        sidecar = read_json(path) if path.is_file() else {}
        named = sidecar.get("method", []) if isinstance(sidecar, dict) else []
        methods.update([named] if isinstance(named, str) else map(str, named))
    return sorted(methods)


def read_label_maps(scan: LabelledScan, wanted: Structures) -> LabelMaps:
    """Both label maps of a scan.

    :raises DataError: they lie on different grids, or hold values that dataset.json does not know; files are named.
    """
    true, grid = read_labels(scan.true, wanted.known)
    found, geometry = read_labels(scan.found, wanted.known - {wanted.ignore})
    advice = "A segmentation can only be compared with a truth on its own grid: both on that of the scan."
    check_same_grid(geometry, scan.found, grid, scan.true, advice)
    return LabelMaps(
        found, true, true != wanted.ignore if wanted.ignore is not None else np.ones_like(true, bool), grid
    )


def read_labels(path: Path, known: frozenset[int]) -> tuple[np.ndarray, Geometry]:
    """A label map (z, y, x), int32, and its grid.

    :param known: the values that it may hold. :raises DataError: it holds others.
    """
    image = read_image(path)
    array = sitk.GetArrayFromImage(image)
    values = np.unique(array)
    if odd := [f"{value:g}" for value in values if value != np.rint(value)]:
        raise DataError(
            f"{path} holds {first_few(odd, most=3)}; label values are whole numbers. Was it resampled with "
            f"interpolation? "
            "Use nearest neighbour."
        )
    if unknown := sorted({int(value) for value in values} - known):
        raise DataError(
            f"{path} holds the label value {first_few(unknown)}, which dataset.json does not name. Expected: "
            f"{', '.join(map(str, sorted(known)))}. Is it of another dataset? Else name the value under 'labels'."
        )
    return array.astype(np.int32), Geometry.of(image)
