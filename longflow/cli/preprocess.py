"""``longflow_preprocess``: bring scans to the grid and the normal form of the plans."""

import argparse
import re
from collections.abc import Sequence

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.paths import resolve_dataset_name

EXAMPLE = """
longflow_preprocess -d 101
longflow_preprocess -d 101 -c 3d_fullres -np 4
longflow_preprocess -d 101 --part 2/4              # every fourth subject; other machines prepare the others
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_preprocess",
        "Crop, resample and normalise the training scans of a dataset according to its plans. Finished subjects are "
        "kept; after an interruption, the same command continues.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument("-c", "--configurations", nargs="+", metavar="NAME", help="default: all of the plans")
    flags.add_plans(result)
    flags.add_processes(result)
    result.add_argument(
        "--part", type=part, default=(1, 1), metavar="K/N", help="prepare the K-th of N parts of the subjects only"
    )
    result.add_argument("--overwrite", action="store_true", help="prepare every subject again")
    return result


def part(text: str) -> tuple[int, int]:
    """Parse ``2/4``: the second of four parts."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is no part; expected, for the second of four, 2/4")
    return int(match[1]), int(match[2])


def work(options: argparse.Namespace) -> None:
    """Preprocess the dataset."""
    from longflow.preprocessing.run import preprocess_dataset

    name = resolve_dataset_name(options.dataset)
    with progress_bar("Preprocessing") as progress:
        summary = preprocess_dataset(
            name, options.plans, options.configurations, options.processes, options.overwrite, progress, options.part
        )
    command.say(
        f"{name}: {summary.prepared} subjects prepared, {summary.kept} kept; "
        f"{summary.size / 1e9:.2f} GB in {', '.join(str(folder) for folder in summary.folders)}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_preprocess``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
