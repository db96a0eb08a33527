"""Writing files whole or not at all."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longflow.errors import DataError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; move it to ``path`` once the block has ended without an error.

    The temporary name keeps the full suffix of ``path`` (``.nii.gz``), because writers choose the format by it. A
    killed process leaves at most a file whose name starts with ``.unfinished-``, which nothing reads and the next
    writer of the same path removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".unfinished-*-{path.name}"):
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".unfinished-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error.strerror or error}. "
            f"Free some space or check the permissions of {path.parent}, then run the same command again: "
            f"what is finished is kept."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write text to a file, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(content: Any, path: Path) -> None:
    """Write JSON with sorted-as-given keys and two spaces of indentation, whole or not at all."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is a :class:`DataError` that names the file and the place."""
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
