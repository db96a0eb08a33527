"""Write files whole or not at all, and by one process at a time."""

import csv
import fcntl
import glob
import hashlib
import json
import logging
import os
import platform
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from longflow.errors import DataError, InUseError

logger = logging.getLogger(__name__)

_HOST = re.sub(r"\W", "", platform.node()) or "unknown"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to ``path`` after the block has ended without an error.

    The temporary name keeps the full suffix of ``path`` (``.nii.gz``), because writers choose the format by it. A
    killed process leaves at most a file whose name starts with ``.unfinished-``: nothing reads it, and the next writer
    of the same path removes it. Several processes may write the same path; the last one wins.

    :param path: the file to write.
    :returns: a path in the same folder, to write to.
    :raises DataError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".unfinished-{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".unfinished-*-{glob.escape(path.name)}"):
            if not _is_being_written(leftover):
                leftover.unlink(missing_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error.strerror or error}. "
            f"Free some space or check the permissions of {path.parent}, then run the same command again: "
            f"finished work is kept."
        ) from error
    finally:
        with suppress(OSError):  # where even the folder could not be made
            temporary.unlink(missing_ok=True)


@contextmanager
def exclusive_lock(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock on a file; it ends with the block or the process.

    It is a POSIX lock: forked processes do not hold it, so the workers that prepare batches cannot keep it after the
    process itself was killed. It does not block within one process.

    :param path: the file of the lock.
    :param doing: the work, for the message of another process ("Fold 0 of X is being trained").
    :raises InUseError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise InUseError(
                f"{doing} by another process already ({file.read().strip() or 'unknown'}; {path}). "
                "Wait for it to end or stop it, then run the same command again."
            ) from error
        except OSError as error:
            logger.warning(
                "%s: this file system has no locks (%s). Make sure that no other process works there.", path, error
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


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


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a CSV with a header, whole or not at all; missing values and None become empty cells."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path) -> Any:
    """Read JSON.

    :param path: the file.
    :returns: its content.
    :raises DataError: the file is missing or invalid; the message names file and place.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8.") from error
