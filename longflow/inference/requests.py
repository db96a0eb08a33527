"""What a folder asks to be predicted, whatever the task; files are not opened."""

import logging
from pathlib import Path
from typing import Any, Protocol

from longflow.data.dataset import DatasetDescription, Scan, Series, image_path, series_of_folder
from longflow.errors import DataError, first_few
from longflow.task import Words

logger = logging.getLogger(__name__)


class Request(Protocol):
    """One prediction to make, of whatever task.

    :param target: what is written, as it will stand in the output's scans.csv.
    """

    target: Scan

    def provenance(self) -> dict[str, Any]:
        """What is made from what, as it stands in a sidecar: a prediction made from other scans is made anew."""
        ...


def scans_with_images(folder: Path, description: DatasetDescription, words: Words) -> list[Scan]:
    """Every scan that has images; rows without an image (wanted forecasts) are left out, and said so."""
    all_series = input_series(folder, description)
    if problems := [line for series in all_series for line in wrong_channels(series, description)]:
        raise DataError(f"{folder} cannot be {words.done}:\n" + "\n".join(problems))
    scans = [scan for series in all_series for scan in series.scans]
    found = [scan for scan in scans if scan.exists]
    if not found:
        raise DataError(
            f"{folder} has no scan to {words.verb}: its scans.csv has no row with an image. Expected for each row the "
            f"file "
            f"{{case}}_0000{description.file_ending}."
        )
    if missing := [scan.case for scan in scans if not scan.exists]:
        logger.info("Rows without an image are left out: %s.", first_few(missing))
    return found


def input_series(folder: Path, description: DatasetDescription) -> list[Series]:
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist or is not a folder.")
    all_series = series_of_folder(folder, description)
    _check_any_image(all_series, folder)
    return all_series


def _check_any_image(all_series: list[Series], folder: Path) -> None:
    """Without a single image, the folder or the names are wrong: said once, not for every row."""
    expected = [path for series in all_series for scan in series.scans for path in scan.images]
    if expected and not any(path.is_file() for path in expected):
        held = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        raise DataError(
            f"{folder} has a table but none of its images. Looked for {expected[0].name} and so on; the folder holds "
            f"{first_few(held, most=4)}. Give the folder of the images, as imagesTs, and "
            "mind capital letters."
        )


def wrong_channels(series: Series, description: DatasetDescription) -> list[str]:
    """A line for each channel that a scan lacks, and for each scan with more channels than the model."""
    problems = []
    for scan in series.scans:
        if not any(path.is_file() for path in scan.images):
            continue
        problems += [
            f"  {scan.case}: the file {path.name} is missing, while other channels of the scan are there. Channels of "
            f"the model: {', '.join(description.channels)}."
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
