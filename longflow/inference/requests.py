"""The predictions that a folder requests, for any task; image files are not opened."""

import logging
from pathlib import Path
from typing import Any, Protocol

from longflow.data.dataset import DatasetDescription, Scan, Series, image_path, series_of_folder
from longflow.errors import DataError, first_few
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
    :raises DataError: there is no scan; a scan lacks a channel or has one too many.
    """
    all_series = input_series(folder, description)
    if problems := [line for series in all_series for line in wrong_channels(series, description)]:
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


def input_series(folder: Path, description: DatasetDescription) -> list[Series]:
    """Read the table of an input folder.

    :raises DataError: there is no such folder, its table is wrong, or none of its images exists.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist or is not a folder.")
    all_series = series_of_folder(folder, description)
    _check_any_image(all_series, folder)
    return all_series


def _check_any_image(all_series: list[Series], folder: Path) -> None:
    """Refuse a folder without a single image, with one message instead of one for each row."""
    expected = [path for series in all_series for scan in series.scans for path in scan.images]
    if expected and not any(path.is_file() for path in expected):
        names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        raise DataError(
            f"{folder} has a table but none of its images. Expected {expected[0].name} and so on; the folder holds "
            f"{first_few(names, most=4)}. Give the folder of the images, as imagesTs. Capital letters count."
        )


def wrong_channels(series: Series, description: DatasetDescription) -> list[str]:
    """Describe the wrong channels of a subject's scans.

    :returns: a line for each channel that a scan lacks, and for each scan with more channels than the model.
    """
    problems = []
    for scan in series.scans:
        if not any(path.is_file() for path in scan.images):
            continue
        problems += [
            f"  {scan.case}: the file {path.name} is missing, but other channels of the scan exist. Channels of the "
            f"model: {', '.join(description.channels)}."
            for path in scan.images
            if not path.is_file()
        ]
        further = image_path(scan.images[0].parent, scan.case, len(description.channels), description)
        if further.is_file():
            problems.append(
                f"  {scan.case}: {further.name} is one channel too many. Channels of the model: "
                f"{', '.join(description.channels)}."
            )
    return problems
