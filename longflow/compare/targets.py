"""Stored validation targets as an input folder of ``longflow_predict``, so that anything can be predicted for them.

A subject can have several targets, each with a context of its own, and the target of one can be in the context of
another. So every target is a subject of its own in that folder, named as its case, and its context scans are links to
the acquired ones, named by both.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from longflow.data.dataset import DatasetDescription, Scan, image_path, training_series, write_description, write_scans
from longflow.errors import DataError
from longflow.paths import DatasetPaths
from longflow.plans import Plans
from longflow.tasks.forecast.requests import forecast_requests
from longflow.training.splits import (
    ForecastTarget,
    prepared_scans,
    read_or_draw_targets,
    read_or_make_splits,
    split_of_fold,
)


@dataclass(frozen=True)
class Targets:
    """What is predicted and with what it is compared.

    :param folder: input of longflow_predict. :param references: folders of acquired scans, beside ``folder``.
    :param subjects: the subject of each wanted case. :param context_scans: fewest that one of them is forecast from.
    """

    folder: Path
    references: tuple[Path, ...]
    subjects: dict[str, str]
    context_scans: int


def targets_of_folder(
    folder: Path, references: Sequence[Path], description: DatasetDescription, most_context: int
) -> Targets:
    """What the rows without an image in a folder ask for.

    :param most_context: context scans that a model takes.
    """
    wanted = forecast_requests(folder, description, (), most_context)
    fewest = min(len(one.context) for one in wanted)
    return Targets(folder, tuple(references), {one.target.case: one.target.subject for one in wanted}, fewest)


def targets_of_fold(
    dataset: DatasetPaths, plans: Plans, configuration: str, fold: int, folder: Path, equal_context: bool = False
) -> Targets:
    """The stored validation targets of a fold, written as a folder.

    :param folder: is written; one that holds the same already is left as it is.
    :param equal_context: give every target equally many scans, the latest before it without a gap, instead of its
        stored context; as many as every subject has for one of its targets. Targets with fewer are left out.
    """
    cache = dataset.cache(plans.plans_name, plans.configuration(configuration).data_identifier)
    scans = prepared_scans(cache, plans.task)
    splits = read_or_make_splits(dataset, scans)
    split_of_fold(splits, fold, dataset.splits)
    targets = read_or_draw_targets(dataset, splits, scans)[fold]
    if equal_context:
        targets = with_equal_context(targets, scans, plans.temporal.sequence_length)
    description, series = training_series(dataset.raw)
    acquired = {scan.case: scan for one in series for scan in one.scans}
    _write_folder(folder, targets, acquired, description)
    fewest = min(len(target.context) for target in targets)
    subjects = {target.target: target.subject for target in targets}
    return Targets(folder, (dataset.raw / "imagesTr",), subjects, fewest)


def with_equal_context(
    targets: Sequence[ForecastTarget], scans: dict[str, list[str]], most: int
) -> list[ForecastTarget]:
    """Targets with the latest scans before them as context, equally many for all.

    :param scans: cases of each subject, in order of time. :param most: scans that a model takes.
    """
    earlier = {target: scans[target.subject][: scans[target.subject].index(target.target)] for target in targets}
    longest: dict[str, int] = {}
    for target, cases in earlier.items():
        longest[target.subject] = max(longest.get(target.subject, 0), len(cases))
    count = min(most, *longest.values())
    return [replace(target, context=tuple(cases[-count:])) for target, cases in earlier.items() if len(cases) >= count]


def _write_folder(
    folder: Path, targets: Sequence[ForecastTarget], acquired: dict[str, Scan], description: DatasetDescription
) -> None:
    """Links to the context scans, and a table in which the targets have no image."""
    rows = []
    for target in targets:
        for case in target.context:
            name = f"{target.target}_from_{case}"
            for channel, image in enumerate(acquired[case].images):
                link_or_copy(image, image_path(folder, name, channel, description))
            rows.append(Scan(name, target.target, acquired[case].time, ()))
        rows.append(Scan(target.target, target.target, acquired[target.target].time, ()))
    write_description(description, folder / "dataset.json")
    table, new = folder / "scans.csv", folder / "new_scans.csv"
    write_scans(rows, new)
    if table.is_file() and table.read_bytes() == new.read_bytes():
        new.unlink()  # its age tells that forecasts from it are still good
    else:
        os.replace(new, table)


def link_or_copy(source: Path, link: Path) -> None:
    """Make a file known under another name: as a link where the disk has links, else as a copy; an older one goes.

    :raises DataError: the file is missing.
    """
    if not source.is_file():
        raise DataError(f"{source} does not exist.")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), link)
    except OSError:
        shutil.copy2(source, link)
