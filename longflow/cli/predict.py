"""``longflow_predict``: forecast the wanted scans of a folder, or translate or segment those that are there."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.plans import Solver

EXAMPLE = """
longflow_predict -i in -o out                      # rows of in/scans.csv without an image are forecast
longflow_predict -i in -o out -t 365 730           # these times, for every subject
longflow_predict -i in -o out -d 101 -m tfm -f 0   # a certain model
longflow_predict -i in -o out --hide_context last:2   # as if the last two scans before each target were missing
longflow_predict -i in -o out -d 103               # a model that segments: labels of every scan, and volumes.csv
longflow_predict -i in -o out -d 104 --to native   # a model that translates: arterial scans (scans.csv) to native ones
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_predict",
        "Forecast the wanted scans of a folder, or translate or segment those that are there, as the model was trained "
        "to. Finished ones are skipped when the command is run again. "
        "For research only, not for clinical decisions.",
        EXAMPLE,
    )
    result.add_argument("-i", "--input", type=Path, required=True, help="folder with images and scans.csv")
    result.add_argument("-o", "--output", type=Path, required=True, help="folder for the predictions")
    result.add_argument(
        "-t",
        "--times",
        type=time,
        nargs="+",
        default=(),
        help="wanted times for every subject, in the dataset's time unit; for forecasts",
    )
    result.add_argument(
        "--hide_context",
        metavar="first:K|last:K",
        help="forecast without the first or the last K of the scans that a forecast would be made from, to see what "
        "they are worth",
    )
    result.add_argument(
        "--to",
        metavar="PHASE",
        help="wanted contrast phase, for translations; the phase of each scan stands in scans.csv (default: the other "
        "one, where all scans are in one phase)",
    )
    result.add_argument("-d", "--dataset", help="101 or Dataset101_Name (default: the one with a trained model)")
    result.add_argument("-c", "--configuration", help="default: what longflow_find_best recorded, or the only one")
    result.add_argument("-m", "--method", help="likewise")
    result.add_argument("-f", "--folds", type=int, nargs="+", help="folds to average (default: all that are trained)")
    result.add_argument(
        "--solver",
        choices=get_args(Solver),
        help="of a flow that forecasts or translates (default: what longflow_find_best recorded, else the plans')",
    )
    result.add_argument("--steps", type=flags.positive(int), help="steps of the solver (default: likewise)")
    result.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average over mirrored inputs, 8 times the work in 3D (default: as the method has it)",
    )
    flags.add_device(result)
    result.add_argument("--overwrite", action="store_true", help="make finished predictions anew")
    return result


def time(text: str) -> float:
    """A time of ``-t``."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number. Times count in the time unit of the dataset, from the same day as scans.csv "
            "(365, not a date), with decimals after a point"
        ) from error


def work(options: argparse.Namespace) -> None:
    command.set_up_process()
    from longflow.inference.predictor import Asked, predict_folder
    from longflow.inference.selection import select
    from longflow.inference.tasks import load_predictor
    from longflow.tasks.forecast.hidden_context import HiddenContext

    hidden = HiddenContext.of(options.hide_context) if options.hide_context is not None else None
    folds = None if options.folds is None else tuple(options.folds)
    selection = select(options.dataset, options.configuration, options.method, folds)
    device = flags.checked_device(options.device)
    predictor = load_predictor(selection, device, options.mirror, options.solver, options.steps)
    for member in selection.members:
        folds = ", ".join(map(str, member.folds))
        command.console.print(
            f"Model: {selection.dataset.name} / {member.model.folder.name}, folds {folds} ({selection.origin})",
            highlight=False,
        )
    asked = Asked(tuple(options.times), options.to, hidden)
    with progress_bar(predictor.doing) as progress:
        wanted = predict_folder(predictor, options.input, options.output, asked, options.overwrite, progress)
    one, several = predictor.noun
    command.console.print(
        f"{len(wanted)} {one + ' is' if len(wanted) == 1 else several + ' are'} in {options.output}", highlight=False
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_predict``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
