"""Read text, numbers, JSON and tables strictly: what Python's readers accept silently is refused."""

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.errors import DataError, first_few

#: largest JSON file or table that is read, most lines of a table, and most lists and objects of JSON; the content of
#: larger ones may fill the memory
MOST_BYTES, MOST_LINES, MOST_LISTS = 32 * 2**20, 500_000, 1_000_000
#: most letters of a number in JSON, and deepest nesting
LONGEST_NUMBER, DEEPEST = 308, 64
#: a string, a mark, or a number of JSON in which no string holds a quote
TOKEN = re.compile(r'"[^"]*"?|[{}\[\]:]|NaN|-?Infinity|-?[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?')
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
#: what may separate the cells of a table; spreadsheets write semicolons where the decimal sign is a comma
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def parse_number(text: str) -> float | None:
    """Parse a finite number in digits, as 12, -0.5 or 1e3; None where the text is not one (a date, 2019_01, nan).

    Python's own ``float`` also reads 2019_01, as 201901.
    """
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; ends of lines stay as they are.

    :param path: the file.
    :returns: its text.
    :raises DataError: the file is missing, too large, cannot be read or is not text.
    """
    try:
        if not Path(path).is_file():
            raise DataError(f"{path} does not exist.")
        if (size := Path(path).stat().st_size) > MOST_BYTES:
            raise DataError(f"{path} has {size / 2**20:.0f} MB, expected at most {MOST_BYTES / 2**20:.0f} MB of text.")
        with open(path, newline="", encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file in UTF-8. In a text editor, save it as UTF-8; in a spreadsheet program, "
            "save it as 'CSV UTF-8'."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_json(path: Path, kind: type = object) -> Any:
    """Read JSON; what Python's reader accepts silently (a key twice, NaN, deep nesting) is refused.

    :param path: the file.
    :param kind: ``dict`` or ``list``, where the file must hold one.
    :returns: its content.
    :raises DataError: the file is missing or invalid; the message names file and place.
    """
    text = read_text(path)
    if text.count("[") + text.count("{") > MOST_LISTS:
        raise DataError(f"{path} has more than {MOST_LISTS} lists and objects, which no file of longflow has.")
    try:
        hooks = {"parse_float": _number, "parse_int": _whole_number, "parse_constant": _number}
        content = json.loads(text, object_pairs_hook=_object, **hooks)
        if SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        deep = _is_deep(content)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}."
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(f"{path} holds half of a letter (\\ud800 to \\udfff). Write the letter itself.") from error
    except _Refused as error:
        raise DataError(f"{path}, {_refused(text)}.") from error
    except RecursionError:
        deep = True
    if deep:
        raise DataError(f"{path} has more than {DEEPEST} lists and objects inside each other, which no file needs.")
    if not isinstance(content, kind):
        raise DataError(f"{path} holds {text[:40]!r}, expected {'an object' if kind is dict else 'a list'} of JSON.")
    return content


class _Refused(Exception):
    """JSON holds a key twice, or a number that is not finite."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused
    return found


def _number(text: str) -> float:
    if _is_no_number(text):
        raise _Refused
    return float(text)


def _whole_number(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise _Refused
    return int(text)


def _is_no_number(text: str) -> bool:
    return len(text) > LONGEST_NUMBER or not math.isfinite(float(text))


def _refused(text: str) -> str:
    """Find the line of what was refused: it needs a slower reading, which good files are spared."""
    plain = text.replace("\\\\", "__").replace('\\"', "__")  # of the same length, and every quote delimits a string
    keys: list[set[str] | None] = []  # of each open object; None for a list
    last = ""
    for match in TOKEN.finditer(plain):
        token = match[0]
        if token in ("{", "["):
            keys.append(set() if token == "{" else None)
        elif token in ("}", "]"):
            del keys[-1:]
        elif token[0] == '"':
            last = text[match.start() + 1 : match.end() - 1]
        elif token != ":":
            if _is_no_number(token):
                return f"line {_line_at(text, match)}: {token[:40]}, expected a finite number"
        elif keys and (known := keys[-1]) is not None:
            if last in known:
                twice = f"the key '{last[:40]}' a second time. Only one can count: rename or delete one"
                return f"line {_line_at(text, match)}: {twice}"
            known.add(last)
    return "in one of its objects: a key twice, with and without escapes. Only one can count: rename or delete one"


def _line_at(text: str, match: re.Match[str]) -> int:
    return 1 + text.count("\n", 0, match.start())


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(DEEPEST):
        lists = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [part for parts in lists for part in parts]
    return bool(level)


@dataclass(frozen=True)
class Line:
    """A line of a table.

    :param number: of its first line in the file, from 1 on; blank lines and line breaks in quotes count.
    :param cells: text by column, without spaces around it; empty where the line is too short.
    :param surplus: cells beyond those of the header, as they are.
    """

    number: int
    cells: dict[str, str]
    surplus: tuple[str, ...] = ()


def read_table(path: Path, *needed: str, separator: str = ",") -> list[Line]:
    """Read a table with a header; names and cells are in Unicode's composed form (NFC).

    :param path: the file.
    :param needed: columns that it must have.
    :param separator: between cells.
    :returns: the lines below the header that are not blank, in order.
    :raises DataError: the file is missing, empty, not text, lacks a column or has one twice.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=separator, strict=True)
    records, end = [], 0
    try:
        for record in reader:
            if record:
                records.append((end + 1, record))
            if len(records) > MOST_LINES:
                raise DataError(f"{path} has more than {MOST_LINES} lines, which is no table of scans.")
            end = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{path} is not a table that can be read ({error}, from line {end + 1} on). Check that quotes are closed, "
            "and save it again as 'CSV UTF-8' (or, for .tsv, as text separated by tabs)."
        ) from error
    columns = [_cell(name) for name in records[0][1]] if records else []
    _check_columns(path, columns, needed, separator)
    width = len(columns)
    return [
        Line(number, dict(zip(columns, [*map(_cell, record), *[""] * width][:width], strict=True)), (*record[width:],))
        for number, record in records[1:]
    ]


def _cell(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _check_columns(path: Path, columns: Sequence[str], needed: Sequence[str], separator: str) -> None:
    if missing := [name for name in needed if name not in columns]:
        shown = first_few((name[:40] for name in columns), most=20)
        found = next((name for mark, name in SEPARATORS.items() if mark != separator and mark in "".join(columns)), "")
        raise DataError(
            f"{path} has no column {', '.join(missing)}. Found in its first line: {shown or 'nothing'}. "
            f"Expected: {','.join(needed)} and any further columns, separated by {SEPARATORS[separator]}."
            + (f" Its cells are separated by {found}. Save it with {SEPARATORS[separator]}." if found else "")
        )
    places: dict[str, list[int]] = {}
    for place, name in enumerate(columns, start=1):
        places.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(place)
    for name, twice in places.items():
        if name and len(twice) > 1:
            raise DataError(
                f"{path} has {len(twice)} columns called {name}: columns {', '.join(map(str, twice))} of its first "
                "line. Only one can count: delete or rename the others. Spaces and capital letters make no difference."
            )
