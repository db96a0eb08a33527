"""``longflow_demo``: run everything from dated scans to a result, on a phantom cohort."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from longflow.cli import command, flags
from longflow.task import DEFAULT_TASK, all_tasks, get_task

EXAMPLE = """
longflow_demo
longflow_demo --task segment
longflow_demo --task translate
longflow_demo --folder /tmp/longflow_demo --max_time 10m
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_demo",
        "Make a phantom cohort, train on it, predict held-out subjects and compare with the references. This takes "
        "about five minutes on two cores. After an interruption, the same command continues.",
        EXAMPLE,
    )
    tasks = [task for task in all_tasks() if task.demo and "demo" in task.words.help]
    result.add_argument(
        "--task",
        choices=[task.name for task in tasks],
        default=DEFAULT_TASK,
        help="; ".join(f"{task.name}: {task.words.help['demo']}" for task in tasks).replace("%", "%%")
        + " (default: %(default)s)",
    )
    result.add_argument("--folder", type=Path, help="folder for all files (default: ./longflow_demo_TASK)")
    result.add_argument(
        "--max_time",
        type=flags.duration,
        help="training time, as 200s, 10m, 2h (default: everything takes less than six minutes on two cores)",
    )
    return result


def work(options: argparse.Namespace) -> None:
    """Write the cohort, run the commands and print the results."""
    from longflow.commands import run_command
    from longflow.paths import folders_below

    # on SIGTERM, the running command saves its work first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    demo = import_module(get_task(options.task).demo)
    home, started = options.folder or Path(f"longflow_demo_{options.task}"), time.monotonic()
    command.console.print(f"[bold]A phantom cohort[/]: {demo.TITLE}", highlight=False)
    demo.write_data(home)
    command.say(f"{demo.raw_folder(home)}\n\n$ export LONGFLOW_HOME={home.resolve()}")
    for step in demo.demo_commands(home, options.max_time or demo.MAX_TIME):
        begun = time.monotonic()
        command.console.print(f"\n[bold]$ {escape(step.typed)}[/]", highlight=False)
        code = run_command(step, folders_below(home))
        if code:
            command.error_console.print(
                f"The demo stops here: this command ended with exit code {code}; its message is above. "
                "Run the same command again to continue from here.",
                highlight=False,
            )
            raise SystemExit(code if code > 0 else 128 - code)
        command.console.print(f"[dim]{time.monotonic() - begun:.0f} s[/]", highlight=False)
    _show_results(demo.results(home), home, time.monotonic() - started)


def _show_results(results, home: Path, seconds: float) -> None:
    table = Table(*results.header, title=results.title)
    for row in results.rows:
        table.add_row(*row)
    command.console.print()
    command.console.print(table)
    lines = [
        f"Time: {seconds / 60:.1f} min.",
        *results.lines,
        f"models      {home / 'results'}",
        *(f"report      {page}" for page in sorted(home.rglob("report/index.html"))),
        "",
        "With your own scans: make a folder like the raw data above (dataset.json, scans.csv with the same columns,",
        "and imagesTr), or import one with longflow_import; set LONGFLOW_HOME to the folder above raw, then run the",
        "same commands with your dataset's number.",
    ]
    command.say("\n".join(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_demo``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
