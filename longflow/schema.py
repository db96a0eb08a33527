"""Types of the values of JSON files, and validation of a file against a model of pydantic, with messages for users."""

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from longflow.errors import ConfigurationError
from longflow.paths import LONGEST_NAME, is_name, is_printable

#: invalid values that a message lists
MOST_SHOWN = 20

Model = TypeVar("Model", bound=BaseModel)

PositiveFloat = Annotated[float, Field(gt=0)]
#: a size of a network, a patch or a sequence: what is larger was made to fill the memory
PositiveInt = Annotated[int, Field(ge=1, le=10_000)]
#: a length of a training
Duration = Annotated[int, Field(ge=1, le=10**9)]

#: most bytes of a phase and of a file's ending, which follow the name of a case in the name of a file
LONGEST_PHASE, LONGEST_ENDING = 40, 12


def _printable(text: str) -> str:
    if not is_printable(text):
        raise ValueError(f"expected at most {LONGEST_NAME} bytes, without control characters or line breaks")
    return text


def _part_of_file_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(
            f"becomes part of file names: expected at most {LONGEST_NAME} bytes, without slashes or control characters"
        )
    return text


def _stays_in_the_folder(text: str) -> str:
    if "/" in text or "\\" in text or not is_printable(text, LONGEST_ENDING):
        raise ValueError("file_ending is the end of a file's name, as .nii.gz, without slashes or control characters")
    return text


def _none_or_two_phases(value: list[str]) -> list[str]:
    if value and (len(set(value)) != 2 or len(value) != 2 or not all(is_name(one, LONGEST_PHASE) for one in value)):
        raise ValueError(
            'phases needs two different names, as ["native", "arterial"], the one at t = 0 first, each of at most '
            f"{LONGEST_PHASE} bytes without slashes or control characters"
        )
    return value


def _number_above_zero_or_column(value: float | str) -> float | str:
    if isinstance(value, str) and not (value.strip() and is_printable(value)):
        raise ValueError("the name of a column of scans.csv, or a number")
    if not isinstance(value, str) and not 0 < value < math.inf:
        raise ValueError("a number above 0 in the dataset's time unit, or the name of a column of scans.csv")
    return value


#: the time after which scans repeat: a number in time units, or the column of scans.csv that has it for each subject
Period = Annotated[float | str, AfterValidator(_number_above_zero_or_column)]

#: a name that people read: of a channel, a label
Name = Annotated[str, AfterValidator(_printable)]
#: a name that becomes part of the name of a file
FileName = Annotated[str, AfterValidator(_part_of_file_name)]
#: the end of the names of images
FileEnding = Annotated[str, AfterValidator(_stays_in_the_folder)]
#: what becomes part of a folder's name
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$", max_length=LONGEST_NAME)]
#: none, or the phase at t = 0 and that at t = 1
Phases = Annotated[list[str], AfterValidator(_none_or_two_phases)]


def validated(kind: type[Model], content: Any, source: Path) -> Model:
    """Validate what was read from a JSON file.

    :param kind: of model.
    :param content: of the file.
    :param source: the file, for messages.
    :returns: the model.
    :raises ConfigurationError: a key is unknown, missing or out of its range; all problems are listed.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise _explained(error, source) from error


def _explained(error: ValidationError, source: Path) -> ConfigurationError:
    """Turn a pydantic error into a readable message: each key, what was found, what is allowed."""
    lines = []
    problems = error.errors()
    for problem in problems[:MOST_SHOWN]:
        key = ".".join(str(part) for part in problem["loc"])[:80] or "(top level)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: this key is not known; a typo?")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: missing")
        elif problem["type"] == "string_pattern_mismatch":
            lines.append(f"  {key}: expected letters, digits, - and _ only (found: {repr(problem['input'])[:80]})")
        else:
            found = problem["input"]
            shown = "" if isinstance(found, dict | BaseModel) else f" (found: {repr(found)[:80]})"
            lines.append(f"  {key}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    if len(problems) > MOST_SHOWN:
        lines.append(f"  and {len(problems) - MOST_SHOWN} more")
    return ConfigurationError(f"{source} holds values that cannot be used:\n" + "\n".join(lines))
