"""The predictions that a folder requests, for any task; image files are not opened."""

import logging
from pathlib import Path
from typing import Any, Protocol

from longflow.data.dataset import DatasetDescription, Scan, Series, series_of_folder
from longflow.errors import DataError, first_few
from longflow.integrity.prediction import verify_input
from longflow.integrity.problems import as_lines
from longflow.task import Words

logger = logging.getLogger(__name__)


class Request(Protocol):
    """One prediction to make, of any task.

    :param target: the scan that is written, as a row of the output's scans.csv.
    """

    @property
    def target(self) -> Scan: ...

    def provenance(self) -> dict[str, Any]:
        """Return the fields of the sidecar that say from what the prediction is made.

        A finished prediction with other values is made again.
        """
        ...


def scans_with_images(folder: Path, description: DatasetDescription, words: Words) -> list[Scan]:
    """List the scans of a folder that have images; rows without an image are excluded, and named in the log.

    :param words: of the task, for messages.
    :raises DataError: there is no scan; the names or the table are wrong, as a scan that lacks a channel.
    """
    all_series, problems = input_series(folder, description)
    if problems:
        raise DataError(f"{folder} cannot be {words.done}:\n" + "\n".join(problems))
    scans = [scan for series in all_series for scan in series.scans]
    existing = [scan for scan in scans if scan.exists]
    if not existing:
        raise DataError(
            f"{folder} has no scan to {words.verb}: no row of its scans.csv has an image. Expected for each row the "
            f"file {{case}}_0000{description.file_ending}."
        )
    if missing := [scan.case for scan in scans if not scan.exists]:
        logger.info("Rows without an image are excluded: %s.", first_few(missing))
    return existing


def input_series(folder: Path, description: DatasetDescription) -> tuple[list[Series], list[str]]:
    """Read the table of an input folder, and check it and the names of the files.

    :returns: the series; lines about the files whose names are wrong. Nothing may be predicted where there are any: a
        scan that was not found would be missing, or be requested.
    :raises DataError: there is no such folder, or its table is wrong.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist or is not a folder.")
    problems = as_lines([problem for problem in verify_input(folder, description) if problem.severity == "error"])
    try:
        return series_of_folder(folder, description), problems
    except DataError as error:
        raise DataError("\n".join([f"{folder} cannot be used:", *problems]) if problems else str(error)) from error
