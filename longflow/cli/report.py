"""``longflow_report``: write the report of a dataset, and the timeline report of a folder of predictions."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths, resolve_dataset_name

EXAMPLE = """
longflow_report -d 101                  # the dataset: data, plan, trainings, results, model card
longflow_report -d 101 -i out           # both: the held-out results are those of the folder
longflow_report -i out                  # out/report/index.html, and a page for each subject
longflow_report -i out -r in follow_up  # the acquired scans are in these folders
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_report",
        "Write reports as HTML: one file of a dataset (-d) with its data, plan, trainings, results and model card, and "
        "for a folder of predictions (-i) one file for each subject with its scans and predictions over time. They "
        "open in any browser, without a network. For research only, not for clinical decisions.",
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", help="101 or Dataset101_Name")
    result.add_argument("-i", "--input", type=Path, help="folder that longflow_predict wrote")
    flags.add_references(
        result,
        "folders with the acquired scans (default: OUTPUT/scans of DICOM, or else the dataset of the model)",
    )
    return result


def work(options: argparse.Namespace) -> None:
    if options.dataset is None and options.input is None:
        raise ConfigurationError(
            "A report of what? Give a dataset (-d 101), a folder of predictions (-i out), or both."
        )
    if options.reference and options.input is None:
        raise ConfigurationError("-r is for the predictions of -i. Give their folder, or omit -r.")
    references = flags.checked_references(options)
    paths = None if options.dataset is None else DatasetPaths(resolve_dataset_name(options.dataset))
    if options.input is not None:
        write_report(options.input, references)
    if paths is not None:
        write_dataset_report(paths, options.input)


def write_dataset_report(paths: DatasetPaths, predictions: Path | None) -> None:
    """Write the report of a dataset, and say where it is. :param predictions: held-out predictions, or None."""
    command.set_up_process()
    with command.importing():
        from longflow.report import cohort
    command.say(f"Report: {cohort.write_cohort_report(paths, predictions)}")


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
