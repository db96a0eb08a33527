"""A raw dataset: dataset.json, scans.csv, image folders, and the series of scans that they describe."""

import json
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from longflow.data.formats import refusal
from longflow.data.hounsfield import is_ct
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.files import write_csv, write_json
from longflow.paths import LONGEST_NAME, is_name, path_in
from longflow.plans import MOST_COVARIATES, NormalForm, TaskName, TimeUnit
from longflow.reading import parse_number, read_json, read_table
from longflow.schema import FileEnding, Name, Period, Phases, validated
from longflow.task import DEFAULT_TASK, get_task

REQUIRED_COLUMNS = ("case", "subject", "time")

#: the column with the contrast phase of a scan, for tasks that use phases
PHASE = "phase"

logger = logging.getLogger(__name__)


class DatasetDescription(BaseModel):
    """``dataset.json``: nnU-Net's keys, plus ``time_unit``, ``task``, ``normalization``, ``period`` and ``covariates``.

    Further keys (``name``, ``licence``, ``reference`` ...) are kept and ignored, as nnU-Net does.
    """

    model_config = ConfigDict(extra="allow")

    channel_names: dict[str, Name]
    file_ending: FileEnding
    time_unit: TimeUnit
    labels: dict[Name, int | list[int]] = {}
    regions_class_order: list[int] = Field(default=[], description="nnU-Net's; needed where labels are regions")
    task: TaskName = DEFAULT_TASK
    normalization: dict[str, NormalForm] = Field(default={}, description="normal form by channel index, to override")
    phases: Phases = Field(default=[], description="for tasks that use phases: the two phases, the one at t = 0 first")
    phase_channels: dict[str, dict[str, Name]] = Field(
        default={},
        description="channel names of each phase, where the phases are different modalities, as MR and CT",
    )
    period: Period | None = Field(
        default=None,
        description="where scans repeat, as heart beats do: a number in the time unit, or the column of scans.csv that "
        "holds it",
    )
    covariates: list[Name] = Field(
        default=[], max_length=MOST_COVARIATES, description="columns of scans.csv that are conditions of methods"
    )

    @field_validator("channel_names")
    @classmethod
    def _channels_count_from_zero(cls, value: dict[str, str]) -> dict[str, str]:
        if sorted(value) != sorted(str(index) for index in range(len(value))) or not value:
            raise ValueError('channel_names needs the keys "0", "1", ... without a gap')
        return value

    @field_validator("covariates")
    @classmethod
    def _are_further_columns(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value) or not set(value).isdisjoint([*REQUIRED_COLUMNS, PHASE, ""]):
            raise ValueError(
                'further columns of scans.csv, each once, as ["age", "treatment"], and not case, subject, time or phase'
            )
        return value

    @model_validator(mode="after")
    def _channels_of_phases_fit(self) -> "DatasetDescription":
        if not self.phase_channels:
            return self
        if set(self.phase_channels) != set(self.phases):
            raise ValueError(
                'phase_channels needs both names of "phases", as "phases": ["mr", "ct"], "phase_channels": '
                '{"mr": {"0": "T1"}, "ct": {"0": "CT"}}; found '
                f"{', '.join(self.phase_channels)}, and the phases {', '.join(self.phases) or 'missing'}"
            )
        for phase, names in self.phase_channels.items():
            if set(names) != set(self.channel_names):
                raise ValueError(
                    f"phase_channels: the phase '{phase}' has the channels {', '.join(names) or 'none'}, expected "
                    f"{', '.join(self.channel_names)}, as in channel_names: a scan is translated channel by channel, "
                    "so both phases have as many"
                )
        return self

    @field_validator("file_ending")
    @classmethod
    def _is_read(cls, value: str) -> str:
        if refused := refusal(value):
            raise ValueError(f"files in one piece, as .nii.gz; {value} is {refused[0]}. {refused[1]}")
        return value

    @property
    def channels(self) -> list[str]:
        """Return the channel names in order."""
        return [self.channel_names[str(index)] for index in range(len(self.channel_names))]

    @property
    def is_ct(self) -> list[bool]:
        """Tell for each channel, by its name, whether its values are Hounsfield units."""
        return [is_ct(name) for name in self.channels]

    def channels_of(self, phase: str) -> list[str]:
        """Return the channel names of a phase in order; those of all scans where phases have none of their own."""
        names = self.phase_channels.get(phase, self.channel_names)
        return [names[str(index)] for index in range(len(names))]

    def is_ct_of(self, phase: str) -> list[bool]:
        """Tell for each channel of a phase whether its values are Hounsfield units."""
        return [is_ct(name) for name in self.channels_of(phase)]

    @property
    def label_values(self) -> set[int]:
        """Return every integer that a label image may hold: regions expanded, with background 0."""
        values = {0}
        for value in self.labels.values():
            values.update(value if isinstance(value, list) else [value])
        return values


@dataclass(frozen=True)
class Scan:
    """One acquisition of one subject at one time.

    :param case: file prefix; channel ``c`` is the file ``{case}_{c:04d}{file_ending}``.
    :param subject: name of the patient.
    :param time: in the dataset's time unit.
    :param images: one path per channel, in order of channels; the files of a requested scan do not exist.
    :param label: path of the label image, or None.
    :param covariates: further columns of scans.csv.
    """

    case: str
    subject: str
    time: float
    images: tuple[Path, ...]
    label: Path | None = None
    covariates: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def phase(self) -> str:
        """Return the contrast phase in scans.csv; empty where there is none."""
        return self.covariates.get(PHASE, "")

    @property
    def exists(self) -> bool:
        """Tell whether the file of every channel exists."""
        return all(path.is_file() for path in self.images)


@dataclass(frozen=True)
class Series:
    """A subject's scans in order of time."""

    subject: str
    scans: tuple[Scan, ...]

    @property
    def times(self) -> list[float]:
        """Return the time of each scan, ascending."""
        return [scan.time for scan in self.scans]

    def with_images(self) -> "Series":
        """Return the scans whose files exist; those of requested scans do not."""
        return Series(self.subject, tuple(scan for scan in self.scans if scan.exists))


@dataclass(frozen=True)
class Row:
    """A line of scans.csv as it is, before anything is checked.

    :param line: its number in the file, from 2 on; of LongiSeg's table, the position of the case.
    :param covariates: cells of further columns.
    :param surplus: cells beyond those of the first line.
    """

    line: int
    case: str
    subject: str
    time: str
    covariates: dict[str, str]
    surplus: tuple[str, ...] = ()


def read_description(path: Path) -> DatasetDescription:
    """Read and validate a ``dataset.json``; the times of a LongiSeg dataset are positions, counted in visits.

    :param path: the file.
    :returns: its content.
    :raises DataError: the file is missing or not JSON.
    :raises ConfigurationError: a key is missing or invalid, or the file is one of nnU-Net v1.
    """
    content = read_json(path)
    if isinstance(content, dict):
        _check_version_of_nnunet(content, path)
        if "time_unit" not in content and (path.parent / "patientsTr.json").is_file():
            content["time_unit"] = "visits"
    return validated(DatasetDescription, content, path)


def _check_version_of_nnunet(content: dict[str, Any], path: Path) -> None:
    """Refuse a dataset.json of nnU-Net v1; the message has its keys as they are written today."""
    labels = content.get("labels")
    turned = isinstance(labels, dict) and bool(labels) and all(isinstance(name, str) for name in labels.values())
    old = "modality" in content and "channel_names" not in content
    if not old and not (turned and all(value.isdecimal() for value in labels)):
        return
    keys: dict[str, Any] = {"channel_names": content["modality"]} if old else {}
    if turned:
        keys["labels"] = {name: int(value) if value.isdecimal() else value for value, name in labels.items()}
    if "file_ending" not in content:
        keys["file_ending"] = ".nii.gz"
    written = ", ".join(f'"{key}": {json.dumps(value, ensure_ascii=False)[:300]}' for key, value in keys.items())
    raise ConfigurationError(
        f"{path} is of nnU-Net v1, whose keys are others: 'modality' is now 'channel_names', labels are name: number "
        f"and not number: name, and 'file_ending' is needed. Replace them by {written}, and add time_unit."
    )


def read_rows(path: Path) -> list[Row]:
    """Read the lines of ``scans.csv`` and check its header.

    :param path: the file.
    :returns: the lines in order, unchecked.
    :raises DataError: the file is missing, empty, not text, lacks one of the columns case, subject, time, or has a
        column twice.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Expected a table with one line per scan and the columns case,subject,time."
        )
    return [
        Row(
            line=line.number,
            **{name: line.cells[name] for name in REQUIRED_COLUMNS},
            covariates={name: cell for name, cell in line.cells.items() if name not in REQUIRED_COLUMNS},
            surplus=line.surplus,
        )
        for line in read_table(path, *REQUIRED_COLUMNS)
    ]


def parse_time(text: str) -> float | None:
    """Parse a finite number; None where the text is not one (a date, 2019_01, an empty cell, nan)."""
    return parse_number(text)


def normal_name(subject: str) -> str:
    """Return the form that the spellings of a subject share: letters, zeros, spaces and dashes as people vary them.

    >>> {normal_name(name) for name in ("p01", "P01", "P1", "p\u00a001", "p01\u200b")}
    {'p1'}
    >>> normal_name("1 1") == normal_name("11"), normal_name("p1-1") == normal_name("p11")
    (False, False)
    """
    text = unicodedata.normalize("NFKC", subject).casefold()
    kinds = ((letter, unicodedata.category(letter)) for letter in text)
    text = "".join("-" if kind == "Pd" else letter for letter, kind in kinds if kind != "Cf").strip()
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", text)


def spelled_alike(subjects: Iterable[str]) -> list[tuple[str, ...]]:
    """List the subjects that may be one patient, by :func:`normal_name`.

    :param subjects: names; a name may come several times.
    :returns: groups of two or more names, sorted.
    """
    groups: dict[str, list[str]] = {}
    for subject in sorted(set(subjects)):
        groups.setdefault(normal_name(subject), []).append(subject)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def warn_of_spellings(subjects: Iterable[str]) -> None:
    """Warn of subjects that may be one patient; once for the same names, since several steps read them."""
    if alike := spelled_alike(subjects):
        _warn_once(tuple(alike))


@cache
def _warn_once(alike: tuple[tuple[str, ...], ...]) -> None:
    logger.warning(
        "These subjects may be one patient each: %s. If they are, give all scans one spelling in the column subject of "
        "the table, and prepare the dataset again: otherwise the patient is trained on and tested on.",
        first_few(" and ".join(map(repr, names)) for names in alike),
    )


def rows_of_folder(images: Path) -> list[Row]:
    """Read the table of an image folder.

    It is ``scans.csv`` in the folder; for ``imagesTr``, also ``scans.csv`` next to the folder; or LongiSeg's
    ``patientsTr.json`` next to it, in which the position of a case is its time.

    :param images: the folder.
    :returns: the lines in order, unchecked.
    :raises DataError: there is no table, or it cannot be read.
    """
    table = images / "scans.csv"
    if not table.is_file() and images.name == "imagesTr":
        table = images.parent / "scans.csv"
    longiseg = images.parent / f"patients{images.name.removeprefix('images')}.json"
    if not table.is_file() and longiseg.is_file():
        return _rows_of_longiseg(longiseg)
    return read_rows(table)


def _rows_of_longiseg(path: Path) -> list[Row]:
    patients = read_json(path)
    if not isinstance(patients, dict) or not all(isinstance(cases, list) for cases in patients.values()):
        raise DataError(
            f"{path} is not a LongiSeg table. Expected each patient with the list of its cases in order of time."
        )
    rows, line = [], 1
    for subject, cases in patients.items():
        for position, case in enumerate(cases):
            line += 1
            case, name = (unicodedata.normalize("NFC", str(text)) for text in (case, subject))
            rows.append(Row(line, case, name, str(position), {}))
    return rows


def series_of_folder(images: Path, description: DatasetDescription, labels: Path | None = None) -> list[Series]:
    """Read the table of an image folder as series; image files are not opened.

    :param images: the folder.
    :param description: its dataset.json.
    :param labels: folder of label images; None: the scans have no labels.
    :returns: sorted by subject; the scans of a series are sorted by time, then phase.
    :raises DataError: a line is invalid (:func:`_checked_time`), or two lines share a case or a (subject, time).
    """
    apart_by = get_task(description.task).apart_by
    scans: dict[str, list[Scan]] = {}
    cases: dict[str, int] = {}
    moments: dict[tuple[str, float, tuple[str, ...]], str] = {}
    for row in rows_of_folder(images):
        time = _checked_time(row, images, description.time_unit)
        if row.case in cases:
            raise DataError(
                f"Case {row.case} stands in lines {cases[row.case]} and {row.line} of the table of {images}. Expected "
                "each case once."
            )
        cells = told_apart_by(row, apart_by)
        moment = row.subject, time, cells
        if moment in moments:
            further = "".join(f" in {column} {cell}" for column, cell in zip(apart_by, cells, strict=True) if cell)
            raise DataError(
                f"Subject {row.subject} has two scans at time {time:g}{further}: {moments[moment]} and {row.case}. "
                "Give them different times, or keep one."
            )
        cases[row.case] = row.line
        moments[moment] = row.case
        scans.setdefault(row.subject, []).append(_scan_of_row(row, time, images, description, labels))
    warn_of_spellings(scans)
    return [
        Series(subject, tuple(sorted(scans[subject], key=lambda scan: (scan.time, scan.phase))))
        for subject in sorted(scans)
    ]


def _checked_time(row: Row, images: Path, time_unit: str) -> float:
    """Check the cells of a line; return its time.

    :raises DataError: the time is not a number, a cell is empty or one too many, or a case or subject is not a name.
    """
    place = f"the table of {images}"
    if not row.case or not row.subject:
        raise DataError(f"Line {row.line} of {place} has an empty case or subject. Fill in both.")
    if strange := [name for name in (row.case, row.subject) if not is_name(name)]:
        raise DataError(
            f"'{strange[0][:80]}' in line {row.line} of {place} cannot be part of a file's name. Cases and subjects "
            f"are names of at most {LONGEST_NAME} bytes, without slashes or control characters, that do not begin with "
            "a point and are not 'dataset', 'metrics' or 'lesions'."
        )
    if any(row.surplus):
        raise DataError(
            f"Line {row.line} of {place} has more cells than the first line: ...{row.time},{','.join(row.surplus)}. "
            "Write decimals with a point. Put text that contains a comma in quotes."
        )
    time = parse_time(row.time)
    if time is None:
        raise DataError(
            f"The time of case {row.case} (line {row.line} of {place}) is '{row.time[:80]}', not a number. Expected: "
            f"{time_unit} since any fixed day, as a number in digits; longflow does not read dates."
        )
    return time


def _scan_of_row(row: Row, time: float, images: Path, description: DatasetDescription, labels: Path | None) -> Scan:
    label = label_path(labels, row.case, description) if labels else None
    channels = range(len(description.channels))
    return Scan(
        case=row.case,
        subject=row.subject,
        time=time,
        images=tuple(image_path(images, row.case, channel, description) for channel in channels),
        label=label if label and label.is_file() else None,
        covariates=row.covariates,
    )


def told_apart_by(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the cells that tell two scans of one subject and time apart.

    :param columns: names of the columns (:attr:`longflow.task.Task.apart_by`).
    :returns: one cell for each column; empty where the line has none.
    """
    return tuple(row.covariates.get(column, "") for column in columns)


def image_path(folder: Path, case: str, channel: int, description: DatasetDescription) -> Path:
    """Return the path of a channel in nnU-Net's naming: ``{case}_{channel:04d}{file_ending}``."""
    return as_on_disk(path_in(folder, f"{case}_{channel:04d}{description.file_ending}"))


def label_path(folder: Path, case: str, description: DatasetDescription) -> Path:
    """Return the path of a label image in nnU-Net's naming: ``{case}{file_ending}``."""
    return as_on_disk(path_in(folder, f"{case}{description.file_ending}"))


def stem_of(path: Path, ending: str) -> str:
    """Return the name of a file without its ending, in the Unicode form of tables (NFC)."""
    return unicodedata.normalize("NFC", path.name).removesuffix(ending)


def sidecar_path(folder: Path, case: str) -> Path:
    """Return the path of the JSON next to the images of a prediction."""
    return as_on_disk(path_in(folder, f"{case}.json"))


def as_on_disk(path: Path) -> Path:
    """Return the path under which a file exists: letters with accents have two forms in Unicode (NFC, NFD)."""
    if path.name.isascii() or os.path.lexists(path):
        return path
    forms = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((other for other in forms if os.path.lexists(other)), path)


def training_series(raw: Path) -> tuple[DatasetDescription, list[Series]]:
    """Read dataset.json and the training series (``imagesTr``, ``labelsTr``) of a raw dataset.

    :param raw: the dataset's folder.
    :returns: the description, and the series as :func:`series_of_folder`.
    :raises LongflowError: a file is missing or invalid, or there are no scans.
    """
    if not raw.is_dir():
        raise DataError(f"{raw} does not exist. Expected a folder with dataset.json, scans.csv and imagesTr.")
    description = read_description(raw / "dataset.json")
    series = series_of_folder(raw / "imagesTr", description, raw / "labelsTr")
    if not series:
        raise DataError(f"{raw} has no scans: its table has no line below the header. Write one line for each scan.")
    return description, series


def write_scans(scans: list[Scan], path: Path) -> None:
    """Write a ``scans.csv``; covariates become further columns."""
    further = sorted({name for scan in scans for name in scan.covariates})
    rows = ({"case": scan.case, "subject": scan.subject, "time": repr(scan.time), **scan.covariates} for scan in scans)
    write_csv([*REQUIRED_COLUMNS, *further], rows, path, exact=True)


def write_description(description: DatasetDescription, path: Path, **further: Any) -> None:
    """Write a ``dataset.json``."""
    write_json({**description.model_dump(mode="json", exclude_defaults=True), **further}, path)
