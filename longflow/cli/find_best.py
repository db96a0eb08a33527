"""``longflow_find_best``: choose the model to predict with on the cross-validation."""

import argparse
from collections.abc import Sequence

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.files import exclusive_lock
from longflow.paths import DatasetPaths, lock_beside, resolve_dataset_name
from longflow.task import get_task

EXAMPLE = """
longflow_find_best -d 101
longflow_find_best -d 103 --no_ensembles           # single models alone; nothing is segmented again
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_find_best",
        "Choose the model to predict with on the cross-validation, and write the choice down for longflow_predict. "
        + flags.task_help("find_best"),
        EXAMPLE,
    )
    flags.add_dataset(result)
    flags.add_processes(result)
    result.add_argument(
        "--no_ensembles",
        action="store_true",
        help="compare single models alone (default: means of two models, too. Where models segment, this takes the "
        "time of segmenting their validation scans again)",
    )
    return result


def work(options: argparse.Namespace) -> None:
    command.set_up_process()
    from longflow.data.dataset import read_description

    dataset = DatasetPaths(resolve_dataset_name(options.dataset))
    task = get_task(read_description(dataset.raw / "dataset.json").task)
    doing = f"The best model of {dataset.name} is being chosen"
    with exclusive_lock(lock_beside(dataset.best), doing), progress_bar("Reading predictions") as progress:
        best = task.find_best(dataset, options.processes, progress, not options.no_ensembles)
    task.show_best(best, command.console)
    tables = [dataset.best_table.name, *([dataset.best_solvers.name] if best.get("solvers") else [])]
    command.say(f"Written: {dataset.best}, {', '.join(tables)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_find_best``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
