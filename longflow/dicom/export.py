"""Write the predictions of a folder as DICOM: label maps as segmentations, forecasts and translations as series.

What a prediction is, its files and its sidecar say. Every file is written whole or not at all; finished ones are kept
when the same command is run again, so that an object that a PACS has is not sent a second time under another UID.
"""

import hashlib
import json
import logging
import os
import shutil
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from highdicom.seg import Segmentation, segread
from pydicom import Dataset

from longflow.data.dataset import (
    DatasetDescription,
    Row,
    image_path,
    label_path,
    parse_time,
    read_description,
    read_rows,
    sidecar_path,
)
from longflow.data.images import Geometry, read_array
from longflow.data.labels import structures as named_structures
from longflow.dicom.curve import volume_curve
from longflow.dicom.derived import Derivation, derived_series
from longflow.dicom.report import TimePoint, volume_report
from longflow.dicom.segmentation import label_segmentation
from longflow.dicom.segments import Structure, coded_structures
from longflow.dicom.sources import (
    SOURCES_JSON,
    Source,
    SourceSeries,
    is_on_grid,
    read_series,
    read_sources,
    slices_in_order,
)
from longflow.errors import DataError, LongflowError
from longflow.files import atomic_write, exclusive_lock, file_digest, write_json
from longflow.parallel import Progress
from longflow.paths import lock_in, path_in
from longflow.reading import read_json
from longflow.version import __version__

logger = logging.getLogger(__name__)

#: what was written, from which files: a finished file is kept while these are the same
EXPORT_JSON = "export.json"
#: number of the first series in a study; scanners count from 1
FIRST_SERIES = 9001


@dataclass(frozen=True)
class Settings:
    """What a user decides about the files.

    :param label_kind: "BINARY" or "LABELMAP".
    :param burned_in: write into the pixels of the first slice of synthetic images that they are.
    """

    label_kind: str = "BINARY"
    burned_in: bool = True

    @classmethod
    def of_flags(cls, options: Namespace) -> "Settings":
        """Return what the flags of a command say (:func:`longflow.cli.flags.add_dicom_settings`)."""
        return cls("LABELMAP" if options.label_map else "BINARY", not options.no_burned_in_text)


@dataclass(frozen=True)
class Exported:
    """What an export wrote, now or before: segmentations, series of synthetic images, reports with their curves."""

    segmentations: int
    series: int
    reports: int

    def __str__(self) -> str:
        counts = (
            (self.segmentations, "segmentation", "segmentations"),
            (self.series, "synthetic series", "synthetic series"),
            (self.reports, "volume report", "volume reports"),
        )
        return ", ".join(f"{count} {one if count == 1 else several}" for count, one, several in counts if count)


@dataclass
class _Work:
    """An export that is being made.

    :param files: of the DICOM export, by SOPInstanceUID.
    :param sources: of the scans.
    :param record: of what was written, by name.
    :param numbers: of series, by study.
    """

    predictions: Path
    output: Path
    description: DatasetDescription
    structures: list[Structure]
    files: Mapping[str, Path]
    sources: Mapping[str, Source]
    settings: Settings
    record: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def next_number(self, source: SourceSeries) -> int:
        """Return the number of the next series in the study of a scan."""
        study = str(source.first.StudyInstanceUID)
        self.numbers[study] = self.numbers.get(study, FIRST_SERIES - 1) + 1
        return self.numbers[study]

    def is_made(self, name: str, made_from: Any) -> bool:
        """Tell whether a file or folder was written before, from the same."""
        return self.record.get(name) == made_from and (self.output / name).exists()

    def note(self, name: str, made_from: Any) -> None:
        """Write down that a file or folder is finished."""
        self.record[name] = made_from
        write_json(self.record, self.output / EXPORT_JSON)


def export_folder(
    predictions: Path,
    output: Path,
    files: Mapping[str, Path],
    raw: Path | None = None,
    review: Path | None = None,
    settings: Settings = Settings(),
    progress: Progress = lambda *_: None,
) -> Exported:
    """Write every prediction of a folder as DICOM.

    :param predictions: folder that ``longflow_predict`` wrote.
    :param output: folder for the DICOM files.
    :param files: of the export that the scans came from, by SOPInstanceUID.
    :param raw: the dataset that the scans were imported into, for its codes; None: those of ``predictions`` count.
    :param review: folder of that import, with the sources of the scans; None: they are in ``predictions``.
    :param progress: called with (finished, all, case).
    :returns: what is in the output folder now.
    :raises DataError: the folder holds no prediction, no sources are known, or some could not be written (each is
        named, and the others are written).
    """
    work = _prepare(predictions, output, files, raw, review, settings)
    rows = [row for row in read_rows(predictions / "scans.csv") if sidecar_path(predictions, row.case).is_file()]
    if not rows:
        raise DataError(f"{predictions} holds no prediction. Expected a folder that longflow_predict wrote.")
    failures, points = [], {}
    with exclusive_lock(lock_in(output), f"{output} is being written"), warnings.catch_warnings():
        # of names with one part and the like: they would show the name of the patient
        warnings.simplefilter("ignore", UserWarning)
        work.record.update(_read_record(output))
        counts = [0, 0]
        for number, row in enumerate(rows):
            progress(number, len(rows), row.case)
            try:
                labels = _export_labels(work, row)
                if labels is not None:
                    points.setdefault(row.subject, []).append(labels)
                counts[0] += labels is not None
                counts[1] += _export_images(work, row)
            except LongflowError as error:
                failures.append(f"  {row.case}: {error}")
        progress(len(rows), len(rows), "")
        reports = 0
        for subject, measured in points.items():
            reports += _export_volumes(work, subject, measured)
    if failures:
        raise DataError(f"{len(failures)} of {len(rows)} predictions could not be written:\n" + "\n".join(failures))
    return Exported(*counts, reports)


def _prepare(
    predictions: Path,
    output: Path,
    files: Mapping[str, Path],
    raw: Path | None,
    review: Path | None,
    settings: Settings,
) -> _Work:
    """Read what belongs to the whole folder."""
    if not (predictions / "scans.csv").is_file():
        raise DataError(f"{predictions} has no scans.csv. Expected a folder that longflow_predict wrote.")
    if output.resolve() == predictions.resolve():
        raise DataError(f"{output} holds the predictions. Give another folder for the DICOM files with -o.")
    description = read_description(predictions / "dataset.json")
    coded = description
    if raw is not None and (raw / "dataset.json").is_file():
        of_raw = read_description(raw / "dataset.json")  # codes can be added to it after training
        coded = of_raw if of_raw.labels == description.labels else description
    sources = (read_sources(review) if review else {}) | read_sources(predictions)
    if not sources:
        places = " nor ".join(str(folder) for folder in (predictions, review) if folder)
        raise DataError(
            f"Neither {places} has a {SOURCES_JSON}: the DICOM series of the scans are not known. It is written by "
            "longflow_import dicom and by longflow_predict --dicom. Give the dataset that was imported with -d."
        )
    structures = coded_structures(coded) if named_structures(coded.labels) else []
    return _Work(predictions, output, description, structures, files, sources, settings)


def _read_record(output: Path) -> dict[str, Any]:
    path = output / EXPORT_JSON
    return read_json(path, dict) if path.is_file() else {}


def _export_labels(work: _Work, row: Row) -> "_Measured | None":
    """Write the segmentation of a label map.

    :returns: what was measured; None: the prediction is no label map.
    """
    path = label_path(work.predictions, row.case, work.description)
    if not path.is_file():
        return None
    sidecar = read_json(sidecar_path(work.predictions, row.case), dict)
    source = read_series(_source(work, f"{row.case}_0000"), work.files)
    name, number = f"{row.case}_labels.dcm", work.next_number(source)
    made_from = _made_from(path, source, kind=work.settings.label_kind, codes=_codes(work.structures))
    if work.is_made(name, made_from):
        made = segread(path_in(work.output, name))
    else:
        labels = slices_in_order(*read_array(path), source)
        made = label_segmentation(labels, source, work.structures, _method(sidecar), number, work.settings.label_kind)
        _save(made, path_in(work.output, name))
        work.note(name, made_from)
    volumes = {structure: one["volume_ml"] for structure, one in sidecar.get("volumes", {}).items()}
    time = parse_time(row.time)
    if time is None:
        raise DataError(f"its time is '{row.time}' in scans.csv, expected a number.")
    return _Measured(row.case, time, made, source, volumes, _method(sidecar))


def _export_images(work: _Work, row: Row) -> int:
    """Write the series of a forecast or translation, one for each channel. :returns: their number."""
    sidecar, written = read_json(sidecar_path(work.predictions, row.case), dict), 0
    for channel in range(len(work.description.channels)):
        path = image_path(work.predictions, row.case, channel, work.description)
        if not path.is_file():
            continue
        _export_image(work, path, f"{row.case}_{channel:04d}", channel, sidecar)
        written += 1
    return written


def _export_image(work: _Work, path: Path, name: str, channel: int, sidecar: Mapping[str, Any]) -> None:
    """Write one series, in a folder of its own."""
    cases = _cases_before(sidecar)
    if not cases:
        raise DataError("its sidecar does not say from which scan it was made. Predict it again.")
    array, geometry = read_array(path)
    source, own_grid = _grid_of_source(work, [f"{case}_{channel:04d}" for case in cases], geometry)
    number = work.next_number(source)
    made_from = _made_from(path, source, burned_in=work.settings.burned_in)
    if work.is_made(name, made_from):
        return
    derivation = _derivation(sidecar)
    if own_grid is None:
        array = slices_in_order(array, geometry, source)
    else:
        details = " Its scans were registered: grid and frame of reference are its own."
        derivation = Derivation(derivation.series, derivation.details + details)
    images = derived_series(array, source, derivation, number, work.settings.burned_in, own_grid)
    folder = path_in(work.output, name)
    unfinished = path_in(work.output, f"unfinished-{name}"[:200])
    shutil.rmtree(unfinished, ignore_errors=True)
    for image in images:
        _save(image, unfinished / f"{image.InstanceNumber:04d}.dcm")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    work.note(name, made_from)


def _grid_of_source(work: _Work, names: Sequence[str], geometry: Geometry) -> tuple[SourceSeries, Geometry | None]:
    """Find the series that a predicted volume is a further image of.

    :param names: of the images that it was made from, the last one first.
    :returns: the series on whose grid the volume is; else the last one, and the grid.
    :raises DataError: the series of none is known.
    """
    known = [work.sources[name] for name in names if name in work.sources]
    if not known:
        _source(work, names[0])  # says what is missing
    last = None
    for source in known:
        series = read_series(source, work.files)
        if is_on_grid(geometry, series):
            return series, None
        last = last or series
    assert last is not None
    logger.warning("%s is on no grid of a DICOM series: it is written on a grid of its own.", names[0])
    return last, geometry


def _source(work: _Work, name: str) -> Source:
    if name not in work.sources:
        raise DataError(
            f"the DICOM series of {name} is not known: {SOURCES_JSON} does not name it. Was the scan imported from "
            "DICOM, and is -d its dataset?"
        )
    return work.sources[name]


def _cases_before(sidecar: Mapping[str, Any]) -> list[str]:
    """Return the scans that a volume was made from, the last one first."""
    context = sidecar.get("context") or [sidecar.get("source")]
    return [str(case) for case in reversed(context) if case]


def _derivation(sidecar: Mapping[str, Any]) -> Derivation:
    """Describe a forecast by its horizon, a translation by its phases, both by model."""
    digest, method = model_digest(sidecar), _method(sidecar)
    if "horizon" in sidecar:
        unit, given = sidecar.get("time_unit", ""), len(sidecar.get("context", []))
        what = f"forecast +{sidecar['horizon']:.6g} {unit}"
        made = f"Forecast {sidecar['horizon']:.6g} {unit} after the last of {given} scans"
    else:
        what = f"{sidecar.get('source_phase', '')} to {sidecar.get('target_phase', '')}"
        made = f"Translation of a scan from {what}"
    details = (
        f"{made}, by longflow {sidecar.get('longflow_version', __version__)} ({method}, model {digest}). "
        f"Not an acquired image, not for clinical decisions."
    )
    # 64 letters hold the words in front, the model and so many letters
    return Derivation(f"{what[:24]}, {digest}", details)


def model_digest(sidecar: Mapping[str, Any]) -> str:
    """Return 8 letters that tell the weights of a prediction's model from others; empty where they are not known.

    >>> model_digest({"digests": {"weights": [["ab", "cd"]]}})
    '82c776c0'
    """
    weights = sidecar.get("digests", {}).get("weights")
    return hashlib.sha256(json.dumps(weights).encode()).hexdigest()[:8] if weights else ""


def _method(sidecar: Mapping[str, Any]) -> str:
    return " ".join(dict.fromkeys(map(str, sidecar.get("method", []))))


@dataclass(frozen=True)
class _Measured:
    """A scan whose labels were written."""

    case: str
    time: float
    segmentation: Segmentation
    source: SourceSeries
    volumes: Mapping[str, float]
    method: str


def _export_volumes(work: _Work, subject: str, measured: Sequence[_Measured]) -> int:
    """Write the report and the curve of a subject's volumes. :returns: 1, or 0 where no volume was measured."""
    measured = sorted(measured, key=lambda one: one.time)
    points = [
        TimePoint(
            one.case,
            one.time - measured[0].time,
            one.segmentation,
            str(one.source.first.Modality),
            str(one.source.first.SeriesInstanceUID),
            one.volumes,
        )
        for one in measured
    ]
    if not any(point.volumes for point in points):
        return 0
    last, unit = measured[-1], work.description.time_unit
    made_from = [[str(point.segmentation.SOPInstanceUID), point.time, dict(point.volumes)] for point in points]
    numbers = [work.next_number(last.source) for _ in range(2)]
    names = [f"{subject}_volumes.dcm", f"{subject}_volume_curve.dcm"]
    if all(work.is_made(name, made_from) for name in names):
        return 1
    report = volume_report(points, work.structures, unit, last.method, numbers[0])
    curve = volume_curve(points, work.structures, unit, last.source.first, numbers[1])
    for name, made in zip(names, (report, curve), strict=True):
        _save(made, path_in(work.output, name))
        work.note(name, made_from)
    return 1


def _made_from(path: Path, source: SourceSeries, **settings: Any) -> dict[str, Any]:
    return {"prediction": file_digest(path), "series": str(source.first.SeriesInstanceUID), **settings}


def _codes(structures: Sequence[Structure]) -> str:
    """Return a digest of names, codes and colours."""
    text = json.dumps([[one.name, one.values, one.type, one.category, one.colour] for one in structures])
    return hashlib.sha256(text.encode()).hexdigest()


def _save(made: Dataset, path: Path) -> None:
    """Write a DICOM file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        made.save_as(temporary, enforce_file_format=True)
