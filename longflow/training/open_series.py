"""Hold the prepared series open that samples are drawn from."""

from functools import lru_cache, partial
from pathlib import Path

from longflow.preprocessing.series import PreparedSeries, load_prepared

HELD_OPEN = 64


class OpenSeries:
    """The prepared series of a folder, by subject; the latest ones are held open.

    Open files are not sent to worker processes; they are opened again there.

    :param folder: of the prepared subjects.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._load = lru_cache(HELD_OPEN)(partial(load_prepared, folder))

    def __getitem__(self, subject: str) -> PreparedSeries:
        """Return a prepared series.

        :param subject: the subject's name.
        :returns: the series, with handles of its arrays.
        :raises DataError: the subject is not prepared, or its files are damaged.
        """
        return self._load(subject)

    def __reduce__(self):
        return OpenSeries, (self.folder,)
