"""The names in an image folder compared with the rows of its table, for training data and for prediction input.

A row of prediction input without an image requests a prediction. A scan whose file is only not found must never become
such a request. An entry that resembles a missing file is therefore an error: other capital letters, another ending or
Unicode form, a link to nothing, a folder.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from longflow.data.dataset import DatasetDescription, Row, image_path
from longflow.integrity.problems import Problem, error

#: endings of images, of any tool: a file with one of them in an image folder is meant to be a scan
IMAGE_ENDING = re.compile(
    r"\.(nii|hdr|img|mha|mhd|nrrd|nhdr|mgh|mgz|gipl|mnc|dcm|ima|tiff?|vtk|npy|npz|raw|zraw)(\.(gz|bz2|xz|zst|zip))?$",
    re.IGNORECASE,
)
#: endings of files that stand next to images and are none
OTHER_ENDING = re.compile(
    r"\.(json|csv|tsv|txt|md|pdf|png|jpe?g|svg|html?|log|xlsx?|ods|docx?|xml|ya?ml|bvals?|bvecs?)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Table:
    """The table of an image folder.

    :param name: in messages.
    :param rows: with usable cases.
    :param unused: severity of an image that no row names.
    """

    name: str
    rows: Sequence[Row]
    unused: Literal["error", "warning"]


@dataclass(frozen=True)
class Names:
    """What an image folder holds of the rows of its table.

    :param channels: of each case, those that have a file, surplus ones included.
    :param resembled: cases that lack a file which an entry resembles.
    :param problems: of the entries that belong to no row, or only nearly; their files are names of entries.
    """

    channels: dict[str, set[int]]
    resembled: set[str]
    problems: list[Problem]


def compare_names(folder: Path, table: Table, description: DatasetDescription) -> Names:
    """Find the files of the rows, and the entries that no row names."""
    lines = {row.case: row.line for row in table.rows}
    count = len(description.channels)
    files = {
        (case, channel): image_path(folder, case, channel, description) for case in lines for channel in range(count)
    }
    alike = {_folded(f"{case}_{channel:04d}"): (case, channel) for case, channel in files}
    if count == 1:  # the number of the channel may have been forgotten
        alike = {_folded(case): (case, 0) for case in lines} | alike
    names = Names(defaultdict(set), set(), [])
    for (case, channel), path in files.items():
        if path.is_file():
            names.channels[case].add(channel)
    used = {files[case, channel].name for case, found in names.channels.items() for channel in found}
    regular = re.compile(rf"(.+)_(\d{{4}}){re.escape(description.file_ending)}")
    for entry in _entries(folder):
        match = regular.fullmatch(unicodedata.normalize("NFC", entry.name))
        case, channel = next((alike[key] for key in _keys(entry.name) if key in alike), (None, None))
        if entry.name in used:
            continue
        if match and match[1] in lines and int(match[2]) >= count:
            names.channels[match[1]].add(int(match[2]))
        elif case and channel not in names.channels.get(case, ()):
            names.resembled.add(case)
            names.problems.append(_resembling(entry, files[case, channel], f"line {lines[case]} of {table.name}"))
        elif problem := _unused(entry, match and match[1], files.get((case, channel)), table, description.file_ending):
            names.problems.append(problem)
    return names


def _entries(folder: Path) -> Iterator[Path]:
    """List what can be meant as a scan: no tables, nothing hidden (unfinished files, .DS_Store), no other folders."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (
            entry.name[0] != "."
            and entry.name != "scans.csv"
            and (not entry.is_dir() or IMAGE_ENDING.search(entry.name))
        ):
            yield entry


def _folded(name: str) -> str:
    """Return what remains of a name without capital letters, Unicode form, spaces and hyphens."""
    letters = (
        letter for letter in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(letter) != "Cf"
    )
    return re.sub(r"[\s_-]+", "_", "".join(letters))


def _keys(name: str) -> Iterator[str]:
    """List the folded name without its last ending, without its last two and so on; none for files of other kinds."""
    key = "" if OTHER_ENDING.search(name) else _folded(name)
    while key:
        yield key
        key = key.rpartition(".")[0]


def _resembling(entry: Path, file: Path, place: str) -> Problem:
    """Report an entry that is probably the missing file of a row."""
    same = unicodedata.normalize("NFC", entry.name) == unicodedata.normalize("NFC", file.name)
    if not entry.is_file():
        field, found = "file", kind_of(entry)
    elif same:
        field, found = "name", "the same name in another Unicode form (accents are stored differently)"
    elif entry.name.casefold() == file.name.casefold():
        field, found = "name", "other capital letters"
    elif _ending(entry.name) != _ending(file.name):
        field, found = "ending", _ending(entry.name) or "none"
    else:
        field, found = "name", "a similar name"
    remedies = {
        "file": "Restore the file",
        "name": "Rename the file",
        "ending": "Convert the file (.nii becomes .nii.gz by the command gzip), since another name is not enough",
    }
    advice = (
        f"{remedies[field]}, or correct the table. If the line has no scan, as where a prediction is requested, move "
        "this entry to another folder."
    )
    return error(entry.name, field, found, f"the file {file.name}, by {place}", advice)


def _ending(name: str) -> str:
    match = IMAGE_ENDING.search(name)
    return match[0].lower() if match else Path(name).suffix.lower()


def _unused(entry: Path, case: str | None, other: Path | None, table: Table, ending: str) -> Problem | None:
    """Report an entry that belongs to no row.

    :param case: by its name; None: its name is no image's.
    :param other: an image that the entry resembles and that exists, or None.
    """
    severity = table.unused if IMAGE_ENDING.search(entry.name) else "warning"
    if other is not None and IMAGE_ENDING.search(entry.name):
        advice = "Keep one of the two files. Label images belong into another folder."
        return Problem(severity, entry.name, "name", f"a second file next to {other.name}", "one file", advice)
    if not entry.is_file():
        advice = "Restore the file, or remove the entry."
        return Problem(severity, entry.name, "file", kind_of(entry), "an image file", advice)
    if case is not None:
        advice = "The files are not used. Add a line with subject and time, or remove the files."
        expected = f"a line for {case} in {table.name}"
        return Problem(severity, f"{case}_*{ending}", "case", "a file without a line", expected, advice)
    if entry.name in {f"{row.case}.json" for row in table.rows}:
        return None  # a sidecar
    advice = "The file is not read. Rename or remove it."
    return Problem(severity, entry.name, "name", entry.name, f"case_0000{ending}", advice)


def kind_of(entry: Path) -> str:
    """Say what an entry of a folder is that is no regular file."""
    if entry.is_symlink() and not entry.exists():
        return f"a link to {os.readlink(entry)}, which does not exist"
    return "a folder" if entry.is_dir() else "no regular file"
