"""Which forecasts a folder asks for, and from which scans; files are not opened."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.data.dataset import DatasetDescription, Scan, Series, image_path, series_of_folder
from longflow.errors import DataError, some


@dataclass(frozen=True)
class Wanted:
    """One forecast to make: the target's case, and the scans it is made from, in order of time."""

    target: Scan
    context: tuple[Scan, ...]

    @property
    def horizon(self) -> float:
        """Target time minus last context time, in time units."""
        return self.target.time - self.context[-1].time

    def described(self) -> dict[str, Any]:
        """What is forecast from what, as it stands in a sidecar."""
        return {
            "case": self.target.case,
            "subject": self.target.subject,
            "target_time": self.target.time,
            "horizon": self.horizon,
            "context": [scan.case for scan in self.context],
            "context_times": [scan.time for scan in self.context],
        }


def wanted_forecasts(
    folder: Path, description: DatasetDescription, times: Sequence[float], context_length: int
) -> list[Wanted]:
    """The forecasts that a folder asks for: its rows without an image, or ``times`` for every subject.

    :raises DataError: nothing is wanted; a scan lacks a channel; a target has no earlier scan.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist or is not a folder.")
    if strange := [time for time in times if not math.isfinite(time)]:
        raise DataError(f"The wanted time {strange[0]} is not a finite number.")
    wanted, problems = [], []
    all_series = series_of_folder(folder, description)
    _check_any_image(all_series, folder)
    for series in all_series:
        problems += _missing_channels(series)
        context = series.with_images().scans
        for target in _targets(series, times, folder, description):
            earlier = tuple(scan for scan in context if scan.time < target.time)[-context_length:]
            if earlier:
                wanted.append(Wanted(target, earlier))
            else:
                first = f"its first scan is at {context[0].time:g}" if context else "it has no scan with an image"
                problems.append(
                    f"  {target.case}: subject {series.subject} is wanted at time {target.time:g}, but {first}. "
                    "A forecast needs at least one earlier scan."
                )
    if problems:
        raise DataError(f"{folder} cannot be forecast:\n" + "\n".join(problems))
    if not wanted:
        raise DataError(
            f"Nothing is wanted of {folder}: every row of its scans.csv has an image. Add a row (case,subject,time) "
            "without an image for each scan that should be forecast, or give times for every subject with -t."
        )
    return wanted


def _check_any_image(all_series: list[Series], folder: Path) -> None:
    """Without a single image, the folder or the names are wrong: said once, not for every row."""
    expected = [path for series in all_series for scan in series.scans for path in scan.images]
    if expected and not any(path.is_file() for path in expected):
        held = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        raise DataError(
            f"{folder} has a table but none of its images. Looked for {expected[0].name} and so on; the folder holds "
            f"{some(held, most=4)}. Give the folder of the images, as imagesTs, and "
            "mind capital letters."
        )


def _targets(series: Series, times: Sequence[float], folder: Path, description: DatasetDescription) -> list[Scan]:
    if not times:
        return [scan for scan in series.scans if not any(path.is_file() for path in scan.images)]
    cases = [(f"{series.subject}_t{time:.15g}", time) for time in dict.fromkeys(times)]
    channels = range(len(description.channels))
    return [
        Scan(case, series.subject, time, tuple(image_path(folder, case, channel, description) for channel in channels))
        for case, time in cases
    ]


def _missing_channels(series: Series) -> list[str]:
    return [
        f"  {scan.case}: the file {path.name} is missing, while other channels of the scan are there."
        for scan in series.scans
        if not scan.exists and any(path.is_file() for path in scan.images)
        for path in scan.images
        if not path.is_file()
    ]
