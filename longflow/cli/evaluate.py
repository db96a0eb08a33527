"""``longflow_evaluate``: compare predictions with references."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths, resolve_dataset_name
from longflow.task import Task, get_task

if TYPE_CHECKING:
    from longflow.inference.selection import Selection

EXAMPLE = """
longflow_evaluate -d 101 -i out
longflow_evaluate -d 101 -i out -r follow_up_scans
longflow_evaluate -d 101 -i out --segmenter 103    # volumes and Dice of forecasts, segmented by a model of dataset 103
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
    flags.add_references(
        result,
        "folders with acquired scans (or reference label maps), searched before the dataset's targetsTs, imagesTs "
        "and imagesTr (or labelsTs and labelsTr)",
    )
    flags.add_processes(result)
    group = result.add_argument_group(
        "structures of forecasts and translations",
        "Predictions, baselines and acquired scans are segmented by one trained model. Their volumes and Dice (of "
        "forecasts also changes of volume) are written to metrics_structures.csv. Label maps of the dataset, or of -r, "
        "are a reference.",
    )
    flags.add_segmenter(group, further="; -c, -m and -f choose the model")
    flags.add_model(group, "average")
    flags.add_device(group)
    return result


def selected_segmenter(options: argparse.Namespace, task: Task) -> "Selection | None":
    """Select the model that segments; None where none is given.

    :param task: of the predictions.
    :raises ConfigurationError: the task does not use one, or flags of a model are given without it.
    :raises LongflowError: nothing trained fits.
    """
    given = [flag for flag in ("configuration", "method", "folds", "device") if getattr(options, flag) is not None]
    if options.segmenter is None:
        if given:
            raise ConfigurationError(f"--{given[0]} is for the model that segments. Name its dataset with --segmenter.")
        return None
    if not task.evaluates_structures:
        raise task.no_segmenter(in_evaluation=True)
    command.set_up_process()
    with command.importing():
        from longflow.inference.selection import select

    folds = None if options.folds is None else tuple(options.folds)
    return select(options.segmenter, options.configuration, options.method, folds)


def work(options: argparse.Namespace) -> None:
    from longflow.data.dataset import read_description
    from longflow.evaluation.evaluation import EvaluationJob

    raw = DatasetPaths(resolve_dataset_name(options.dataset)).raw
    references = flags.checked_references(options)
    description = read_description(raw / "dataset.json")
    task = get_task(description.task)
    segmenter = selected_segmenter(options, task)
    device = flags.checked_device(options.device) if segmenter else None
    job = EvaluationJob(options.input, references, raw, description, options.processes, segmenter, device)
    with progress_bar("Evaluating") as progress:
        evaluation = task.evaluate(job, progress)
    evaluation.show(command.console)
    command.say(f"Written: {', '.join(evaluation.written)} in {options.input}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_evaluate``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
