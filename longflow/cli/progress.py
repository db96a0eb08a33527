"""The progress bar of all long work: name, amount, time used, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from longflow.cli.command import error_console


def bar_with(amount: ProgressColumn) -> Progress:
    """Return a bar on stderr; its tasks have a field ``note``.

    :param amount: the column that shows how much is done.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TextColumn("[dim]{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=error_console,
    )


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar; yield a function to call with (finished, all, name of the last finished thing)."""
    with bar_with(MofNCompleteColumn()) as bar:
        task = bar.add_task(description, total=None, note="", visible=False)

        def show(finished: int, total: int, name: str) -> None:
            bar.update(task, completed=finished, total=total, note=escape(name), visible=True)

        yield show


def duration(seconds: float) -> str:
    """Format a duration.

    >>> duration(40), duration(600), duration(9000)
    ('40 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
