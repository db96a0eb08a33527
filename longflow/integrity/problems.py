"""Problems that the integrity check finds."""

from dataclasses import dataclass
from typing import Literal

#: the file that problems of the description are reported for
DATASET_JSON = "dataset.json"

REGISTER = (
    "All scans of a subject must lie on one grid. longflow_register resamples them, with their labels, to one grid "
    "in a new dataset. Use --model rigid; for contrast phases, between which a patient breathes, use --model "
    "deformable."
)


@dataclass(frozen=True)
class Problem:
    """One problem of a dataset.

    :param severity: "error": the dataset cannot be used as it is; "warning": it can be used, perhaps not as intended;
        "note": nothing is wrong, but it limits the use of the dataset.
    :param file: relative to the dataset's folder.
    :param field: key, column or property of the file.
    :param found: the value found.
    :param expected: the value expected.
    :param advice: the remedy, as sentences.
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
    """Return a problem that prevents the use of the dataset."""
    return Problem("error", file, field, found, expected, advice)


def warning(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """Return a problem despite which the dataset can be used."""
    return Problem("warning", file, field, found, expected, advice)


def note(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """Return a fact about the dataset that its user should know."""
    return Problem("note", file, field, found, expected, advice)
