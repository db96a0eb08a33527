"""``longflow_report``: write the timeline report of a folder of predictions."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command
from longflow.cli.progress import progress_bar
from longflow.errors import NotFoundError

EXAMPLE = """
longflow_report -i out                  # out/report/index.html, and a page for each subject
longflow_report -i out -r in follow_up  # the acquired scans are in these folders
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_report",
        "Write a report of predictions: for each subject one HTML file with its scans and predictions over time. It "
        "opens in any browser, without a network. For research only, not for clinical decisions.",
        EXAMPLE,
    )
    result.add_argument("-i", "--input", type=Path, required=True, help="folder that longflow_predict wrote")
    result.add_argument(
        "-r",
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        help="folders with the acquired scans (default: OUTPUT/scans of DICOM, or else the dataset of the model)",
    )
    return result


def work(options: argparse.Namespace) -> None:
    if missing := [str(folder) for folder in options.reference if not folder.is_dir()]:
        raise NotFoundError(f"The folder of -r does not exist: {', '.join(missing)}.")
    write_report(options.input, options.reference)


def write_report(folder: Path, references: Sequence[Path]) -> None:
    """Write the report of a folder, and say where it is. :param references: folders with acquired scans."""
    with command.importing():
        from longflow.report import pages
    with progress_bar("Writing the report") as progress:
        index = pages.write_report(folder, references, progress)
    command.say(f"Report: {index}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_report``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
