"""The exceptions that longflow raises on purpose.

Every message is written for the owner of the data: the file, the value found, the value expected, and the remedy.
Commands show it without a traceback and end with exit code 1. Any other exception is a fault of longflow and ends with
exit code 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LongflowError(Exception):
    """Base of all errors that a user can correct."""


class DataError(LongflowError):
    """The images, tables or folders of a dataset are invalid."""


class FileError(DataError):
    """A file cannot be used; the parts of its message are kept for tables. See :func:`file_error`."""

    def __init__(self, message: str, field: str = "", found: str = "", expected: str = "", advice: str = ""):
        super().__init__(message, field, found, expected, advice)  # all of them: workers pickle errors
        self.field, self.found, self.expected, self.advice = field, found, expected, advice

    def __str__(self) -> str:
        return str(self.args[0])


class ConfigurationError(LongflowError):
    """A plan, a dataset.json or a flag has an invalid value."""


class NotFoundError(LongflowError):
    """A dataset, configuration, method, fold or file does not exist."""


class ModelError(LongflowError):
    """A trained model does not fit the plans or the data."""


class OutOfMemoryError(ModelError, MemoryError):
    """The memory of the device is too small for the smallest piece of work."""


class InUseError(LongflowError):
    """Another process works on the same files."""


class WorkerError(LongflowError):
    """A worker process ended without a result; the message has its subject and the cause."""


def first_few(names: Iterable[object], most: int = 5) -> str:
    """List the first few of some names, human-readable.

    >>> first_few(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def file_error(path: object, field: str, found: str, expected: str, advice: str, says: str = "") -> FileError:
    """Make the error for a file that cannot be used.

    :param path: of the file.
    :param field: its property, as "spacing".
    :param found: the value found.
    :param expected: the value expected.
    :param advice: the remedy, as sentences.
    :param says: the finding in the message, from the verb on; by default "has the {field} {found}".
    :returns: the error, to raise.

    >>> str(file_error("a.nii", "spacing", "0 mm", "a number above 0", "Write it again."))
    'a.nii has the spacing 0 mm, expected a number above 0. Write it again.'
    """
    message = f"{path} {says or f'has the {field} {found}'}, expected {expected}. {advice}"
    return FileError(message, field, found, expected, advice)


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> NotFoundError:
    """Make the error for an unknown name; its message names the nearest known one.

    :param kind: of thing, as "method".
    :param name: the unknown name.
    :param known: all known names.
    :param hint: a sentence at the end.
    :returns: the error, to raise.

    >>> str(unknown_name("method", "crones", ["cronos", "tfm"]))
    "There is no method 'crones'. Did you mean 'cronos'? Known: cronos, tfm."
    """
    known = sorted(known)
    nearest = get_close_matches(name, known, n=1, cutoff=0.4)
    message = f"There is no {kind} '{name}'."
    if nearest:
        message += f" Did you mean '{nearest[0]}'?"
    message += f" Known: {', '.join(known)}." if known else " None exists yet."
    return NotFoundError(f"{message} {hint}".strip())
