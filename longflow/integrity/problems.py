"""What the integrity check finds."""

from dataclasses import dataclass
from typing import Literal

REGISTER = (
    "The scans of a subject must lie on one grid. longflow_register (--model rigid; deformable for contrast phases, "
    "between which a patient breathes) brings them there, and writes them and their labels to a new dataset."
)


@dataclass(frozen=True)
class Problem:
    """One problem of a dataset.

    :param severity: "error": the dataset cannot be used as it is; "warning": it can, perhaps not as was meant;
        "note": nothing is wrong, but it decides what the dataset can be used for.
    :param file: relative to the dataset's folder.
    :param advice: what to do.
    """

    severity: Literal["error", "warning", "note"]
    file: str
    field: str
    found: str
    expected: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: found {self.found}; expected {self.expected}. {self.advice}"


def error(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """A problem for which the dataset cannot be used."""
    return Problem("error", file, field, found, expected, advice)


def warning(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """A problem despite which the dataset can be used."""
    return Problem("warning", file, field, found, expected, advice)


def note(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """No problem, but what one should know of the dataset."""
    return Problem("note", file, field, found, expected, advice)
