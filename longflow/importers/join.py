"""Several raw datasets of longflow of one kind, as one, so that one model learns from all of them."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longflow.data.dataset import DatasetDescription, Scan, normal_name, training_series
from longflow.errors import ConfigurationError, DataError, NotFoundError, first_few
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import ImportedDataset, ImportedScan
from longflow.paths import DATASET_NAME

logger = logging.getLogger(__name__)

#: the column of scans.csv with the dataset that a scan comes from
DATASET = "dataset"

#: keys of dataset.json that must agree, and why
AGREEING = {
    "channel_names": "the channels of one network are the same, in the same order",
    "file_ending": "a dataset has one ending; convert the images of one of them",
    "time_unit": "times are compared; convert the column time of one of them",
    "labels": "a label value has one meaning",
    "regions_class_order": "a label value has one meaning",
    "normalization": "all images are prepared in the same way",
    "task": "a dataset has one task",
    "phases": "both phases have the same names",
    "phase_channels": "the channels of each phase are the same",
    "period": "all scans repeat, or none; name the column with the period alike",
    "covariates": "a condition of the network is a column of all tables; leave cells empty where it is not known",
}


@dataclass(frozen=True)
class Options:
    """Flags of the layout.

    :param datasets: the datasets below the source, each by id or full name.
    """

    datasets: Sequence[str] = field(
        default=(), metadata=flag("raw datasets of the folder, by id or full name", nargs="+", metavar="DATASET")
    )


def read(source: Path, options: Options) -> ImportedDataset:
    """Find the training scans of several raw datasets; test scans (imagesTs) stay where they are.

    Subjects and cases whose names occur in more than one dataset get the dataset's name as prefix.

    :param source: the folder of the raw datasets.
    :param options: flags of the layout.
    :returns: the dataset, with the column ``dataset`` and all columns of the sources.
    :raises ConfigurationError: fewer than two datasets are named, or keys of their dataset.json differ.
    :raises DataError: a dataset cannot be read, or a scan of its table has no image.
    """
    folders = [_folder_of(source, name) for name in options.datasets]
    if len(set(folders)) < max(2, len(folders)):
        raise ConfigurationError(
            f"--datasets {' '.join(options.datasets)}: expected two or more different datasets of {source}, as in "
            "--datasets 101 103."
        )
    read_of = {folder: training_series(folder) for folder in folders}
    descriptions = {folder: description for folder, (description, _) in read_of.items()}
    _check_agree(descriptions)
    first = descriptions[folders[0]]
    scans = {folder: [scan for one in series for scan in one.scans] for folder, (_, series) in read_of.items()}
    for folder in folders:
        if absent := [scan.case for scan in scans[folder] if not scan.exists]:
            raise DataError(
                f"{len(absent)} scans of {folder} have no image: {first_few(absent)}. Run longflow_verify -d "
                f"{folder.name} and correct what it lists."
            )
    kept = [key for key in AGREEING if key != "task"]
    return ImportedDataset(
        _joined(scans, first.file_ending),
        time_unit=first.time_unit,
        channel=first.channels[0],
        settings={"datasets": [folder.name for folder in folders]},
        about=first.model_dump(mode="json", include=set(kept), exclude_defaults=True),
        excluded=[
            f"{folder.name}/imagesTs: predict it from where it is"
            for folder in folders
            if (folder / "imagesTs").is_dir()
        ],
        task=first.task,
    )


def _folder_of(source: Path, name: str) -> Path:
    """Return the folder of a dataset that an id or a full name names."""
    known = sorted(path for path in source.glob("Dataset*") if path.is_dir() and DATASET_NAME.fullmatch(path.name))
    number = f"Dataset{int(name):03d}_" if name.isdecimal() else None
    found = [path for path in known if path.name == name or (number and path.name.startswith(number))]
    if len(found) != 1:
        raise NotFoundError(
            f"{source} has {len(found) or 'no'} datasets '{name}'. Found: "
            f"{first_few(path.name for path in known) or 'no raw dataset'}. Give the folder that holds them, and the "
            "full name where two have the same number."
        )
    return found[0]


def _check_agree(descriptions: Mapping[Path, DatasetDescription]) -> None:
    """Refuse datasets of different kinds, and name the first difference."""
    (one, first), *others = descriptions.items()
    for key, reason in AGREEING.items():
        for other, description in others:
            found, expected = _comparable(getattr(description, key)), _comparable(getattr(first, key))
            if found != expected:
                raise ConfigurationError(
                    f"{other / 'dataset.json'} has {key} = {found}, but {one / 'dataset.json'} has {expected}. They "
                    f"must be the same to be joined: {reason}."
                )


def _comparable(value: Any) -> Any:
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def _joined(scans: Mapping[Path, Sequence[Scan]], ending: str) -> list[ImportedScan]:
    """Give all scans names that differ between the datasets."""
    subjects = _in_several((folder, normal_name(scan.subject)) for folder in scans for scan in scans[folder])
    cases = _in_several((folder, scan.case.casefold()) for folder in scans for scan in scans[folder])
    prefixes = _prefixes(list(scans))
    if subjects:
        names = {scan.subject for folder in scans for scan in scans[folder] if normal_name(scan.subject) in subjects}
        logger.warning(
            "Subjects of several datasets have one name, and get the dataset's name as prefix: %s. If they are the "
            "same patients, give all their scans to one dataset first: otherwise they are trained on and tested on.",
            first_few(sorted(names)),
        )
    joined = []
    for folder, of_dataset in scans.items():
        for scan in of_dataset:
            same_subject = normal_name(scan.subject) in subjects
            own_case = same_subject or scan.case.casefold() in cases
            joined.append(
                ImportedScan(
                    case=prefixes[folder] + scan.case if own_case else scan.case,
                    subject=prefixes[folder] + scan.subject if same_subject else scan.subject,
                    time=scan.time,
                    image=scan.images[0],
                    label=scan.label,
                    covariates={**scan.covariates, DATASET: scan.covariates.get(DATASET) or folder.name},
                    further_channels=scan.images[1:],
                    kept_ending=ending,
                )
            )
    twice = [case for case, count in Counter(scan.case.casefold() for scan in joined).items() if count > 1]
    if twice:
        raise DataError(f"With the dataset's name as prefix, these cases occur twice: {first_few(twice)}. Rename them.")
    return joined


def _in_several(names: Iterable[tuple[Path, str]]) -> set[str]:
    """Return the names that occur in more than one dataset."""
    return {name for name, count in Counter(name for _, name in set(names)).items() if count > 1}


def _prefixes(folders: Sequence[Path]) -> dict[Path, str]:
    """Make the prefix of each dataset: its name without the number, with it where two have one name."""
    short = {folder: folder.name[len("Dataset101_") :] for folder in folders}
    distinct = len({name.casefold() for name in short.values()}) == len(folders)
    return {folder: f"{short[folder] if distinct else folder.name}_" for folder in folders}


IMPORTER = Importer(
    "join",
    read,
    Options,
    example="longflow_import join longflow_data/raw --datasets 101 103 -d 110 -n Both",
    serves=lambda task: True,
    chooses_task=False,
    task_reason="joined datasets keep their task",
)
