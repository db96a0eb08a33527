"""``longflow_status``: show how far the study of ``longflow_run`` is."""

import argparse
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from longflow.cli import command
from longflow.cli.progress import duration
from longflow.errors import NotFoundError
from longflow.paths import DatasetPaths, known_datasets, resolve_dataset_name

if TYPE_CHECKING:
    from longflow.cluster.status import StepStatus

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
        "Show every step of a study: state, progress, time left, node, restarts, the last line of its log, and why it "
        "waits or failed. Jobs that wait for something that failed are cancelled.",
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", help="101 or Dataset101_Name (default: all datasets with a study)")
    result.add_argument("--all", action="store_true", help=f"show all steps, not the first {MOST_ROWS}")
    result.add_argument("--watch", action="store_true", help="repeat until nothing waits or runs")
    return result


def work(options: argparse.Namespace) -> None:
    """Show the studies."""
    names = [resolve_dataset_name(options.dataset)] if options.dataset else known_datasets()
    studies = [paths for paths in map(DatasetPaths, names) if options.dataset or paths.study.request.is_file()]
    if not studies:
        raise NotFoundError("No study was started. Start one: longflow_run -d DATASET")
    while True:
        found = {paths: status_of(paths) for paths in studies}
        if options.watch and command.console.is_terminal:
            command.console.clear()
        for paths, steps in found.items():
            command.console.print(shown(paths, steps, None if options.all else MOST_ROWS), soft_wrap=False)
        active = any(one.state in ("running", "waiting") for steps in found.values() for one in steps)
        if not options.watch or not active:
            return
        time.sleep(EVERY)


def status_of(paths: DatasetPaths) -> list["StepStatus"]:
    """Find the state of every step of a study."""
    from longflow.cluster.records import read_jobs
    from longflow.cluster.request import read_request, read_study_data
    from longflow.cluster.status import slurm_state, study_status
    from longflow.cluster.study import study_of
    from longflow.cluster.submit import known_jobs

    request, data = read_request(paths), read_study_data(paths)
    has_jobs = bool(read_jobs(paths.study.jobs)) and shutil.which("squeue") is not None
    jobs = known_jobs(paths.study) if has_jobs else []
    queue, ended, _ = slurm_state(jobs) if jobs else ({}, {}, [])
    return study_status(study_of(request, data, data.parts if jobs else 1), jobs, queue, ended)


def shown(paths: DatasetPaths, found: Sequence["StepStatus"], most: int | None) -> RenderableType:
    """Make the table of a study, failures first, and its summary."""
    from longflow.cluster.status import FAILED, ORDER, estimated_left, summary_of

    rows = sorted(found, key=lambda one: ORDER.index(one.state))
    table = Table(title=paths.name, title_justify="left")
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
        lines.append(f"Logs: {paths.study.logs}. After correcting the cause, the same longflow_run continues.")
    return Group(table, *map(Text, lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_status``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
