"""The prepared series that samples are drawn from."""

from functools import lru_cache, partial
from pathlib import Path

from longflow.preprocessing.series import PreparedSeries, load_prepared

HELD_OPEN = 64


class OpenSeries:
    """The prepared series of a folder by subject; the latest of them are held open.

    Open files do not travel to worker processes: there they are opened again.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._load = lru_cache(HELD_OPEN)(partial(load_prepared, folder))

    def __getitem__(self, subject: str) -> PreparedSeries:
        """:raises DataError: the subject is not prepared, or its files are damaged."""
        return self._load(subject)

    def __reduce__(self):
        return OpenSeries, (self.folder,)
