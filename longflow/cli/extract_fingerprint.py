"""``longflow_extract_fingerprint``: what a dataset is like."""

import argparse
from collections.abc import Sequence

from longflow.cli import command
from longflow.cli.progress import progress_bar
from longflow.paths import DatasetPaths, resolve_dataset_name

EXAMPLE = """
longflow_extract_fingerprint -d 101
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_extract_fingerprint",
        "Read all training scans of a dataset and write down its shapes, spacings, intensities and times.",
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", required=True, help="id or name of the dataset, as 101")
    result.add_argument("-np", "--processes", type=int, help="worker processes (default: all cores)")
    result.add_argument("--overwrite", action="store_true", help="make it anew although it is up to date")
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.fingerprint.fingerprint import extract_fingerprint

    name = resolve_dataset_name(options.dataset)
    with progress_bar(f"Fingerprint of {name}") as progress:
        extract_fingerprint(name, options.processes, options.overwrite, progress)
    command.console.print(f"Fingerprint: {DatasetPaths(name).fingerprint}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    return command.run(parser(), work, arguments)
