"""Flags that several commands have, and the parsers of their values."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from longflow.errors import ConfigurationError, NotFoundError
from longflow.paths import PLANS_NAME, name_of_plans
from longflow.reading import parse_number
from longflow.task import all_tasks


def task_help(command: str) -> str:
    """Return the sentences that the tasks add to the help of a command. :param command: without ``longflow_``."""
    return " ".join(task.words.help[command] for task in all_tasks() if command in task.words.help)


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Add ``-d``."""
    parser.add_argument("-d", "--dataset", required=True, help="101 or Dataset101_Name")


def add_plans(parser: argparse.ArgumentParser, planning: bool = False) -> None:
    """Add ``-p``: the name of plans, or the file of a reference plan, whose name the plans get.

    :param planning: the command makes the plans and needs the file; others get its name.
    """
    parser.add_argument(
        "-p",
        "--plans",
        default=PLANS_NAME,
        type=str if planning else name_of_plans,
        metavar="NAME|FILE",
        help="name of the plans (default: %(default)s), or the file of a reference plan, as plans/acdc.json",
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add ``-np`` for commands that work subject by subject."""
    parser.add_argument(
        "-np",
        "--processes",
        type=positive(int),
        metavar="N",
        help="highest number of worker processes (default: one for each core)",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``; :func:`checked_device` reads it."""
    parser.add_argument("--device", help="cpu, cuda, mps (default: a GPU where there is one)")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``-np`` for commands that train."""
    parser.add_argument(
        "-np",
        "--workers",
        type=count,
        metavar="N",
        help="processes that prepare batches of a training (default: by cores and device)",
    )


def add_model(parser: argparse._ActionsContainer, purpose: str) -> None:
    """Add ``-c``, ``-m`` and ``-f``, which select a trained model. :param purpose: what the folds are for."""
    parser.add_argument("-c", "--configuration", help="default: what longflow_find_best recorded, or the only one")
    parser.add_argument("-m", "--method", help="likewise")
    parser.add_argument(
        "-f", "--folds", type=number(int), nargs="+", help=f"folds to {purpose} (default: all that are trained)"
    )


def add_segmenter(parser: argparse._ActionsContainer, required: bool = False, further: str = "") -> None:
    """Add ``--structures``, also spelled ``--segmenter``: the dataset of a model that segments.

    :param further: end of the help.
    """
    parser.add_argument(
        "--structures",
        "--segmenter",
        dest="segmenter",
        metavar="DATASET",
        required=required,
        help=f"103 or Dataset103_Name: a dataset with a trained model that segments{further}",
    )


def add_references(parser: argparse._ActionsContainer, help_text: str) -> None:
    """Add ``-r``: folders of references.

    :param help_text: what they hold, and when they are searched.
    """
    parser.add_argument("-r", "--reference", type=Path, nargs="+", default=[], help=help_text)


def checked_references(options: argparse.Namespace) -> tuple[Path, ...]:
    """Return the folders of ``-r``.

    :raises NotFoundError: one does not exist.
    """
    if missing := [str(folder) for folder in options.reference if not folder.is_dir()]:
        raise NotFoundError(f"The folder of -r does not exist: {', '.join(missing)}.")
    return tuple(options.reference)


def add_prediction_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--solver``, ``--steps``, ``--mirror`` and ``--device``."""
    from longflow.plans import Solver

    parser.add_argument(
        "--solver",
        choices=get_args(Solver),
        help="of a method with a flow (default: what longflow_find_best recorded, else the plans')",
    )
    parser.add_argument(
        "--steps",
        type=positive(int),
        help="steps of the solver (default: likewise, or as few as training found to be equal to the plans')",
    )
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average over mirrored inputs, 8 times the work in 3D (default: as the method has it)",
    )
    add_device(parser)


def checked_device(name: str | None) -> str:
    """Check that torch can use a device.

    :param name: None: a GPU where there is one, else the CPU.
    :raises ConfigurationError: torch cannot use it on this machine.
    """
    import torch

    from longflow.networks.precision import default_device

    if name is None:
        return str(default_device())
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"The device '{name}' cannot be used on this machine: {str(error).splitlines()[0]}"
        ) from error
    return name


def duration(text: str) -> float:
    """Parse ``90s``, ``20m``, ``2h``, ``1.5d`` or a number of seconds. :returns: seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time; examples: 90s, 20m, 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def number(kind: type) -> Callable[[str], float]:
    """Return a parser of finite numbers in digits; 1_0 is none. :param kind: ``int`` or ``float``."""

    def parse(text: str) -> float:
        try:
            if parse_number(text) is None:
                raise ValueError
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from error

    return parse


def positive(kind: type) -> Callable[[str], float]:
    """Return a parser of numbers above zero. :param kind: ``int`` or ``float``."""

    def parse(text: str) -> float:
        value = number(kind)(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    return parse


def count(text: str) -> int:
    """Parse a whole number from zero on."""
    return 0 if text == "0" else positive(int)(text)


def add_dicom_settings(result: argparse._ActionsContainer) -> None:
    """Add ``--label_map`` and ``--no_burned_in_text``, which say how DICOM is written."""
    result.add_argument(
        "--label_map",
        action="store_true",
        help="write labels as one DICOM label map (new in the standard, few viewers read it), not as binary segments",
    )
    result.add_argument(
        "--no_burned_in_text",
        action="store_true",
        help="do not write 'SYNTHETIC, research only' into the pixels of the first slice of synthetic images",
    )
