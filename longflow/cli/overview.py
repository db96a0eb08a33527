"""``longflow``: the commands in the order of use."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from longflow import __version__
from longflow.cli import command

EXAMPLE = """
longflow
longflow_demo
longflow_plan_and_preprocess --help
"""

#: command, what it does; in the order of use
COMMANDS = (
    ("longflow_demo", "run everything on a phantom cohort, in minutes"),
    ("longflow_import", "write a raw dataset from 4D NIfTI or ACDC"),
    ("longflow_verify", "show all problems of a raw dataset"),
    ("longflow_register", "bring a subject's scans into correspondence"),
    ("longflow_plan_and_preprocess", "longflow_verify and these three, in one:"),
    ("  longflow_extract_fingerprint", "what the data are like"),
    ("  longflow_plan", "decide time scale, patch, batch, network"),
    ("  longflow_preprocess", "crop, resample, bring to the normal form"),
    ("longflow_train", "train a method on one fold or all"),
    ("longflow_find_best", "choose the model by cross-validation"),
    ("longflow_predict", "forecast, segment or translate scans"),
    ("longflow_evaluate", "measure forecasts, segmentations, translations"),
    ("longflow_compare", "train, compare forecasting methods and studies"),
    ("longflow_translate_dataset", "write a dataset's images in another phase"),
    ("longflow_export", "write a segmentation as nnU-Net's model folder"),
)


def parser() -> command.Parser:
    result = command.Parser("longflow", "The commands of longflow, in the order of use.", EXAMPLE)
    result.add_argument("--version", action="version", version=f"longflow {__version__}")
    return result


def work(options: argparse.Namespace) -> None:
    console = command.console
    console.print(
        f"longflow {__version__}: from dated scans to the scan at another date or in another phase.\n", highlight=False
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, summary in COMMANDS:
        table.add_row(name, summary)
    console.print(table, soft_wrap=False)
    console.print(
        "\nEach has --help with an example. Data lie in LONGFLOW_HOME, or in longflow_raw, longflow_preprocessed and "
        "longflow_results.\nFor research; not for clinical decisions.",
        highlight=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
