"""The integrity check: every problem of a raw dataset that can be found before the first training step.

Tables and names are checked here (:mod:`longflow.integrity.tables` has the rules for times). Voxels are checked in
worker processes: one subject at a time, one file in memory at a time, each file read once.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from longflow.data.dataset import (
    DatasetDescription,
    Row,
    image_path,
    label_path,
    normal_name,
    parse_time,
    read_description,
    rows_of_folder,
    stem_of,
)
from longflow.errors import ConfigurationError, DataError, LongflowError, first_few
from longflow.integrity.conditions import condition_problems
from longflow.integrity.labels import absent_structures, description_problems, labelled_scans, unused_labels
from longflow.integrity.names import Table, compare_names
from longflow.integrity.phases import expected_phases, pairs_of_rows, phase_of, phase_problems
from longflow.integrity.problems import DATASET_JSON, Problem, error, warning
from longflow.integrity.tables import column_problems, table_problems
from longflow.integrity.voxels import FileToCheck, SubjectToCheck, check_subject
from longflow.parallel import Progress, for_each_subject
from longflow.task import DEFAULT_TASK, Task, get_task

FORMAT = "documentation/reference/dataset_format.md"


def verify_dataset(raw: Path, processes: int | None = None, progress: Progress | None = None) -> list[Problem]:
    """Find all problems of a raw dataset.

    :param raw: the dataset's folder, with dataset.json, scans.csv, imagesTr and perhaps labelsTr, imagesTs, targetsTs.
    :param processes: number of worker processes; None: all available cores.
    :param progress: called with (subjects done, all subjects, name).
    :returns: errors first; empty where the dataset can be used.
    """
    if not (raw / "imagesTr").is_dir():
        return [_no_dataset(raw)]
    description, problems = _check_description(raw)
    task = get_task(description.task if description else DEFAULT_TASK)
    parts = [Part(raw, "Tr")] + ([Part(raw, "Ts")] if (raw / "imagesTs").is_dir() else [])
    for part in parts:
        problems += part.read_table(task)
    if description is None:
        return in_order(problems)
    for part in parts:
        if part.readable:  # else every file would be reported as a file without a line
            problems += part.check_names(description, task)
    phases = None
    if task.uses_phases:
        phases = expected_phases(description, parts[0].rows)
        problems += phase_problems(description, *((part.table, part.rows) for part in parts))
    for part in parts:
        problems += column_problems(part.table, part.rows, description)
        problems += condition_problems(description, part.table, part.rows, part.is_training)
    problems += _leaks(parts) + task.test_problems(raw, description)

    work = {name: subject for part in parts for name, subject in part.subjects(description, phases).items()}
    training = parts[0].subjects(description, phases)
    label_values: set[int] = set()
    for name, (found, values) in for_each_subject(check_subject, work, processes, progress):
        problems += found
        if name in training:
            label_values |= values
    if any(subject.has_labels for subject in training.values()):
        problems += (absent_structures if task.uses_labels else unused_labels)(description, label_values)
    return in_order(problems)


def _no_dataset(raw: Path) -> Problem:
    held = sorted(entry.name for entry in raw.iterdir()) if raw.is_dir() else []
    found = f"holds {first_few(held, most=4) or 'nothing'}" if raw.is_dir() else "no such folder"
    expected = "a folder with dataset.json, scans.csv and imagesTr"
    return error(str(raw), "imagesTr", found, expected, f"See {FORMAT}, or write a dataset with longflow_import.")


#: in the order in which they are shown
SEVERITIES = ("error", "warning", "note")


def in_order(problems: list[Problem]) -> list[Problem]:
    """Return each problem once: errors first, then by file and field."""
    return sorted(
        dict.fromkeys(problems), key=lambda one: (SEVERITIES.index(one.severity), *map(_natural, (one.file, one.field)))
    )


def _natural(text: str) -> list[str | int]:
    """Return a key that sorts line 2 before line 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _check_description(raw: Path) -> tuple[DatasetDescription | None, list[Problem]]:
    """Read dataset.json and find its problems, one for each key.

    :returns: the description, None where files cannot be found with it; the problems.
    """
    try:
        description = read_description(raw / DATASET_JSON)
    except DataError as problem:
        return None, [error(DATASET_JSON, "file", str(problem), "a JSON file", f"See {FORMAT} for the keys.")]
    except ConfigurationError as problem:
        if isinstance(problem.__cause__, ValidationError):
            return None, _invalid_keys(problem.__cause__)
        return None, [error(DATASET_JSON, "file", str(problem), "the keys of today", f"See {FORMAT} for the keys.")]
    problems = _label_problems(description)
    if not description.file_ending.startswith("."):
        found = repr(description.file_ending)
        problems.append(error(DATASET_JSON, "file_ending", found, "an ending as .nii.gz", "Start it with a point."))
        return None, problems  # no file would be found
    for key in (key for key in description.model_extra or {} if len(key) < 40):
        if meant := get_close_matches(key, DatasetDescription.model_fields, n=1, cutoff=0.8):
            advice = f"Keys that longflow does not know are ignored. Rename the key if you meant '{meant[0]}'."
            problems.append(warning(DATASET_JSON, key, "an unknown key", f"{meant[0]}?", advice))
    expected = f"one of {', '.join(description.channel_names)}"
    problems += [
        error(
            DATASET_JSON,
            f"normalization.{key}",
            f"channel '{key}'",
            expected,
            "Its keys are the numbers of the channels.",
        )
        for key in description.normalization
        if key not in description.channel_names
    ]
    return description, problems


def _invalid_keys(invalid: ValidationError) -> list[Problem]:
    """Report the keys that pydantic refuses."""
    # a label that is neither a number nor a list has two entries; the key is the same
    entries = {".".join(map(str, entry["loc"][:2])) or "file": entry for entry in invalid.errors()}
    return [
        error(
            DATASET_JSON,
            key,
            "missing" if entry["type"] == "missing" else repr(entry["input"])[:60],
            "a whole number, or a list of them for a region"
            if key.startswith("labels.")
            else entry["msg"].removeprefix("Value error, ").removeprefix("Input should be "),
            f"See {FORMAT} for the keys.",
        )
        for key, entry in entries.items()
    ]


def _label_problems(description: DatasetDescription) -> list[Problem]:
    if not description.labels:
        return []
    values = sorted(description.label_values)
    if values != list(range(len(values))) or description.labels.get("background", 0) != 0:
        expected = "0 for background, then 1, 2, ... without a gap"
        return [error(DATASET_JSON, "labels", str(values), expected, "Renumber the labels.")]
    return description_problems(description) if get_task(description.task).uses_labels else []


class Part:
    """The training scans (imagesTr, labelsTr) or the test scans (imagesTs, targetsTs, labelsTs) of a dataset.

    :param raw: the dataset's folder.
    :param suffix: "Tr" or "Ts"; None: ``raw`` itself is a folder of images, the input of a prediction.
    :ivar rows: lines of the table, without those that have no case or the case of an earlier line.
    :ivar readable: whether the table could be read. :ivar table: its path in messages.
    """

    def __init__(self, raw: Path, suffix: str | None):
        self.raw, self.suffix = raw, suffix
        self.images, self.labels, self.targets = (raw / f"{kind}{suffix}" for kind in ("images", "labels", "targets"))
        if self.is_input:
            self.images = raw
        self.rows: list[Row] = []
        self.readable = False
        self.table = ""

    @property
    def is_training(self) -> bool:
        return self.suffix == "Tr"

    @property
    def is_input(self) -> bool:
        return self.suffix is None

    def shown(self, path: Path) -> str:
        """Return a path as messages show it, relative to the dataset's folder."""
        return path.relative_to(self.raw).as_posix() if path.is_relative_to(self.raw) else str(path)

    def read_table(self, task: Task) -> list[Problem]:
        """Read the table into ``rows``; return the problems of its lines."""
        beside = self.images.parent
        candidates = [self.images / "scans.csv", beside / f"patients{self.images.name.removeprefix('images')}.json"]
        if self.images.name == "imagesTr":
            candidates.insert(1, beside / "scans.csv")
        path = next((candidate for candidate in candidates if candidate.is_file()), candidates[-2])
        self.table = self.shown(path)
        try:
            rows = rows_of_folder(self.images)
        except LongflowError as problem:
            expected = "a table with the columns case, subject, time"
            advice = f"Correct or write the table, one line for each scan, as in {FORMAT}."
            return [error(self.table, "file", str(problem), expected, advice)]
        self.readable = True
        problems, self.rows = table_problems(self.table, rows, task.apart_by)
        if not rows:
            advice = "Write one line for each scan."
            problems.append(error(self.table, "file", "no line", "a line for each scan", advice))
        return problems

    def check_names(self, description: DatasetDescription, task: Task) -> list[Problem]:
        """Find rows without files, files without rows, missing channels and labels, subjects with too few scans."""
        problems = self.check_image_names(description, self.is_training or task.requires_images)
        problems += self._check_label_names(description, task)
        if self.is_training:
            return problems + task.scan_count_problems(Counter(row.subject for row in self.rows), self.table)
        return problems if task.requires_images else problems + self._check_requested(description)

    def check_image_names(self, description: DatasetDescription, rows_need_images: bool) -> list[Problem]:
        """Compare the rows with the files of the image folder.

        :param rows_need_images: whether a row without an image is an error; elsewhere it requests a prediction.
        """
        table = Table(self.table, self.rows, "error" if self.is_input else "warning")
        names = compare_names(self.images, table, description)
        problems = [replace(problem, file=self.shown(self.images / problem.file)) for problem in names.problems]
        channels = set(range(len(description.channels)))
        for row in self.rows:
            present = names.channels.get(row.case, set())
            if row.case in names.resembled:
                continue  # the entry that resembles its file is reported
            if not present and rows_need_images:
                expected = f"a file {self.shown(image_path(self.images, row.case, 0, description))}"
                advice = "Add the file, correct the name in the table, or delete the line."
                problems.append(error(self.table, f"line {row.line}: case", row.case, expected, advice))
            elif present and present != channels:
                every_channel = f"{row.case}_*{description.file_ending}"
                file = self.shown(self.images / every_channel)
                known = ", ".join(description.channels)
                advice = f"Every scan needs one file for each of channel_names in dataset.json: {known}."
                problems.append(error(file, "channels", _numbers(present), _numbers(channels), advice))
        return problems

    def _check_label_names(self, description: DatasetDescription, task: Task) -> list[Problem]:
        ending, known = description.file_ending, {row.case for row in self.rows}
        labelled = {stem_of(path, ending): path for path in _files(self.labels)}
        advice = "The file is not used. A label image is named {case}" + ending + "."
        problems = [
            warning(self.shown(path), "case", "a label without a line", f"a line for {case} in {self.table}", advice)
            for case, path in labelled.items()
            if case not in known
        ]
        if not self.is_training:
            return problems
        if task.uses_labels:
            cases = {row.case: row.case in labelled for row in self.rows}
            subjects = {row.case: row.subject for row in self.rows}
            return problems + labelled_scans(cases, subjects, self.labels.name)
        without = [row.case for row in self.rows if row.case not in labelled]
        if description.labels and without:
            advice = "This task learns without labels, so you can keep the dataset as it is."
            found = f"{len(without)} of {len(self.rows)} scans have none ({first_few(without, most=2)})"
            problems.append(warning(self.labels.name, "labels", found, "a label image for each scan", advice))
        return problems

    def _check_requested(self, description: DatasetDescription) -> list[Problem]:
        """Check requested scans: rows of test subjects without an image. Each needs an earlier scan; targets a row."""
        problems = []
        first_scan: dict[str, float] = {}
        requested: list[tuple[Row, float]] = []
        for row in self.rows:
            time = parse_time(row.time)
            if time is None:
                continue
            if image_path(self.images, row.case, 0, description).is_file():
                first_scan[row.subject] = min(time, first_scan.get(row.subject, time))
            else:
                requested.append((row, time))
        for row, time in requested:
            if not first_scan.get(row.subject, float("inf")) < time:
                found = f"a requested scan at {row.time} without an earlier scan"
                expected = f"a scan of subject {row.subject} before it"
                advice = "A forecast starts from at least one earlier scan."
                problems.append(error(self.table, f"line {row.line}: time", found, expected, advice))
        cases = {row.case for row, _ in requested}
        expected = f"a line for it in {self.table} and no image in imagesTs"
        return problems + [
            warning(self.shown(path), "case", "a target that is not requested", expected, "The file is not used.")
            for path in _files(self.targets)
            if re.sub(r"_[0-9]{4}\Z", "", stem_of(path, description.file_ending)) not in cases
        ]

    def subjects(
        self, description: DatasetDescription, phases: Sequence[str] | None = None
    ) -> dict[str, SubjectToCheck]:
        """List the existing files of each subject in order of time, for the workers.

        :param phases: the two phases of a dataset with pairs; None without. Scans in other phases form a subject of
            their own.
        :returns: the files by the subject's name in messages.
        """
        result: dict[str, SubjectToCheck] = {}
        rows: dict[str, list[Row]] = defaultdict(list)
        units_required = get_task(description.task).requires_units
        for row in sorted(self.rows, key=lambda row: (row.subject, parse_time(row.time) or 0)):
            name = row.subject if self.is_training else f"{row.subject} (test)"
            if phases is not None and phase_of(row) not in phases:
                name += f", {phase_of(row) or 'without a phase'}"
            subject = SubjectToCheck(row.subject, [], description.label_values, units_required)
            result.setdefault(name, subject).scans.append(self._files_of_scan(row, description))
            rows[name].append(row)
        if phases is not None:
            for name, subject in result.items():
                subject.pairs = pairs_of_rows(rows[name], phases)
        return result

    def files_of_rows(self, description: DatasetDescription) -> list[Path]:
        """Return the image files that the rows expect, in their order."""
        channels = range(len(description.channels))
        return [image_path(self.images, row.case, channel, description) for row in self.rows for channel in channels]

    def _files_of_scan(self, row: Row, description: DatasetDescription) -> list[FileToCheck]:
        folder = self.images
        if not self.is_training and not image_path(folder, row.case, 0, description).is_file():
            folder = self.targets
        paths = [image_path(folder, row.case, channel, description) for channel in range(len(description.channels))]
        files = [
            FileToCheck(str(path), self.shown(path), "image", is_ct)
            for path, is_ct in zip(paths, description.is_ct_of(phase_of(row)), strict=True)
            if path.is_file()
        ]
        label = label_path(self.labels, row.case, description)
        return files + ([FileToCheck(str(label), self.shown(label), "label")] if label.is_file() else [])


def _files(folder: Path) -> list[Path]:
    """List the files that are meant to be read: no tables, nothing hidden (unfinished files, .DS_Store)."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_file() and path.name[0] != "." and path.name != "scans.csv"
    )


def _numbers(values: set[int]) -> str:
    return ", ".join(f"{value:04d}" for value in sorted(values))


def _leaks(parts: list[Part]) -> list[Problem]:
    """Find the subjects that are both trained on and tested on."""
    if len(parts) < 2:
        return []
    trained = {normal_name(row.subject): row.subject for row in parts[0].rows}
    tested = sorted({row.subject for row in parts[1].rows if normal_name(row.subject) in trained})
    return [
        warning(
            parts[1].table,
            f"subject {subject}",
            "also in imagesTr" + ("" if (name := trained[normal_name(subject)]) == subject else f", as {name!r}"),
            "test subjects that are not trained on",
            "Results of this subject say nothing about new patients. Remove it from one of the tables.",
        )
        for subject in tested
    ]
