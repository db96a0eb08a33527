"""What a folder of predictions holds of each subject, in order of time; nothing is required but the predictions.

A folder of an older version, one that was not evaluated, or one that is half predicted gives what there is.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from longflow.data.dataset import (
    PHASE,
    DatasetDescription,
    Row,
    image_path,
    label_path,
    parse_time,
    read_description,
    read_rows,
    rows_of_folder,
    sidecar_path,
)
from longflow.errors import DataError, first_few
from longflow.evaluation.references import Files, Library, dataset_folders
from longflow.files import file_digest
from longflow.paths import DatasetPaths, is_name, known_datasets
from longflow.reading import read_json, read_table

#: folder below the predictions in which ``longflow_predict --dicom`` keeps the scans
SCANS = "scans"
#: folders below the predictions with the label maps of predicted and acquired scans (``--segmenter``, ``--structures``)
SEGMENTED, SEGMENTED_SCANS = "segmented/forecast", "segmented/acquired"

#: name of the table of volumes that the sidecars of these label maps record
SEGMENTED_VOLUMES = "label maps in segmented"
#: verdicts of the fitness gate
GRAVEST_FIRST = ("unfit", "doubtful", "unknown", "fit")

Table = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A scan on the time axis.

    :param time: time units.
    :param images: one file per channel; empty: there is none (a row that requests a prediction).
    :param label: label map of it, or None.
    :param missing: a prediction was made from it, and its files were not found.
    """

    case: str
    time: float
    phase: str = ""
    images: Files = ()
    label: Path | None = None
    missing: bool = False

    @property
    def kind(self) -> str:
        """Return "acquired", or where there is no image "missing" or "requested"."""
        return "acquired" if self.images else "missing" if self.missing else "requested"


@dataclass(frozen=True, kw_only=True)
class Predicted(Moment):
    """A prediction.

    :param sidecar: its JSON; empty: there is none that can be read.
    :param reference: the scan acquired at its time, or None.
    :param last: the latest scan that it was made from, or None.
    """

    sidecar: Mapping[str, Any] = field(default_factory=dict)
    reference: Moment | None = None
    last: Moment | None = None

    @property
    def kind(self) -> str:
        """Return "prediction", or "label map" where no scan was predicted."""
        return "prediction" if self.images else "label map"

    @property
    def warnings(self) -> list[str]:
        """Return the warnings of the sidecar."""
        return _texts(self.sidecar.get("warnings"))

    @property
    def verdict(self) -> str:
        """Return whether its scans are like those of the training: fit, doubtful, unfit, unknown; "": not recorded."""
        return str(self._fitness.get("verdict", ""))

    @property
    def reasons(self) -> list[str]:
        """Return the reasons of the verdict."""
        return _texts(self._fitness.get("reasons"))

    @property
    def _fitness(self) -> Mapping[str, Any]:
        found = self.sidecar.get("fitness")
        return found if isinstance(found, dict) else {}


def _texts(found: object) -> list[str]:
    """Return the texts of a list in a sidecar; none where it is no list."""
    return [str(one) for one in found] if isinstance(found, list) else []


@dataclass(frozen=True)
class Subject:
    """A subject's scans and predictions, each in order of time.

    :param acquired: scans with images, before and after the predicted time.
    :param requested: rows without an image: not predicted, or a scan that was not found.
    :param warnings: sentences about its files.
    """

    name: str
    acquired: tuple[Moment, ...]
    predicted: tuple[Predicted, ...]
    requested: tuple[Moment, ...]
    warnings: tuple[str, ...] = ()

    @property
    def moments(self) -> list[Moment]:
        """Return all of them in order of time; the acquired scan before the prediction."""
        return sorted([*self.acquired, *self.predicted, *self.requested], key=lambda one: one.time)

    @property
    def verdict(self) -> str:
        """Return the gravest verdict of its predictions; "" where none is recorded."""
        found = {one.verdict for one in self.predicted}
        return next((level for level in GRAVEST_FIRST if level in found), "")


@dataclass(frozen=True)
class Results:
    """A folder of predictions.

    :param subjects: sorted by name.
    :param tables: rows of every table in the folder that names subjects, by the table's file name.
    :param definitions: of the numbers in the tables, by name.
    :param label_names: of the values of label maps.
    :param requested_only: subjects for whom a prediction is requested, and none was made.
    :param searched: folders in which acquired scans were searched.
    :param datasets: of the models that predicted, of those that are on this machine.
    """

    folder: Path
    description: DatasetDescription
    subjects: tuple[Subject, ...]
    tables: Mapping[str, Table]
    definitions: Mapping[str, str]
    label_names: Mapping[int, str]
    requested_only: tuple[str, ...]
    searched: tuple[Path, ...]
    datasets: tuple[str, ...] = ()


def read_results(folder: Path, references: Sequence[Path] = ()) -> Results:
    """Read what ``longflow_predict`` and ``longflow_evaluate`` wrote; image files are not opened.

    Acquired scans are searched in ``references``, or else in the scans of a DICOM export (``scans``), or else in the
    raw dataset that the sidecars name; with a folder of this dataset as reference, in its other folders, too. Otherwise
    two patients whose names are equal by chance would be shown as one.

    :raises DataError: the folder holds no prediction, or its tables cannot be read.
    """
    if not (folder / "scans.csv").is_file():
        raise DataError(f"{folder} has no scans.csv. Expected a folder that longflow_predict wrote.")
    description = read_description(folder / "dataset.json")
    predicted = dict(_predictions(folder, description))
    if not any(predicted.values()):
        raise DataError(
            f"{folder} holds no prediction: no row of its scans.csv has an image or a label map. Run longflow_predict."
        )
    searched = [*references] or ([folder / SCANS] if (folder / SCANS).is_dir() else [])
    datasets = _datasets(predicted.values())
    of_dataset = [path for name in datasets for path in dataset_folders(DatasetPaths(name).raw)]
    if not searched or {one.resolve() for one in searched} & {one.resolve() for one in of_dataset}:
        searched += of_dataset
    library = Library(tuple(searched), description)
    listed = {row.subject for row in read_rows(folder / "scans.csv") if is_name(row.subject)}
    cases = {one.case for some in predicted.values() for one in some}
    acquired, requested = _scans_of_tables(library, cases, folder / SEGMENTED_SCANS)
    subjects = [_subject(name, predicted[name], acquired.get(name, []), requested.get(name, [])) for name in predicted]
    tables = dict(_tables(folder))
    return Results(
        folder,
        description,
        tuple(sorted(subjects, key=lambda one: one.name)),
        tables,
        _definitions(folder),
        _label_names(folder, description),
        tuple(sorted((set(requested) | listed) - set(predicted))),
        tuple(searched),
        datasets,
    )


def _predictions(folder: Path, description: DatasetDescription) -> Iterator[tuple[str, list[Predicted]]]:
    """Yield each subject with its predictions: the rows of scans.csv that have an image or a label map."""
    found: dict[str, list[Predicted]] = {}
    for row in read_rows(folder / "scans.csv"):
        time = parse_time(row.time)
        if time is None or not is_name(row.case) or not is_name(row.subject):
            continue
        channels = range(len(description.channels))
        images = tuple(image_path(folder, row.case, channel, description) for channel in channels)
        labels = (label_path(place, row.case, description) for place in (folder, folder / SEGMENTED))
        predicted = Predicted(
            case=row.case,
            time=time,
            phase=row.covariates.get(PHASE, ""),
            images=images if all(path.is_file() for path in images) else (),
            label=next((label for label in labels if label.is_file()), None),
            sidecar=_sidecar(folder, row.case),
        )
        if predicted.images or predicted.label:
            found.setdefault(row.subject, []).append(predicted)
    yield from found.items()


def _sidecar(folder: Path, case: str) -> dict[str, Any]:
    path = sidecar_path(folder, case)
    return read_json(path, dict) if path.is_file() else {}


def _datasets(predicted: Iterable[Sequence[Predicted]]) -> tuple[str, ...]:
    """List the datasets that the sidecars name, of those that are on this machine."""
    named = [one.sidecar.get("dataset") for some in predicted for one in some]
    names = {name for name in named if isinstance(name, str)}
    return tuple(sorted(names & set(known_datasets()))) if names else ()


def _scans_of_tables(
    library: Library, predicted: set[str], segmented: Path
) -> tuple[dict[str, list[Moment]], dict[str, list[Moment]]]:
    """List the acquired scans of the tables, and the rows that have neither an image nor a prediction, by subject.

    :param predicted: cases of predictions.
    :param segmented: folder with predicted label maps of acquired scans, for those without a label map of a rater.
    """
    acquired: dict[str, list[Moment]] = {}
    requested: dict[str, list[Moment]] = {}
    seen: set[str] = set()
    for folder in library.folders:
        for row in _rows(folder):
            time = parse_time(row.time)
            if time is None or row.case in seen or not is_name(row.subject) or not is_name(row.case):
                continue
            seen.add(row.case)
            files = library.by_case(row.case)
            place = {"case": row.case, "time": time, "phase": row.covariates.get(PHASE, "")}
            if files and not sidecar_path(files[0].parent, row.case).is_file():
                label = _label_of(files, row.case, library.description, segmented)
                acquired.setdefault(row.subject, []).append(Moment(**place, images=files, label=label))
            elif not files and row.case not in predicted:
                requested.setdefault(row.subject, []).append(Moment(**place))
    return acquired, requested


def _rows(folder: Path) -> list[Row]:
    try:
        return rows_of_folder(folder)
    except DataError:
        return []  # targetsTs has no table of its own: its scans are rows in that of imagesTs


def _label_of(files: Files, case: str, description: DatasetDescription, segmented: Path) -> Path | None:
    """Return the label map of the rater (labelsTr next to imagesTr, else labelsTs), or else a predicted one."""
    images = files[0].parent
    of_rater = images.with_name("labelsTr" if images.name == "imagesTr" else "labelsTs")
    paths = (label_path(folder, case, description) for folder in (of_rater, segmented))
    return next((path for path in paths if path.is_file()), None)


def _subject(name: str, predicted: Sequence[Predicted], acquired: list[Moment], requested: list[Moment]) -> Subject:
    """Find the reference and the last context scan of each prediction; check that its inputs are what they were."""
    by_case = {one.case: one for one in acquired}
    complete, warnings = [], []
    not_found: dict[str, Moment] = {}
    for one in predicted:
        context = _context(one)
        given = sorted((by_case[case] for case in context if case in by_case), key=lambda scan: scan.time)
        if missing := [case for case in context if case not in by_case]:
            times = numbers_in(one.sidecar.get("context_times"))
            for case, time in zip(context, times, strict=True) if len(times) == len(context) else ():
                if case in missing:
                    not_found[case] = Moment(case=case, time=time, missing=True)
            warnings.append(
                f"{one.case}: of the {len(context)} scans that it was made from, {len(missing)} were not found "
                f"({first_few(missing, 3)}). Name their folder with -r."
            )
        warnings += _changed_inputs(one, given)
        found = {"reference": _reference(one, acquired), "last": given[-1] if given else None} if one.images else {}
        complete.append(replace(one, **found))
    return Subject(
        name,
        tuple(sorted(acquired, key=_order)),
        tuple(sorted(complete, key=_order)),
        tuple(sorted([*(one for one in requested if one.case not in not_found), *not_found.values()], key=_order)),
        tuple(warnings),
    )


def numbers_in(found: object) -> list[float]:
    """Return the numbers of a list in a sidecar; none where it is no list of numbers."""
    numbers = found if isinstance(found, list) else []
    return [float(one) for one in numbers if isinstance(one, int | float) and not isinstance(one, bool)]


def _order(one: Moment) -> tuple[float, str, str]:
    return one.time, one.phase, one.case


def _context(one: Predicted) -> list[str]:
    """List the cases that a prediction was made from: those of its sidecar, or the scan of its own name."""
    found = one.sidecar.get("context", [one.sidecar.get("source", one.case)])
    return [case for case in found if isinstance(case, str)] if isinstance(found, list) else []


def _reference(one: Predicted, acquired: Sequence[Moment]) -> Moment | None:
    """Return the scan of the same case, or else of the same time and phase."""
    same_time = (scan for scan in acquired if math.isclose(scan.time, one.time, rel_tol=1e-9, abs_tol=1e-6))
    same = [scan for scan in same_time if not one.phase or scan.phase == one.phase]
    return next((scan for scan in acquired if scan.case == one.case), same[0] if same else None)


def _changed_inputs(one: Predicted, given: Sequence[Moment]) -> Iterator[str]:
    """Yield a sentence for each scan that is not the file that the prediction was made from."""
    digests = one.sidecar.get("digests")
    inputs = digests.get("inputs") if isinstance(digests, dict) else None
    if not isinstance(inputs, dict):
        return
    for path in (path for scan in given for path in scan.images):
        if path.name in inputs and file_digest(path) != inputs[path.name]:
            yield f"{one.case}: {path.name} was changed after the prediction was made from it."


def _tables(folder: Path) -> Iterator[tuple[str, Table]]:
    """Yield every table of the folder that names subjects, apart from the list of scans."""
    for path in sorted(folder.glob("*.csv")):
        if path.name == "scans.csv" or path.name.startswith("."):
            continue
        rows = [line.cells for line in read_table(path)]
        if rows and "subject" in rows[0]:
            yield path.name, rows
    if volumes := list(_segmented_volumes(folder)):
        yield SEGMENTED_VOLUMES, volumes


def _segmented_volumes(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the volumes in the sidecars of the label maps of predicted and acquired scans, a row for each structure."""
    for source, place in (("forecast", SEGMENTED), ("observed", SEGMENTED_SCANS)):
        for path in sorted((folder / place).glob("*.json")):
            found = read_json(path, dict)
            volumes = found.get("volumes")
            for structure, one in volumes.items() if isinstance(volumes, dict) else ():
                if isinstance(one, dict) and {"subject", "time"} <= set(found):
                    row = {name: found.get(name) for name in ("case", "subject", "time")}
                    row |= {"source": source, "structure": structure, "volume_ml": one.get("volume_ml")}
                    yield {name: str(cell) for name, cell in row.items()}


def _definitions(folder: Path) -> dict[str, str]:
    path = folder / "metrics.json"
    found = read_json(path, dict).get("definitions", {}) if path.is_file() else {}
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def _label_names(folder: Path, description: DatasetDescription) -> dict[int, str]:
    """Return the names of label values: of the dataset, or else of the model that segmented the scans."""
    paths = [folder / place / "dataset.json" for place in (SEGMENTED, SEGMENTED_SCANS)]
    further = [read_description(path) for path in paths if path.is_file()]
    return {
        value: name
        for one in (*reversed(further), description)
        for name, value in one.labels.items()
        if isinstance(value, int) and value > 0
    }
