"""Write stored validation targets as an input folder of ``longflow_predict``.

Their contexts are those of the protocol ``random``, as in the papers (CRONOS C.2).

A subject can have several targets, each with its own context, and one target can be in the context of another. In the
folder, therefore, every target is a subject of its own with the name of its case. Its context scans are links to the
acquired ones; their names contain both cases.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from longflow.data.dataset import DatasetDescription, Scan, image_path, training_series, write_description, write_scans
from longflow.files import link_or_copy
from longflow.paths import DatasetPaths
from longflow.plans import Plans
from longflow.task import get_task
from longflow.tasks.forecast.requests import forecast_requests
from longflow.tasks.forecast.targets import ForecastTarget, read_or_draw_targets
from longflow.training.splits import prepared_scans, read_or_make_splits, split_of_fold


@dataclass(frozen=True)
class Targets:
    """The targets of a comparison.

    :param folder: input of longflow_predict.
    :param references: folders of acquired scans, apart from ``folder``.
    :param subjects: the subject of each requested case.
    :param context_scans: fewest that a target has.
    """

    folder: Path
    references: tuple[Path, ...]
    subjects: dict[str, str]
    context_scans: int


def targets_of_folder(folder: Path, references: Sequence[Path], description: DatasetDescription) -> Targets:
    """Return the targets that the rows without an image in a folder request.

    :param references: folders of acquired scans.
    """
    requests = forecast_requests(folder, description, ())
    fewest = min(len(one.context) for one in requests)
    return Targets(folder, tuple(references), {one.target.case: one.target.subject for one in requests}, fewest)


def targets_of_fold(
    dataset: DatasetPaths, plans: Plans, configuration: str, fold: int, folder: Path, equal_context: bool = False
) -> Targets:
    """Write the stored validation targets of a fold as a folder.

    :param folder: to write; a folder with the same content keeps its age.
    :param equal_context: replace the stored context of every target by the same number of scans, the latest before it
        without a gap. The number is the most that every subject has for one of its targets. Targets with fewer are
        excluded.
    """
    cache = dataset.cache(plans.plans_name, plans.configuration(configuration).data_identifier)
    task = get_task(plans.task)
    scans = prepared_scans(cache, task)
    splits = read_or_make_splits(dataset, scans, task)
    split_of_fold(splits, fold, dataset.splits)
    targets = read_or_draw_targets(dataset, splits, scans, "random")[fold]
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
    """Return targets with the latest scans before them as context, the same number for all.

    :param scans: cases of each subject, in order of time.
    :param most: scans that a model takes.
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
    """Write links to the context scans, and a table in which the targets have no image; remove links to others."""
    rows: list[Scan] = []
    for target in targets:
        for case in target.context:
            name = f"{target.target}_from_{case}"
            for channel, image in enumerate(acquired[case].images):
                link_or_copy(image, image_path(folder, name, channel, description))
            rows.append(Scan(name, target.target, acquired[case].time, ()))
        rows.append(Scan(target.target, target.target, acquired[target.target].time, ()))
    cases = {row.case for row in rows}
    for link in folder.glob(f"*_????{description.file_ending}"):
        if link.name.removesuffix(description.file_ending)[:-5] not in cases:
            link.unlink()
    write_description(description, folder / "dataset.json")
    table, new = folder / "scans.csv", folder / "new_scans.csv"
    write_scans(rows, new)
    if table.is_file() and table.read_bytes() == new.read_bytes():
        new.unlink()  # its age shows that forecasts from it are still valid
    else:
        os.replace(new, table)
