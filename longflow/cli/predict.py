"""longflow_predict: forecast the wanted scans of a folder."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command
from longflow.cli.train import checked_device, positive
from longflow.errors import ConfigurationError

EXAMPLE = """
longflow_predict -i in -o out                      # rows of in/scans.csv without an image are forecast
longflow_predict -i in -o out -t 365 730           # these times, for every subject
longflow_predict -i in -o out -d 101 -m tfm -f 0   # a certain model
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.Parser(
        "longflow_predict",
        "Forecast the wanted scans of a folder. Finished ones are skipped when the command is run again. "
        "For research only, not for clinical decisions.",
        EXAMPLE,
    )
    parser.add_argument("-i", "--input", type=Path, required=True, help="folder with images and scans.csv")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the forecasts")
    parser.add_argument(
        "-t",
        "--times",
        type=time,
        nargs="+",
        default=(),
        help="wanted times for every subject, in the dataset's time unit",
    )
    parser.add_argument("-d", "--dataset", help="101 or Dataset101_Name (default: the one with a trained model)")
    parser.add_argument("-c", "--configuration", help="default: what longflow_find_best recorded, or the only one")
    parser.add_argument("-m", "--method", help="likewise")
    parser.add_argument("-f", "--folds", type=int, nargs="+", help="folds to average (default: all that are trained)")
    parser.add_argument("--solver", choices=SOLVERS, help="default: from the plans")
    parser.add_argument("--steps", type=positive(int), help="steps of the solver (default: from the plans)")
    parser.add_argument("--mirror", action="store_true", help="average over mirrored inputs (8 times the work in 3D)")
    parser.add_argument("--device", help="cpu, cuda, mps (default: a GPU where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="make finished forecasts anew")
    return command.run(parser, work, arguments)


def time(text: str) -> float:
    """A time of ``-t``."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number. Times count in the time unit of the dataset, from the same day as scans.csv "
            "(365, not a date), with decimals after a point"
        ) from error


SOLVERS = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "dopri5")


def work(options: argparse.Namespace) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from longflow.cli.progress import progress_bar
    from longflow.inference.forecaster import Forecaster
    from longflow.inference.predictor import predict_folder

    if options.output.resolve() == options.input.resolve():
        raise ConfigurationError("Input and output are the same folder; forecasts would stand among the scans.")
    forecaster = Forecaster.load(
        options.dataset,
        options.configuration,
        options.method,
        options.folds,
        checked_device(options.device),
        options.solver,
        options.steps,
        options.mirror,
    )
    selection = forecaster.selection
    for member in selection.members:
        folds = ", ".join(map(str, member.folds))
        command.console.print(
            f"Model: {selection.dataset.name} / {member.model.folder.name}, folds {folds} ({selection.origin})",
            highlight=False,
        )
    with progress_bar("Forecasting") as progress:
        wanted = predict_folder(forecaster, options.input, options.output, options.times, options.overwrite, progress)
    command.console.print(
        f"{len(wanted)} forecast{'s are' if len(wanted) != 1 else ' is'} in {options.output}", highlight=False
    )


if __name__ == "__main__":
    raise SystemExit(main())
