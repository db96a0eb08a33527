"""``longflow_demo``: the whole way from dated scans to forecasts, on a phantom cohort."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from longflow.cli import command

EXAMPLE = """
longflow_demo
longflow_demo --folder /tmp/longflow_demo --max_time 10m
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_demo",
        "Make a cohort of beating phantom hearts, train on it, forecast held-out subjects and compare: about five "
        "minutes on two cores. Stopped, the same command goes on where it was.",
        EXAMPLE,
    )
    result.add_argument(
        "--folder",
        type=Path,
        default=Path("longflow_demo"),
        help="where everything is written (default: ./longflow_demo)",
    )
    # with the default, everything together stays under six minutes on two cores
    result.add_argument("--max_time", default="200s", help="training time, as 200s, 10m, 2h (default: %(default)s)")
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.demo.cohort import write_cohort
    from longflow.demo.run import demo_commands, raw_folder, run_command

    # a demo that is told to end lets its command save its work first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    home, started = options.folder, time.monotonic()
    command.console.print("[bold]A phantom cohort[/]: beating hearts, scanned at irregular times", highlight=False)
    write_cohort(raw_folder(home))
    command.console.print(f"{raw_folder(home)}\n\n$ export LONGFLOW_HOME={home.resolve()}", highlight=False)
    for step in demo_commands(home, options.max_time):
        begun = time.monotonic()
        command.console.print(f"\n[bold]$ {step.typed}[/]", highlight=False)
        code = run_command(step, home)
        if code:
            command.error_console.print(
                f"The demo stops here: this command ended with exit code {code}; its message stands above. "
                "Run longflow_demo again to go on from here.",
                highlight=False,
            )
            raise SystemExit(code if code > 0 else 128 - code)
        command.console.print(f"[dim]{time.monotonic() - begun:.0f} s[/]", highlight=False)
    _show_results(home, time.monotonic() - started)


def _show_results(home: Path, seconds: float) -> None:
    from longflow.demo.run import attainable_nrmse, forecast_folder, raw_folder
    from longflow.files import read_json

    metrics = read_json(forecast_folder(home) / "metrics.json")["overall"]
    lci = metrics["lci"]["nrmse"]["mean"]
    table = Table("forecast by", "NRMSE", "of LCI", title="Held-out subjects, each forecast against the scan taken")
    for name, value in (
        ("last context image (LCI)", lci),
        ("mean of the context", metrics["context_mean"]["nrmse"]["mean"]),
        ("the trained network", metrics["forecast"]["nrmse"]["mean"]),
        ("the law itself (the noise is left)", attainable_nrmse(raw_folder(home))),
    ):
        table.add_row(name, f"{value:.4f}", f"{value / lci:.2f} x")
    command.console.print()
    command.console.print(table)

    better = metrics["better_than_lci"]
    figures = sorted(forecast_folder(home).rglob("*.png"))
    lines = [
        f"Better than LCI in {better['better']} of {better['targets']} targets. Time: {seconds / 60:.1f} min.",
        "",
        *(f"figure      {figure}" for figure in figures),
        f"forecasts   {forecast_folder(home)}",
        f"numbers     {forecast_folder(home) / 'metrics.csv'}",
        f"raw data    {raw_folder(home)}",
        f"models      {home / 'results'}",
        "",
        "With your own scans: make a folder like the raw data above (dataset.json, scans.csv with the columns",
        "case,subject,time, and imagesTr), or import one with longflow_import; set LONGFLOW_HOME to the folder above",
        "raw, then run the same commands with your dataset's number.",
    ]
    command.console.print("\n".join(lines), highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_demo``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
