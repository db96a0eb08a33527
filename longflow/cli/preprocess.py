"""longflow_preprocess: scans to the grid and normal form of the plans."""

import argparse
from collections.abc import Sequence

from longflow.cli import command
from longflow.paths import PLANS_NAME

EXAMPLE = """
longflow_preprocess -d 101
longflow_preprocess -d 101 -c 3d_fullres -np 4
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_preprocess",
        "Crop, resample and normalise the training scans of a dataset as its plans say. Subjects that are done are "
        "kept: after an interruption, the same command goes on.",
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", required=True, help="id or name, as 101 or Dataset101_Cine")
    result.add_argument("-c", "--configurations", nargs="+", metavar="NAME", help="default: all of the plans")
    result.add_argument("-p", "--plans", default=PLANS_NAME, metavar="NAME", help="default: %(default)s")
    result.add_argument(
        "-np", "--processes", type=int, metavar="N", help="default: all cores, fewer if memory is short"
    )
    result.add_argument("--overwrite", action="store_true", help="prepare every subject again")
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.cli.progress import progress_bar
    from longflow.paths import resolve_dataset_name
    from longflow.preprocessing.run import preprocess_dataset

    name = resolve_dataset_name(options.dataset)
    with progress_bar("Preprocessing") as progress:
        summary = preprocess_dataset(
            name, options.plans, options.configurations, options.processes, options.overwrite, progress
        )
    command.console.print(
        f"{name}: {summary.prepared} subjects prepared, {summary.kept} kept; "
        f"{summary.size / 1e9:.2f} GB in {', '.join(str(folder) for folder in summary.folders)}",
        highlight=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    return command.run(parser(), work, arguments)
