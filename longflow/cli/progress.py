"""The progress bar of all long work: what, how many, time gone, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from longflow.cli.command import error_console


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar; yield a function to be called with (finished, all, name of what was finished)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[name]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console) as bar:
        task = bar.add_task(description, total=None, name="", visible=False)

        def show(finished: int, total: int, name: str) -> None:
            bar.update(task, completed=finished, total=total, name=escape(name), visible=True)

        yield show
