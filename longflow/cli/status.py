"""``longflow_status``: show how far studies of ``longflow_run``, and submitted comparisons, are."""

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from longflow.cli import command
from longflow.cli.progress import duration
from longflow.errors import NotFoundError
from longflow.paths import ComparisonPaths, DatasetPaths, StudyPaths, known_datasets, resolve_dataset_name

if TYPE_CHECKING:
    from longflow.cluster.status import StepStatus
    from longflow.cluster.study import Study

EXAMPLE = """
longflow_status -d 101
longflow_status -d 101 --watch     # again every 30 seconds, until nothing waits or runs
longflow_status                    # all studies
"""

#: rows of the table; further ones are counted
MOST_ROWS = 40
#: seconds between two looks
EVERY = 30.0
COLOURS = {"failed": "red", "running": "green", "waiting": "yellow", "not started": "dim", "done": "cyan"}


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_status",
        "Show every step of a study, and of comparisons on a cluster: state, progress, time left, node, restarts, the "
        "last line of its log, and why it waits or failed. Jobs that wait for something that failed are cancelled.",
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", help="101 or Dataset101_Name (default: all datasets with a study)")
    result.add_argument("--all", action="store_true", help=f"show all steps, not the first {MOST_ROWS}")
    result.add_argument("--watch", action="store_true", help="repeat until nothing waits or runs")
    return result


def work(options: argparse.Namespace) -> None:
    """Show the studies."""
    names = [resolve_dataset_name(options.dataset)] if options.dataset else known_datasets()
    paths = [DatasetPaths(name) for name in names]
    if not any(studies_of(one) for one in paths):
        which = f"of {names[0]} " if options.dataset else ""
        raise NotFoundError(f"No study {which}was started. Start one: longflow_run -d {options.dataset or 'DATASET'}")
    while True:
        active = _show(paths, None if options.all else MOST_ROWS, options.watch)
        if not options.watch or not active:
            return
        time.sleep(EVERY)


def _show(datasets: Sequence[DatasetPaths], most: int | None, watched: bool) -> bool:
    """Show the studies of datasets once.

    :param watched: they are shown again and again: a scheduler that does not answer now is asked again.
    :returns: whether anything waits or runs, or is not known.
    """
    from longflow.cluster.slurm import SlurmUnreachableError

    try:
        found = [(title, files, status()) for paths in datasets for title, files, status in studies_of(paths)]
    except SlurmUnreachableError as error:
        if not watched:
            raise
        command.show_error(str(error), "Not known:")
        return True
    if watched and command.console.is_terminal:
        command.console.clear()
    for title, files, steps in found:
        command.console.print(shown(title, files, steps, most), soft_wrap=False)
    return any(one.state in ("running", "waiting") for *_, steps in found for one in steps)


def studies_of(paths: DatasetPaths) -> list[tuple[str, StudyPaths, Callable[[], list["StepStatus"]]]]:
    """List what was started of a dataset: its study, and comparisons on a cluster.

    :returns: title, files and a function that finds the state of every step.
    """
    studies = [(paths.name, paths.study, lambda: status_of(paths))] if paths.study.request.is_file() else []
    for one in paths.submitted_comparisons():
        studies.append((f"{paths.name}, comparison {one.folder.name}", one.study, partial(status_of_comparison, one)))
    return studies


def status_of(paths: DatasetPaths) -> list["StepStatus"]:
    """Find the state of every step of a study."""
    from longflow.cluster.request import read_request, read_study_data
    from longflow.cluster.study import study_of

    request, data = read_request(paths), read_study_data(paths)
    return _status(paths.study, lambda has_jobs: study_of(request, data, data.parts if has_jobs else 1))


def status_of_comparison(paths: ComparisonPaths) -> list["StepStatus"]:
    """Find the state of every step of a comparison that was submitted."""
    from longflow.cluster.comparison import read_study_record, study_of_comparison

    return _status(paths.study, lambda _: study_of_comparison(read_study_record(paths)))


def _status(files: StudyPaths, study: Callable[[bool], "Study"]) -> list["StepStatus"]:
    """Find the state of every step. :param study: makes the study, told whether it has jobs."""
    from longflow.cluster.records import read_jobs
    from longflow.cluster.status import slurm_state, study_status
    from longflow.cluster.submit import known_jobs

    has_jobs = bool(read_jobs(files.jobs)) and shutil.which("squeue") is not None
    jobs = known_jobs(files) if has_jobs else []
    queue, ended, _ = slurm_state(jobs) if jobs else ({}, {}, [])
    return study_status(study(bool(jobs)), jobs, queue, ended)


def shown(title: str, files: StudyPaths, found: Sequence["StepStatus"], most: int | None) -> RenderableType:
    """Make the table of a study, failures first, and its summary."""
    from longflow.cluster.status import FAILED, ORDER, estimated_left, summary_of

    rows = sorted(found, key=lambda one: ORDER.index(one.state))
    table = Table(title=escape(title), title_justify="left")
    for name in ("step", "state", "progress", "left", "job", "node", "restarts"):
        table.add_column(name, no_wrap=name in ("state", "left"))
    table.add_column("reason, or last line of the log", overflow="fold", ratio=1)
    for one in rows[:most]:
        share = "" if one.share is None else f"{one.share:.0%}"
        left = "" if one.left is None else duration(one.left)
        said = one.reason if not one.last_line else f"{one.reason}: {one.last_line}" if one.reason else one.last_line
        cells = (share, left, one.job, one.node, str(one.restarts or ""), said)
        table.add_row(escape(one.step.name), f"[{COLOURS[one.state]}]{one.state}[/]", *map(escape, cells))
    lines = [", ".join(f"{count} {state}" for state, count in summary_of(found).items())]
    if most is not None and len(rows) > most:
        lines[0] += f" (shown: {most}; --all shows all)"
    if (left := estimated_left(found)) is not None:
        lines.append(f"The running trainings need about {duration(left)} more.")
    if any(one.state == FAILED for one in found):
        lines.append(f"Logs: {files.logs}. After correcting the cause, the command that started this continues it.")
    return Group(table, *map(Text, lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_status``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
