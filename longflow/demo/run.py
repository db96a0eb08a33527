"""Parts that all demos share.

The module of a demo (``longflow.task.Task.demo``) has ``TITLE``, ``MAX_TIME`` (seconds) and four functions:
``raw_folder(home)``, ``write_data(home)``, ``demo_commands(home, max_time)`` and ``results(home)``.
"""

from dataclasses import dataclass

#: the configuration that the demos train
CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Results:
    """The results of a demo: a table, and lines below it."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lines: list[str]
