"""``longflow``: list the commands in the order of use."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from longflow import __version__
from longflow.cli import command
from longflow.commands import COMMANDS, PARTS_OF_PLANNING

EXAMPLE = """
longflow
longflow_demo
longflow_plan_and_preprocess --help
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser("longflow", "List the commands of longflow, in the order of use.", EXAMPLE)
    result.add_argument("--version", action="version", version=f"longflow {__version__}")
    return result


def rows() -> list[tuple[str, str]]:
    """Return name and summary of every command but this one; parts of another command are indented."""
    return [(f"  {name}" if name in PARTS_OF_PLANNING else name, summary) for name, _, summary in COMMANDS[1:]]


def work(options: argparse.Namespace) -> None:
    """Print the list."""
    console = command.console
    console.print(
        f"longflow {__version__}: from dated scans to the scan at another date or in another phase.\n", highlight=False
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for row in rows():
        table.add_row(*row)
    console.print(table, soft_wrap=False)
    console.print(
        "\nEach has --help with an example. Data are in LONGFLOW_HOME, or in longflow_raw, longflow_preprocessed and "
        "longflow_results.\nFor research; not for clinical decisions.",
        highlight=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
