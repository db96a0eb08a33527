"""Validate what was read from a JSON file against a model of pydantic, with messages for users."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from longflow.errors import ConfigurationError

#: invalid values that a message lists
MOST_SHOWN = 20

Model = TypeVar("Model", bound=BaseModel)


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
