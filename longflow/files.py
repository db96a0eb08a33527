"""Read text, JSON and tables strictly; write files whole or not at all, and by one process at a time."""

import csv
import errno
import fcntl
import glob
import gzip
import hashlib
import io
import json
import logging
import math
import os
import platform
import re
import stat
import time
import unicodedata
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import psutil

from longflow.errors import DataError, InUseError, first_few

logger = logging.getLogger(__name__)

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
#: beginnings of cells that spreadsheets run
FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: bytes for which there has to be room after a file was written
ROOM = 65_536

_HOST = re.sub(r"\W", "", platform.node()) or "unknown"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the system into one that says what to do. :param path: that is written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error.strerror or error}. "
            f"Free some space or check the permissions of {path.parent}, then run the same command again: "
            f"finished work is kept."
        ) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to ``path`` after the block has ended without an error.

    The temporary name keeps the full suffix of ``path`` (``.nii.gz``), because writers choose the format by it. A
    killed process leaves at most a file whose name starts with ``.unfinished-``: nothing reads it, and the next writer
    of the same path removes it. Several processes may write the same path; the last one wins. A file that is replaced
    keeps its permissions, and nobody else can read it before; a new one has those of the umask.

    :param path: the file to write.
    :returns: a path in the same folder, to write to.
    :raises DataError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".unfinished-{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in path.parent.glob(f".unfinished-*-{glob.escape(path.name)}"):
                if not _is_being_written(leftover):
                    leftover.unlink(missing_ok=True)
            mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else None
            if mode is not None:
                temporary.touch(mode=0o600, exist_ok=False)
            yield temporary
            _check_whole(temporary)
            if mode is not None:
                with suppress(PermissionError):  # file systems without permissions
                    temporary.chmod(mode)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # where even the folder could not be made
            temporary.unlink(missing_ok=True)


def _check_whole(path: Path) -> None:
    """Check a file that was just written: SimpleITK does not notice when the disk has no room for the last bytes.

    A file that was cut off for want of room cannot grow either. A compressed one is read to its end, too, since another
    process may have made room in the meantime.

    :raises OSError: the file is cut off, or there is no room left at all.
    """
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.write(bytes(ROOM))
        file.flush()
        file.truncate(size)
    if path.suffix != ".gz":
        return
    try:
        with suppress(gzip.BadGzipFile, zlib.error), gzip.open(path) as file:  # a copy is as its original
            while file.read(1 << 20):
                pass
    except EOFError as error:
        raise OSError(errno.ENOSPC, "the file was cut off while it was written, as on a full disk") from error


def open_in_place(path: Path) -> TextIO:
    """Open a text file to read it and to append to it; create it where it does not exist.

    For the few files that are not written by :func:`atomic_write`: a link that someone placed there is not followed.

    :param path: the file; its folder exists.
    :returns: the open file.
    :raises DataError: it is a link, a folder, a pipe or a device, or it cannot be opened.
    """
    refused = DataError(f"{path} is a link or no regular file. Delete it, then run the same command again.")
    if path.is_symlink():
        raise refused
    with _explained(path):
        file = open(path, "a+", encoding="utf-8", opener=_without_links)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise refused
    return file


def _without_links(path: str, flags: int) -> int:
    """Open a file but no link, and without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


@contextmanager
def exclusive_lock(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock on a file; it ends with the block or the process. The file is removed at the end.

    It is a POSIX lock: forked processes do not hold it, so the workers that prepare batches cannot keep it after the
    process itself was killed. It does not block within one process. Check within the block what was decided before it:
    another process may have held the lock until now.

    :param path: the file of the lock.
    :param doing: the work, for the message of another process ("Fold 0 of X is being trained").
    :raises InUseError: another process holds it.
    :raises DataError: the file cannot be written, or is a link.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    file = _locked(path, doing)
    try:
        with _explained(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is locked: no other process can have begun to use it
        file.close()
        with suppress(OSError):  # not empty
            for folder in missing:
                folder.rmdir()


def _locked(path: Path, doing: str) -> TextIO:
    """Open and lock a file."""
    while True:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        file = open_in_place(path)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise InUseError(
                f"{doing} by another process already ({holder}; {path}). "
                "Wait for it to end or stop it, then run the same command again."
            ) from error
        except OSError as error:
            logger.warning(
                "%s: this file system has no locks (%s). Make sure that no other process works there.", path, error
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the process that held it has just removed it


def _is_being_written(leftover: Path) -> bool:
    """Tell whether the process that a temporary name names is alive, or may be on another machine (for a day)."""
    writer = re.match(r"\.unfinished-(\w+)-(\d+)-\w{8}-", leftover.name)
    if writer is None:
        return False
    if writer[1] == _HOST:
        return psutil.pid_exists(int(writer[2]))
    try:
        return time.time() - leftover.stat().st_mtime < 86_400
    except FileNotFoundError:
        return False


def file_digest(path: Path) -> str:
    """Hash the bytes of a file; a file that is unchanged since the last call is not read again.

    :param path: the file.
    :returns: SHA-256 as ``sha256sum`` prints it.
    :raises DataError: the file cannot be read.
    """
    try:
        state = path.stat()
        return _digest(str(path), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


@lru_cache(maxsize=10_000)
def _digest(path: str, *state: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(text: str, path: Path) -> None:
    """Write text to a file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(content: Any, path: Path) -> None:
    """Write JSON with keys in the given order and two spaces of indentation, whole or not at all."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: Path, exact: bool = False) -> None:
    """Write a CSV with a header, whole or not at all; missing values and None become empty cells.

    :param columns: names, in order.
    :param rows: cells by column.
    :param path: the file.
    :param exact: write text as it is, for tables that are read again. In the others, text that a spreadsheet would
        run as a formula begins with an apostrophe, which makes it text.
    """
    shown = (lambda cell: cell) if exact else _no_formula
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writerow({name: shown(name) for name in columns})
        writer.writerows({name: shown(cell) for name, cell in row.items()} for row in rows)


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in FORMULA and parse_number(cell) is None else cell


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
