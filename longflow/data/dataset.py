"""A raw dataset: dataset.json, scans.csv, image folders; and the series of scans that they describe."""

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from longflow.data.hounsfield import is_ct
from longflow.errors import DataError
from longflow.files import read_json, write_csv, write_json
from longflow.plans import NormalForm, TaskName, TimeUnit, validated
from longflow.task import DEFAULT_TASK, get_task

REQUIRED_COLUMNS = ("case", "subject", "time")

#: the column that says in which contrast phase a scan was acquired, for the task "translate"
PHASE = "phase"

#: ``{name}.json`` in a folder of forecasts is not a sidecar
RESERVED_NAMES = ("dataset", "metrics")

#: what spreadsheets write instead of commas, mostly where the decimal sign is a comma
SEPARATORS = {";": "semicolons", "\t": "tabs"}


class DatasetDescription(BaseModel):
    """``dataset.json``: nnU-Net's keys, plus ``time_unit``, ``task`` and ``normalization``.

    Further keys (``name``, ``licence``, ``reference`` ...) are kept and ignored, as nnU-Net does.
    """

    model_config = ConfigDict(extra="allow")

    channel_names: dict[str, str]
    file_ending: str
    time_unit: TimeUnit
    labels: dict[str, int | list[int]] = {}
    regions_class_order: list[int] = Field(default=[], description="nnU-Net's; needed where labels are regions")
    task: TaskName = DEFAULT_TASK
    normalization: dict[str, NormalForm] = Field(default={}, description="normal form by channel index, to override")
    phases: list[str] = Field(default=[], description="task 'translate': the two phases, the one at t = 0 first")

    @field_validator("channel_names")
    @classmethod
    def _channels_count_from_zero(cls, value: dict[str, str]) -> dict[str, str]:
        if sorted(value) != sorted(str(index) for index in range(len(value))) or not value:
            raise ValueError('channel_names needs the keys "0", "1", ... without a gap')
        return value

    @field_validator("file_ending")
    @classmethod
    def _stays_in_the_folder(cls, value: str) -> str:
        if "/" in value or "\\" in value:
            raise ValueError("file_ending is the end of a file's name, as .nii.gz, without slashes")
        return value

    @field_validator("phases")
    @classmethod
    def _none_or_two_phases(cls, value: list[str]) -> list[str]:
        if value and (len(value) != 2 or value[0] == value[1] or not all(is_name(phase) for phase in value)):
            raise ValueError('phases needs two different names, as ["native", "arterial"], the one at t = 0 first')
        return value

    @property
    def channels(self) -> list[str]:
        """Channel names in order."""
        return [self.channel_names[str(index)] for index in range(len(self.channel_names))]

    @property
    def is_ct(self) -> list[bool]:
        """For each channel whether its units are Hounsfield's, by its name."""
        return [is_ct(name) for name in self.channels]

    @property
    def label_values(self) -> set[int]:
        """Every integer that a label image may hold (regions expanded), background 0 included."""
        values = {0}
        for value in self.labels.values():
            values.update(value if isinstance(value, list) else [value])
        return values


@dataclass(frozen=True)
class Scan:
    """One acquisition of one subject at one time.

    :param case: file prefix; channel ``c`` lies in ``{case}_{c:04d}{file_ending}``.
    :param time: in the dataset's time unit.
    :param images: one path per channel, in order of channels; the files need not exist (a wanted target has none).
    :param label: path of the label image, or None.
    """

    case: str
    subject: str
    time: float
    images: tuple[Path, ...]
    label: Path | None = None
    covariates: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def phase(self) -> str:
        """The contrast phase that scans.csv gives; empty where it gives none."""
        return self.covariates.get(PHASE, "")

    @property
    def exists(self) -> bool:
        """Whether the file of every channel exists."""
        return all(path.is_file() for path in self.images)


@dataclass(frozen=True)
class Series:
    """A subject's scans in order of time."""

    subject: str
    scans: tuple[Scan, ...]

    @property
    def times(self) -> list[float]:
        """Time of each scan, ascending."""
        return [scan.time for scan in self.scans]

    def with_images(self) -> "Series":
        """The scans whose files exist; a wanted target has none."""
        return Series(self.subject, tuple(scan for scan in self.scans if scan.exists))


@dataclass(frozen=True)
class Row:
    """A line of scans.csv as it stands there, before anything is checked.

    :param surplus: cells beyond those of the first line.
    """

    line: int
    case: str
    subject: str
    time: str
    covariates: dict[str, str]
    surplus: tuple[str, ...] = ()


def read_description(path: Path) -> DatasetDescription:
    """Read and validate a ``dataset.json``; the times of a LongiSeg dataset are positions, counted in visits."""
    content = read_json(path)
    if isinstance(content, dict) and "time_unit" not in content and (path.parent / "patientsTr.json").is_file():
        content["time_unit"] = "visits"
    return validated(DatasetDescription, content, path)


def read_rows(path: Path) -> list[Row]:
    """The lines of ``scans.csv``, unchecked but for the header.

    :raises DataError: the file is missing, empty, not text, or lacks one of the columns case, subject, time.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in (reader.fieldnames or [])]
            reader.fieldnames = columns
            missing = [name for name in REQUIRED_COLUMNS if name not in columns]
            if missing:
                separator = next((name for mark, name in SEPARATORS.items() if mark in "".join(columns)), None)
                raise DataError(
                    f"{path} has no column {', '.join(missing)}. Found in its first line: "
                    f"{', '.join(columns) or 'nothing'}. "
                    "Expected: case,subject,time and any further columns, separated by commas."
                    + (f" Its cells are separated by {separator}: save it again with commas." if separator else "")
                )
            return [
                Row(
                    line=number,
                    case=(record["case"] or "").strip(),
                    subject=(record["subject"] or "").strip(),
                    time=(record["time"] or "").strip(),
                    covariates={
                        key: (value or "").strip()
                        for key, value in record.items()
                        if key is not None and key not in REQUIRED_COLUMNS and isinstance(value, str | None)
                    },
                    surplus=tuple(record.get(None) or ()),
                )
                for number, record in enumerate(reader, start=2)
            ]
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist. It is the table that makes a dataset longitudinal: one line per scan with the "
            "columns case,subject,time."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file in UTF-8. In the spreadsheet program, save it as 'CSV UTF-8'."
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} is not a table that can be read ({error}). Save it again as 'CSV UTF-8'.") from error


def is_name(text: str) -> bool:
    """Whether a case or subject can be part of a file's name.

    Nothing that leads to another folder or hides, and not a name that a folder of forecasts uses itself.
    """
    safe = bool(text) and text[0] != "." and not any(letter in "/\\" or ord(letter) < 32 for letter in text)
    return safe and text not in RESERVED_NAMES


def parse_time(text: str) -> float | None:
    """A finite number, or None where the text is not one (a date, an empty cell, nan)."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def rows_of_folder(images: Path) -> list[Row]:
    """The table of an image folder: ``scans.csv`` inside it or beside it, or LongiSeg's ``patients*.json``.

    Beside it, ``imagesTr`` is described by ``scans.csv`` or ``patientsTr.json`` (the position is the time).
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
        raise DataError(f"{path} should map each patient to the list of its cases in order of time.")
    rows, line = [], 1
    for subject, cases in patients.items():
        for position, case in enumerate(cases):
            line += 1
            rows.append(Row(line, str(case), str(subject), str(position), {}))
    return rows


def series_of_folder(images: Path, description: DatasetDescription, labels: Path | None = None) -> list[Series]:
    """The series of an image folder, sorted by subject; files are not opened.

    :param labels: folder of label images, where there is one.
    :raises DataError: a time is not a number, a cell is empty or one too many, a case or subject is not a name, or two
        rows share a case or a (subject, time).
    """
    scans: dict[str, list[Scan]] = {}
    cases: dict[str, int] = {}
    moments: dict[tuple[str, float, tuple[str, ...]], str] = {}
    for row in rows_of_folder(images):
        time = parse_time(row.time)
        if not row.case or not row.subject:
            raise DataError(f"Line {row.line} of the table of {images} has an empty case or subject.")
        if strange := [name for name in (row.case, row.subject) if not is_name(name)]:
            raise DataError(
                f"'{strange[0]}' in line {row.line} of the table of {images} cannot be part of a file's name. Cases "
                "and subjects are names without slashes that do not begin with a point."
            )
        if any(row.surplus):
            raise DataError(
                f"Line {row.line} of the table of {images} has more cells than the first line: ..."
                f"{row.time},{','.join(row.surplus)}. Write decimals with a point, and put text that holds a comma in "
                "quotes."
            )
        if time is None:
            raise DataError(
                f"The time of case {row.case} (line {row.line} of the table of {images}) is '{row.time}', not a "
                f"number. Expected: {description.time_unit} since any fixed day, as a number; "
                "longflow does not read dates."
            )
        if row.case in cases:
            raise DataError(
                f"Case {row.case} stands in lines {cases[row.case]} and {row.line} of the table of {images}."
            )
        further = told_apart_by(row, description.task)
        moment = row.subject, time, further
        if moment in moments:
            raise DataError(
                f"Subject {row.subject} has two scans at time {time:g}{_in_words(further, description.task)}: "
                f"{moments[moment]} and {row.case}. Give them different times, or keep one."
            )
        cases[row.case] = row.line
        moments[moment] = row.case
        label = labels / f"{row.case}{description.file_ending}" if labels else None
        scans.setdefault(row.subject, []).append(
            Scan(
                case=row.case,
                subject=row.subject,
                time=time,
                images=tuple(
                    image_path(images, row.case, channel, description) for channel in range(len(description.channels))
                ),
                label=label if label and label.is_file() else None,
                covariates=row.covariates,
            )
        )
    return [
        Series(subject, tuple(sorted(scans[subject], key=lambda scan: (scan.time, scan.phase))))
        for subject in sorted(scans)
    ]


def told_apart_by(row: Row, task: str) -> tuple[str, ...]:
    """Return the further cells that tell two scans of one subject and time apart: the phase, where that counts."""
    return tuple(row.covariates.get(column, "") for column in get_task(task).apart_by)


def _in_words(further: tuple[str, ...], task: str) -> str:
    return "".join(
        f" in {column} {cell}" for column, cell in zip(get_task(task).apart_by, further, strict=True) if cell
    )


def image_path(folder: Path, case: str, channel: int, description: DatasetDescription) -> Path:
    """``{case}_{channel:04d}{file_ending}``, nnU-Net's naming."""
    return folder / f"{case}_{channel:04d}{description.file_ending}"


def training_series(raw: Path) -> tuple[DatasetDescription, list[Series]]:
    """The description and the training series (``imagesTr``, ``labelsTr``) of a raw dataset folder."""
    if not raw.is_dir():
        raise DataError(f"{raw} does not exist. A raw dataset is a folder with dataset.json, scans.csv and imagesTr.")
    description = read_description(raw / "dataset.json")
    series = series_of_folder(raw / "imagesTr", description, raw / "labelsTr")
    if not series:
        raise DataError(f"{raw} has no scans: its table has no line below the header.")
    return description, series


def write_scans(scans: list[Scan], path: Path) -> None:
    """Write a ``scans.csv``; covariates become further columns."""
    further = sorted({name for scan in scans for name in scan.covariates})
    rows = ({"case": scan.case, "subject": scan.subject, "time": repr(scan.time), **scan.covariates} for scan in scans)
    write_csv([*REQUIRED_COLUMNS, *further], rows, path)


def write_description(description: DatasetDescription, path: Path, **further: Any) -> None:
    """Write a ``dataset.json``."""
    write_json({**description.model_dump(mode="json", exclude_defaults=True), **further}, path)
