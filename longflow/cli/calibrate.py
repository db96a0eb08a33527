"""``longflow_calibrate``: make intervals of the volumes of structures in forecasts."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.task import get_task

EXAMPLE = """
longflow_calibrate -d 101 --structures 103                 # forecasts of 101, segmented by the model of dataset 103
longflow_calibrate -d 101 --structures 103 --level 0.8     # intervals that hold for at least 80 % of new patients
longflow_calibrate -d 101 --structures 103 -m tfm -f 0     # of a certain model
longflow_calibrate -d 101 --structures 103 --retest pairs.csv  # and the noise of measurement, from pairs of scans
"""


def _level(text: str) -> float:
    value = flags.number(float)(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 1; example: 0.9")
    return value


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_calibrate",
        "Make intervals of the volumes of structures in forecasts, from the errors of out-of-fold forecasts. "
        "longflow_predict --structures then writes them to volumes.csv. Finished forecasts are kept when the command "
        "is run again.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    flags.add_segmenter(result, required=True)
    result.add_argument(
        "--level",
        type=_level,
        default=0.9,
        metavar="SHARE",
        help="of new patients for which an interval holds, at least; n subjects can give n / (n + 1) "
        "(default: %(default)s)",
    )
    result.add_argument(
        "--retest",
        type=Path,
        metavar="PAIRS",
        help="table with the columns case and repeat: pairs of scans of imagesTr, each of one subject, without change "
        "in between. They give the noise of measurement, and volumes.csv says which forecasts are changes",
    )
    flags.add_model(result, "calibrate")
    flags.add_device(result)
    return result


def work(options: argparse.Namespace) -> None:
    command.set_up_process()
    with command.importing():
        from longflow.evaluation.conformal import WRITTEN
        from longflow.inference.models import task_of
        from longflow.inference.selection import select

        folds = None if options.folds is None else tuple(options.folds)
        selection = select(options.dataset, options.configuration, options.method, folds)
        segmenter = select(options.segmenter)
        device = flags.checked_device(options.device)
    task = get_task(task_of(selection))
    with progress_bar("Calibrating") as progress:
        record = task.calibrate(selection, segmenter, options.level, device, progress, options.retest)
    task.show_calibration(record, command.console)
    command.say(f"Written: {', '.join(WRITTEN)} in {selection.dataset.calibration(segmenter.dataset.name)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_calibrate``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
