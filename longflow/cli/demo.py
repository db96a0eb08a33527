"""``longflow_demo``: the whole way from dated scans to a result, on a phantom cohort."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.table import Table

from longflow.cli import command, flags

EXAMPLE = """
longflow_demo
longflow_demo --task segment
longflow_demo --task translate
longflow_demo --folder /tmp/longflow_demo --max_time 10m
"""

#: the module of each task's demo
DEMOS = {"forecast": "forecasting", "segment": "segmentation", "translate": "translation"}


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_demo",
        "Make a phantom cohort, train on it, predict held-out subjects and compare with what is true: about five "
        "minutes on two cores. Stopped, the same command goes on where it was.",
        EXAMPLE,
    )
    result.add_argument(
        "--task",
        choices=list(DEMOS),
        default="forecast",
        help="forecast: the next scans of beating hearts (default); segment: volumes of the brain over visits; "
        "translate: CT of the abdomen without contrast from CT with it, and back",
    )
    result.add_argument("--folder", type=Path, help="where everything is written (default: ./longflow_demo_TASK)")
    result.add_argument(
        "--max_time",
        type=flags.duration,
        help="training time, as 200s, 10m, 2h (default: so that all stays under six minutes on two cores)",
    )
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.commands import run_command
    from longflow.paths import folders_below

    # a demo that is told to end lets its command save its work first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    demo = import_module(f"longflow.demo.{DEMOS[options.task]}")
    home, started = options.folder or Path(f"longflow_demo_{options.task}"), time.monotonic()
    command.console.print(f"[bold]A phantom cohort[/]: {demo.TITLE}", highlight=False)
    demo.write_data(home)
    command.console.print(f"{demo.raw_folder(home)}\n\n$ export LONGFLOW_HOME={home.resolve()}", highlight=False)
    for step in demo.demo_commands(home, options.max_time or demo.MAX_TIME):
        begun = time.monotonic()
        command.console.print(f"\n[bold]$ {step.typed}[/]", highlight=False)
        code = run_command(step, folders_below(home))
        if code:
            command.error_console.print(
                f"The demo stops here: this command ended with exit code {code}; its message stands above. "
                "Run the same command again to go on from here.",
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
        "",
        "With your own scans: make a folder like the raw data above (dataset.json, scans.csv with the same columns,",
        "and imagesTr), or import one with longflow_import; set LONGFLOW_HOME to the folder above raw, then run the",
        "same commands with your dataset's number.",
    ]
    command.console.print("\n".join(lines), highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_demo``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
