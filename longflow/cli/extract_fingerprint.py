"""``longflow_extract_fingerprint``: measure a dataset."""

import argparse
from collections.abc import Sequence

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.paths import DatasetPaths, resolve_dataset_name

EXAMPLE = """
longflow_extract_fingerprint -d 101
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_extract_fingerprint",
        "Read all training scans of a dataset and record its shapes, spacings, intensities and times.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    flags.add_processes(result)
    result.add_argument("--overwrite", action="store_true", help="make it from scratch although it is up to date")
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.fingerprint.fingerprint import extract_fingerprint

    name = resolve_dataset_name(options.dataset)
    with progress_bar(f"Fingerprint of {name}") as progress:
        extract_fingerprint(name, options.processes, options.overwrite, progress)
    command.say(f"Fingerprint: {DatasetPaths(name).fingerprint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_extract_fingerprint``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
