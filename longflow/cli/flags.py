"""Flags that several commands have, and the values that flags take."""

import argparse
import re
from collections.abc import Callable
from typing import get_args

from longflow.errors import ConfigurationError
from longflow.paths import PLANS_NAME, name_of_plans


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """``-d``."""
    parser.add_argument("-d", "--dataset", required=True, help="101 or Dataset101_Name")


def add_plans(parser: argparse.ArgumentParser, planning: bool = False) -> None:
    """``-p``: a name of plans; of a file, as of a reference plan, its name is what counts once there are plans.

    :param planning: the command makes the plans, so it is given the file.
    """
    parser.add_argument(
        "-p",
        "--plans",
        default=PLANS_NAME,
        type=str if planning else name_of_plans,
        metavar="NAME|FILE",
        help="name of the plans (default: %(default)s), or a reference plan, as plans/acdc.json",
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """``-np`` of commands whose work is a piece for each subject."""
    parser.add_argument(
        "-np",
        "--processes",
        type=positive(int),
        metavar="N",
        help="at most so many worker processes (default: one for each core)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``; :func:`checked_device` reads it."""
    parser.add_argument("--device", help="cpu, cuda, mps (default: a GPU where there is one)")


def add_model(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add ``-c``, ``-m`` and ``-f``, which select a trained model. :param purpose: what the folds are for."""
    parser.add_argument("-c", "--configuration", help="default: what longflow_find_best recorded, or the only one")
    parser.add_argument("-m", "--method", help="likewise")
    parser.add_argument(
        "-f", "--folds", type=int, nargs="+", help=f"folds to {purpose} (default: all that are trained)"
    )


def add_prediction_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--solver``, ``--steps``, ``--mirror`` and ``--device``."""
    from longflow.plans import Solver

    parser.add_argument(
        "--solver",
        choices=get_args(Solver),
        help="of a method with a flow (default: what longflow_find_best recorded, else the plans')",
    )
    parser.add_argument("--steps", type=positive(int), help="steps of the solver (default: likewise)")
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average over mirrored inputs, 8 times the work in 3D (default: as the method has it)",
    )
    add_device(parser)


def checked_device(name: str | None) -> str:
    """A device that exists; by default a GPU where there is one.

    :raises ConfigurationError: torch cannot use it here.
    """
    import torch

    from longflow.networks.precision import default_device

    if name is None:
        return str(default_device())
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"The device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return name


def duration(text: str) -> float:
    """``90s``, ``20m``, ``2h``, ``1.5d`` or a number of seconds to seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time; examples: 90s, 20m, 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def positive(kind: type) -> Callable[[str], float]:
    """A parser of numbers above zero, ``int`` or ``float``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from error
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    return parse


def count(text: str) -> int:
    """A whole number from zero on."""
    return 0 if text == "0" else positive(int)(text)
