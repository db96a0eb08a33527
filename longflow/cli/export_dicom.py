"""``longflow_export_dicom``: write predictions as DICOM objects that a PACS stores and shows."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar

EXAMPLE = """
longflow_export_dicom -d 101 -i out -r EXPORT -o dicom      # out: predictions; EXPORT: the DICOM series of the scans
longflow_export_dicom -d 101 -i out -r EXPORT -o dicom --label_map
storescu +sd +r -aec PACS pacs.example.org 104 dicom        # with DCMTK: send everything
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_export_dicom",
        "Write predictions as DICOM: label maps as segmentations (SEG), volumes over time as a structured report and a "
        "picture, forecasts and translations as series of their modality. Patient and study are those of the scans. "
        "For research only, not for clinical decisions.",
        EXAMPLE,
    )
    result.add_argument("-i", "--input", type=Path, required=True, help="folder that longflow_predict wrote")
    result.add_argument("-r", "--reference", type=Path, required=True, help="folder with the DICOM series of the scans")
    result.add_argument("-o", "--output", type=Path, required=True, help="folder for the DICOM files")
    result.add_argument(
        "-d",
        "--dataset",
        help="101 or Dataset101_Name: the dataset that was imported from DICOM (not needed after longflow_predict "
        "--dicom)",
    )
    result.add_argument(
        "--review",
        type=Path,
        help="folder of the tables of that import (default: review_Dataset101_Name next to the dataset)",
    )
    flags.add_dicom_settings(result)
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.dicom.libraries import require_dicom

    require_dicom()
    from longflow.dicom.export import Settings, export_folder
    from longflow.dicom.files import read_export
    from longflow.dicom.sources import files_by_uid
    from longflow.paths import DatasetPaths, resolve_dataset_name, review_folder

    raw = DatasetPaths(resolve_dataset_name(options.dataset)).raw if options.dataset else None
    review = options.review or (review_folder(raw) if raw else None)
    with progress_bar("Reading headers") as progress:
        files = files_by_uid(read_export(options.reference, progress=progress))
    with progress_bar("Writing DICOM") as progress:
        written = export_folder(options.input, options.output, files, raw, review, Settings.of_flags(options), progress)
    command.say(f"{written} in {options.output}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_export_dicom``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
