"""Problems that the integrity check finds."""

from collections.abc import Sequence
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


def as_lines(problems: Sequence[Problem], most: int = 5) -> list[str]:
    """List problems for an error message, each remedy once.

    :param most: problems with one remedy that are shown.
    :returns: indented lines.
    """
    lines = []
    for advice in dict.fromkeys(problem.advice for problem in problems):
        same = [problem for problem in problems if problem.advice == advice]
        lines += [f"  {one.file}: {one.field}: found {one.found}; expected {one.expected}." for one in same[:most]]
        lines += [f"  ... and {len(same) - most} more like these."] if len(same) > most else []
        lines.append(f"    {advice}")
    return lines


def error(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """Return a problem that prevents the use of the dataset."""
    return Problem("error", file, field, found, expected, advice)


def warning(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """Return a problem despite which the dataset can be used."""
    return Problem("warning", file, field, found, expected, advice)


def note(file: str, field: str, found: str, expected: str, advice: str) -> Problem:
    """Return a fact about the dataset that its user should know."""
    return Problem("note", file, field, found, expected, advice)
