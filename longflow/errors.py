"""The exceptions that longflow raises on purpose.

Every message is written for the person who owns the data: what is wrong, in which file, what was found, what was
expected, what to do. Commands show it without a traceback and end with exit code 1; anything else that is raised is
our own fault and ends with exit code 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LongflowError(Exception):
    """Base of all errors that a user can do something about."""


class DataError(LongflowError):
    """The images, tables or folders of a dataset are not what they should be."""


class ConfigurationError(LongflowError):
    """A plan, a dataset.json or a flag holds something that cannot be used."""


class NotFoundError(LongflowError):
    """A dataset, configuration, method, fold or file does not exist."""


class ModelError(LongflowError):
    """A trained model does not fit the plans or the data it is asked to work on."""


class InUseError(LongflowError):
    """Another process works on the same files."""


class WorkerError(LongflowError):
    """A worker process ended without an answer; holds the case it worked on and the cause."""


def first_few(names: Iterable[object], most: int = 5) -> str:
    """The first few of some names, for people.

    >>> first_few(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> NotFoundError:
    """The error for a name that is not among the known ones, with the nearest match named.

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
