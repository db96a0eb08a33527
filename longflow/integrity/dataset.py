"""The integrity check: every problem of a raw dataset that can be found before the first voxel is trained on.

Tables and names are checked here (:mod:`longflow.integrity.tables` has the rules for times); voxels in worker
processes, a subject at a time and one file in memory at a time, each file read once.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from longflow.data.dataset import DatasetDescription, Row, image_path, parse_time, read_description, rows_of_folder
from longflow.errors import ConfigurationError, DataError, LongflowError, first_few
from longflow.integrity.labels import (
    absent_structures,
    description_problems,
    labelled_scans,
    single_scans,
    unused_labels,
)
from longflow.integrity.phases import expected_phases, pairs_of_rows, phase_of, phase_problems
from longflow.integrity.problems import Problem, error, warning
from longflow.integrity.tables import table_problems, time_unit_problems
from longflow.integrity.voxels import FileToCheck, SubjectToCheck, check_subject
from longflow.parallel import Progress, for_each_subject


def verify_dataset(raw: Path, processes: int | None = None, progress: Progress | None = None) -> list[Problem]:
    """All problems of a raw dataset, errors first; an empty list means that it can be used.

    :param raw: the dataset's folder, with dataset.json, scans.csv, imagesTr and perhaps labelsTr, imagesTs, targetsTs.
    :param processes: worker processes; None: all available cores.
    :param progress: called with (subjects done, all subjects, name).
    """
    if not (raw / "imagesTr").is_dir():
        held = sorted(entry.name for entry in raw.iterdir()) if raw.is_dir() else []
        found = f"holds {first_few(held, most=4) or 'nothing'}" if raw.is_dir() else "no such folder"
        return [
            error(
                str(raw),
                "imagesTr",
                found,
                "a folder with dataset.json, scans.csv and imagesTr",
                "See documentation/reference/dataset_format.md, or write one with longflow_import.",
            )
        ]
    description, problems = _check_description(raw)
    parts = [_Part(raw, "Tr")] + ([_Part(raw, "Ts")] if (raw / "imagesTs").is_dir() else [])
    for part in parts:
        problems += part.read_table(description.task if description else "forecast")
    if description is None:
        return _ordered(problems)
    for part in parts:
        if part.readable:  # else every file would be said to have no line
            problems += part.check_names(description)
    phases = None
    if description.task == "translate":
        phases = expected_phases(description, parts[0].rows)
        problems += phase_problems(description, *((part.table, part.rows) for part in parts))
    problems += _leaks(parts)
    times = [(row.subject, time) for row in parts[0].rows if (time := parse_time(row.time)) is not None]
    problems += time_unit_problems(times, description.time_unit, parts[0].table)

    work = {name: subject for part in parts for name, subject in part.subjects(description, phases).items()}
    training = parts[0].subjects(description, phases)
    label_values: set[int] = set()
    for name, (found, values) in for_each_subject(check_subject, work, processes, progress):
        problems += found
        if name in training:
            label_values |= values
    if any(subject.has_labels for subject in training.values()):
        problems += (absent_structures if description.task == "segment" else unused_labels)(description, label_values)
    return _ordered(problems)


#: in the order in which they are shown
SEVERITIES = ("error", "warning", "note")


def _ordered(problems: list[Problem]) -> list[Problem]:
    return sorted(
        dict.fromkeys(problems), key=lambda one: (SEVERITIES.index(one.severity), *map(_natural, (one.file, one.field)))
    )


def _natural(text: str) -> list[str | int]:
    """A key that puts line 2 before line 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _check_description(raw: Path) -> tuple[DatasetDescription | None, list[Problem]]:
    """dataset.json: its problems, one for each key."""
    name = "dataset.json"
    advice = "See documentation/reference/dataset_format.md for the keys."
    try:
        description = read_description(raw / name)
    except DataError as problem:
        return None, [error(name, "file", str(problem), "a JSON file", advice)]
    except ConfigurationError as problem:
        # a label that is neither a number nor a list has two entries; the key is the same
        entries = {".".join(map(str, entry["loc"][:2])) or "file": entry for entry in problem.__cause__.errors()}
        return None, [
            error(
                name,
                key,
                "missing" if entry["type"] == "missing" else repr(entry["input"])[:60],
                "a whole number, or a list of them for a region"
                if key.startswith("labels.")
                else entry["msg"].removeprefix("Value error, ").removeprefix("Input should be "),
                advice,
            )
            for key, entry in entries.items()
        ]
    problems = []
    if description.labels:
        values = sorted(description.label_values)
        if values != list(range(len(values))) or description.labels.get("background", 0) != 0:
            problems.append(
                error(
                    name,
                    "labels",
                    str(values),
                    "0 for background, then 1, 2, ... without a gap",
                    "Renumber the labels.",
                )
            )
        elif description.task == "segment":
            problems += description_problems(description)
    if not description.file_ending.startswith("."):
        problems.append(
            error(name, "file_ending", repr(description.file_ending), "an ending as .nii.gz", "Start it with a point.")
        )
        return None, problems  # no file would be found
    for key in description.model_extra or {}:
        if meant := get_close_matches(key, DatasetDescription.model_fields, n=1, cutoff=0.8):
            advice = "Keys that longflow does not know are ignored; rename it if this one was meant."
            problems.append(warning(name, key, "an unknown key", f"{meant[0]}?", advice))
    for key in description.normalization:
        if key not in description.channel_names:
            problems.append(
                error(
                    name,
                    f"normalization.{key}",
                    f"channel '{key}'",
                    f"one of {', '.join(description.channel_names)}",
                    "Its keys are the numbers of the channels.",
                )
            )
    return description, problems


class _Part:
    """The training scans (imagesTr, labelsTr) or the test scans (imagesTs, targetsTs, labelsTs) of a dataset."""

    def __init__(self, raw: Path, suffix: str):
        self.raw, self.suffix = raw, suffix
        self.images, self.labels, self.targets = (raw / f"{kind}{suffix}" for kind in ("images", "labels", "targets"))
        self.rows: list[Row] = []
        self.readable = False
        self.table = ""

    def shown(self, path: Path) -> str:
        return path.relative_to(self.raw).as_posix()

    def read_table(self, task: str) -> list[Problem]:
        """Read the table; problems of its lines. ``rows`` leaves out lines without a case or with that of another."""
        candidates = [self.images / "scans.csv", self.raw / f"patients{self.suffix}.json"]
        if self.suffix == "Tr":
            candidates.insert(1, self.raw / "scans.csv")
        path = next((candidate for candidate in candidates if candidate.is_file()), candidates[-2])
        self.table = self.shown(path)
        try:
            rows = rows_of_folder(self.images)
        except LongflowError as problem:
            return [
                error(
                    self.table,
                    "file",
                    str(problem),
                    "a table with the columns case, subject, time",
                    "Mend or write the table, a line for each scan, as in documentation/reference/dataset_format.md.",
                )
            ]
        self.readable = True
        problems, self.rows = table_problems(path, self.table, rows, task)
        if not rows:
            problems.append(
                error(self.table, "file", "no line", "a line for each scan", "Write one line for each scan.")
            )
        return problems

    def check_names(self, description: DatasetDescription) -> list[Problem]:
        """Rows without files, files without rows, channels, labels, and subjects with too few scans."""
        problems = self._check_image_names(description) + self._check_label_names(description)
        if description.task == "translate":
            return problems  # what it needs is a pair of phases, not a series
        count: dict[str, int] = defaultdict(int)
        for row in self.rows:
            count[row.subject] += 1
        if description.task == "segment" and self.suffix == "Tr":
            return problems + single_scans(count, self.table)
        for subject, scans in sorted(count.items()):
            if scans < 2 and self.suffix == "Tr":
                problems.append(
                    warning(
                        self.table,
                        f"subject {subject}",
                        "1 scan",
                        "at least 2",
                        "Such subjects are not used for forecasting; other tasks can use them.",
                    )
                )
        if self.suffix == "Ts":
            problems += self._check_wanted(description)
        return problems

    def _check_image_names(self, description: DatasetDescription) -> list[Problem]:
        found: dict[str, set[int]] = defaultdict(set)
        problems = []
        known = {row.case for row in self.rows}
        sidecars = {f"{case}.json" for case in known}
        name_of_image = re.compile(rf"^(.+)_(\d{{4}}){re.escape(description.file_ending)}$")
        for path in _files(self.images):
            if match := name_of_image.match(path.name):
                found[match.group(1)].add(int(match.group(2)))
            elif path.name not in sidecars:
                problems.append(
                    warning(
                        self.shown(path),
                        "name",
                        path.name,
                        f"case_0000{description.file_ending}",
                        "It is not read. Rename it, or take it away.",
                    )
                )
        channels = set(range(len(description.channels)))
        for row in self.rows:
            present = found.get(row.case, set())
            if not present and (self.suffix == "Tr" or description.task == "translate"):
                problems.append(
                    error(
                        self.table,
                        f"line {row.line}: case",
                        row.case,
                        f"a file {self.images.name}/{row.case}_0000{description.file_ending}",
                        "Add the file, correct the name in the table, or delete the line.",
                    )
                )
            elif present and present != channels:
                problems.append(
                    error(
                        f"{self.images.name}/{row.case}_*{description.file_ending}",
                        "channels",
                        _numbers(present),
                        _numbers(channels),
                        "Every scan needs one file for each of channel_names in dataset.json.",
                    )
                )
        for case in sorted(set(found) - known):
            problems.append(
                warning(
                    f"{self.images.name}/{case}_*{description.file_ending}",
                    "case",
                    "a file without a line",
                    f"a line for {case} in {self.table}",
                    "It is not used. Add a line with its subject and time, or take the file away.",
                )
            )
        return problems

    def _check_label_names(self, description: DatasetDescription) -> list[Problem]:
        problems = []
        known = {row.case for row in self.rows}
        labelled = {path.name.removesuffix(description.file_ending): path for path in _files(self.labels)}
        for case, path in labelled.items():
            if case not in known:
                problems.append(
                    warning(
                        self.shown(path),
                        "case",
                        "a label without a line",
                        f"a line for {case} in {self.table}",
                        "It is not used. A label image is named {case}" + description.file_ending,
                    )
                )
        if description.task == "segment":
            cases = {row.case: row.case in labelled for row in self.rows}
            subjects = {row.case: row.subject for row in self.rows}
            return problems + (labelled_scans(cases, subjects, self.labels.name) if self.suffix == "Tr" else [])
        without = [row.case for row in self.rows if row.case not in labelled]
        if self.suffix == "Tr" and description.labels and without:
            advice = "Forecasting and translation need none; segmentation learns from the scans that have one."
            found = f"{len(without)} of {len(self.rows)} scans have none ({first_few(without, most=2)})"
            problems.append(warning(self.labels.name, "labels", found, "a label image for each scan", advice))
        return problems

    def _check_wanted(self, description: DatasetDescription) -> list[Problem]:
        """Test subjects: a row without images is a wanted target and needs an earlier scan; targets need a row."""
        problems = []
        first_scan: dict[str, float] = {}
        wanted = []
        for row in self.rows:
            time = parse_time(row.time)
            if time is None:
                continue
            if image_path(self.images, row.case, 0, description).is_file():
                first_scan[row.subject] = min(time, first_scan.get(row.subject, time))
            else:
                wanted.append(row)
        for row in wanted:
            if not first_scan.get(row.subject, float("inf")) < parse_time(row.time):
                problems.append(
                    error(
                        self.table,
                        f"line {row.line}: time",
                        f"a wanted target at {row.time} without an earlier scan",
                        f"a scan of subject {row.subject} before it",
                        "A forecast starts from at least one earlier scan.",
                    )
                )
        rows = {row.case for row in wanted}
        for path in _files(self.targets):
            if re.sub(r"_\d{4}$", "", path.name.removesuffix(description.file_ending)) not in rows:
                problems.append(
                    warning(
                        self.shown(path),
                        "case",
                        "a target that is not wanted",
                        f"a line for it in {self.table} and no image in imagesTs",
                        "It is not used.",
                    )
                )
        return problems

    def subjects(
        self, description: DatasetDescription, phases: Sequence[str] | None = None
    ) -> dict[str, SubjectToCheck]:
        """What the workers read: each subject's existing files, in order of time.

        :param phases: the two of a dataset to translate; scans in others are looked at by themselves.
        """
        result: dict[str, SubjectToCheck] = {}
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(self.rows, key=lambda row: (row.subject, parse_time(row.time) or 0)):
            folder = self.images
            if self.suffix == "Ts" and not image_path(folder, row.case, 0, description).is_file():
                folder = self.targets
            paths = [image_path(folder, row.case, channel, description) for channel in range(len(description.channels))]
            label = self.labels / f"{row.case}{description.file_ending}"
            scan = [
                FileToCheck(str(path), self.shown(path), "image", is_ct)
                for path, is_ct in zip(paths, description.is_ct, strict=True)
                if path.is_file()
            ]
            if label.is_file():
                scan.append(FileToCheck(str(label), self.shown(label), "label"))
            name = row.subject if self.suffix == "Tr" else f"{row.subject} (test)"
            if phases is not None and phase_of(row) not in phases:
                name += f", {phase_of(row) or 'without a phase'}"
            subject = SubjectToCheck(row.subject, [], description.label_values, description.task)
            result.setdefault(name, subject).scans.append(scan)
            rows[name].append(row)
        if phases is not None:
            for name, subject in result.items():
                subject.pairs = pairs_of_rows(rows[name], phases)
        return result


def _files(folder: Path) -> list[Path]:
    """The files that are meant to be read: no tables, nothing hidden (unfinished files, .DS_Store)."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_file() and path.name[0] != "." and path.name != "scans.csv"
    )


def _numbers(values: set[int]) -> str:
    return ", ".join(f"{value:04d}" for value in sorted(values))


def _leaks(parts: list[_Part]) -> list[Problem]:
    """Subjects that are trained on and tested on."""
    if len(parts) < 2:
        return []
    shared = sorted({row.subject for row in parts[0].rows} & {row.subject for row in parts[1].rows})
    return [
        warning(
            parts[1].table,
            f"subject {subject}",
            "also in imagesTr",
            "test subjects that are not trained on",
            "Results on this subject say nothing about new ones. Take it out of one of the tables.",
        )
        for subject in shared
    ]
