"""``longflow_evaluate``: compare predictions with references."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import NotFoundError
from longflow.paths import DatasetPaths, resolve_dataset_name
from longflow.task import get_task

EXAMPLE = """
longflow_evaluate -d 101 -i out
longflow_evaluate -d 101 -i out -r follow_up_scans
longflow_evaluate -d 103 -i labels_out
longflow_evaluate -d 104 -i out
longflow_evaluate -d 104 -i back -r out
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_evaluate",
        f"Compare predictions with references. {flags.task_help('evaluate')} Writes metrics.csv, metrics.json and "
        "figures into the folder of the predictions.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument("-i", "--input", required=True, type=Path, help="folder that longflow_predict wrote")
    result.add_argument(
        "-r",
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        help="folders with acquired scans (or reference label maps), searched before the dataset's targetsTs, imagesTs "
        "and imagesTr (or labelsTs and labelsTr)",
    )
    flags.add_processes(result)
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.data.dataset import read_description
    from longflow.evaluation.evaluation import EvaluationJob

    raw = DatasetPaths(resolve_dataset_name(options.dataset)).raw
    if missing := [str(folder) for folder in options.reference if not folder.is_dir()]:
        raise NotFoundError(f"The folder of -r does not exist: {', '.join(missing)}.")
    description = read_description(raw / "dataset.json")
    job = EvaluationJob(options.input, tuple(options.reference), raw, description, options.processes)
    with progress_bar("Evaluating") as progress:
        evaluation = get_task(description.task).evaluate(job, progress)
    evaluation.show(command.console)
    command.console.print(f"Written: {', '.join(evaluation.written)} in {options.input}", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_evaluate``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
