"""Write files whole or not at all, and by one process at a time."""

import csv
import errno
import fcntl
import glob
import gzip
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import psutil

from longflow.errors import DataError, InUseError
from longflow.reading import parse_number

logger = logging.getLogger(__name__)

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


@contextmanager
def awaited_lock(path: Path, doing: str, every: float = 1.0) -> Iterator[None]:
    """Hold a lock on a file as :func:`exclusive_lock`, and wait for it where another process holds it.

    :param path: the file of the lock.
    :param doing: the work, for messages.
    :param every: seconds between two tries.
    :raises DataError: the file cannot be written, or is a link.
    """
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(exclusive_lock(path, doing))
                break
            except InUseError as error:
                logger.debug("Waiting: %s", error)
                time.sleep(every)
        yield


def wait_for_files(paths: Iterable[Path], seconds: float = 90.0) -> list[Path]:
    """Wait until files are visible that another machine has written: shared file systems show them up to a minute late.

    :param paths: the files.
    :param seconds: how long to wait at most.
    :returns: the files that are still missing; in most cases none.
    """
    missing, until = [Path(path) for path in paths], time.monotonic() + seconds
    while missing := [path for path in missing if not _is_visible(path)]:
        if time.monotonic() > until:
            break
        time.sleep(min(1.0, seconds / 10))
    return missing


def _is_visible(path: Path) -> bool:
    """Tell whether a file exists. Listing its folder lets a client of NFS forget what it remembers of it."""
    if path.is_file():
        return True
    with suppress(OSError):
        return path.name in os.listdir(path.parent) and path.is_file()
    return False


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


def link_or_copy(source: Path, link: Path) -> None:
    """Give a file another name: a link where the disk has links, else a copy; an older file of that name is replaced.

    :param source: the file.
    :param link: its other name.
    :raises DataError: the file is missing.
    """
    if not source.is_file():
        raise DataError(f"{source} does not exist.")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), link)
    except OSError:
        with atomic_write(link) as temporary:
            shutil.copy2(source, temporary)
