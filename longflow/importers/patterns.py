"""Patterns of file names with places, as ``{subject}_cine.nii.gz``: find the files that fit, and their places."""

import re
from collections.abc import Mapping
from pathlib import Path

from longflow.errors import ConfigurationError, DataError, first_few

#: regular expression for ``{subject}``
SUBJECT = "[^/]+"


def fitting_files(
    source: Path, pattern: str, places: Mapping[str, str], example: str
) -> list[tuple[dict[str, str], Path]]:
    """Find the files whose path below a folder fits a pattern.

    :param source: the folder.
    :param pattern: a path with every place in braces; a place that occurs twice means the same text.
    :param places: a regular expression for each place, without groups.
    :param example: a pattern for the message where this one lacks a place.
    :returns: text of the places and path of each file, sorted by path.
    :raises ConfigurationError: a place is not in the pattern, or the pattern leads elsewhere.
    :raises DataError: no file fits.
    """
    missing = [f"{{{place}}}" for place in places if f"{{{place}}}" not in pattern]
    if missing:
        raise ConfigurationError(f"--images '{pattern}' must hold {' and '.join(missing)}, as in '{example}'.")
    if Path(pattern).is_absolute():
        raise ConfigurationError(f"--images '{pattern}' must be a path below {source}, without a slash at its start.")
    if not source.is_dir():
        raise DataError(f"{source} does not exist or is not a folder.")
    expression, wildcard = re.escape(pattern), pattern
    for place, allowed in places.items():
        written = re.escape(f"{{{place}}}")
        expression = expression.replace(written, f"(?P<{place}>{allowed})", 1).replace(written, f"(?P={place})")
        wildcard = wildcard.replace(f"{{{place}}}", "*")
    found = []
    for path in sorted(source.glob(wildcard)):
        if match := re.fullmatch(expression, path.relative_to(source).as_posix()):
            found.append((match.groupdict(), path))
    if not found:
        present = sorted(path.name for path in source.iterdir())
        raise DataError(
            f"{source} has no file with a name as {pattern}. It holds {first_few(present) or 'nothing'}. Give "
            "the pattern with --images."
        )
    return found


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """Fill the places of a pattern.

    >>> filled("{subject}/{subject}_seg.nii.gz", {"subject": "p1", "phase": "native"})
    'p1/p1_seg.nii.gz'
    """
    for place, text in values.items():
        pattern = pattern.replace(f"{{{place}}}", text)
    return pattern
