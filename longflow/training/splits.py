"""Split subjects into folds: drawn once and stored."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np

from longflow.data.dataset import warn_of_spellings
from longflow.errors import ConfigurationError, DataError, NotFoundError, first_few
from longflow.files import write_json
from longflow.job import FoldJob
from longflow.nnunet import validation_folds
from longflow.paths import DatasetPaths
from longflow.plans import Plans
from longflow.preprocessing.series import prepared_subjects, read_properties
from longflow.reading import read_json
from longflow.task import Task, get_task

logger = logging.getLogger(__name__)

FOLDS = 5
SEED = 12345


@dataclass(frozen=True)
class Split:
    """The subjects of a fold.

    :param train: subjects that are trained on.
    :param val: subjects that validate.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Cohort:
    """The subjects that samples are drawn from.

    :param folder: of the prepared subjects.
    :param scans: cases of each subject, in order of time.
    :param labelled: the subjects whose labels may be used; None: all.
    """

    folder: Path
    scans: dict[str, list[str]]
    labelled: frozenset[str] | None = None


def cohorts_of_fold(job: FoldJob) -> tuple[Cohort, Cohort]:
    """Return the subjects that a fold trains on and those that validate it.

    :param job: the fold.
    :returns: training cohort, validation cohort.
    :raises NotFoundError: there is no such fold.
    :raises DataError: nothing is preprocessed.
    """
    scans = prepared_scans(job.cache, job.task)
    split = split_of_fold(splits_of(job.dataset, job.task, job.cache, scans), job.fold, job.dataset.splits)
    training, validation = (
        Cohort(job.cache, {subject: scans[subject] for subject in side}) for side in (split.train, split.val)
    )
    return training, validation


def number_of_folds(dataset: DatasetPaths, plans: Plans) -> int:
    """Count the folds of a dataset; the splits are made if there are none yet.

    :param dataset: preprocessed.
    :param plans: of the dataset.
    :returns: number of folds.
    """
    task = get_task(plans.task)
    identifiers = sorted({plan.data_identifier for plan in plans.configurations.values()})
    caches = [dataset.cache(plans.plans_name, identifier) for identifier in identifiers]
    prepared = next((cache for cache in caches if cache.is_dir() and prepared_subjects(cache)), caches[0])
    return len(splits_of(dataset, task, prepared, prepared_scans(prepared, task)))


def prepared_scans(cache: Path, task: Task) -> dict[str, list[str]]:
    """List the cases of every prepared subject that has enough scans for a task.

    :param cache: folder of the prepared subjects.
    :param task: says how many scans a subject needs.
    :returns: cases of each subject, in order of time.
    :raises DataError: nothing is preprocessed.
    """
    subjects = prepared_subjects(cache) if cache.is_dir() else []
    if not subjects:
        raise DataError(
            f"{cache} holds no preprocessed subject. Run longflow_preprocess (or longflow_plan_and_preprocess) first."
        )
    cases = {subject: read_properties(cache, subject).cases for subject in subjects}
    enough = {subject: found for subject, found in cases.items() if len(found) >= task.least_scans}
    if excluded := sorted(set(cases) - set(enough)):
        logger.info(
            "Excluded, since the task '%s' needs %s of a subject: %d subjects (%s).",
            *(task.name, task.words.needs, len(excluded), first_few(excluded)),
        )
    return enough


def splits_of(dataset: DatasetPaths, task: Task, cache: Path, scans: dict[str, list[str]]) -> list[Split]:
    """Return the splits of a dataset; labelled subjects are spread evenly where the task uses labels.

    :param dataset: whose splits are read or made.
    :param task: that the dataset is planned for.
    :param cache: folder of the prepared subjects.
    :param scans: cases of each subject, in order of time.
    :returns: one split for each fold.
    """
    labelled = []
    if task.uses_labels and not dataset.splits.is_file():
        labelled = [subject for subject in scans if any(read_properties(cache, subject).labelled)]
    return read_or_make_splits(dataset, scans, task, labelled)


def read_or_make_splits(
    paths: DatasetPaths, scans: dict[str, list[str]], task: Task, labelled: Sequence[str] = ()
) -> list[Split]:
    """Read the splits of a dataset; where none are stored, make them by nnU-Net's rule on subjects.

    A user's own ``splits_final.json`` is used and checked. With fewer than five subjects, each is a fold. Where only
    some subjects have labels, subjects with and without labels are spread over the folds separately. Every fold then
    has labels to validate on, and there are no more folds than labelled subjects.

    :param paths: of the dataset.
    :param scans: cases of each subject that has enough scans, in order of time.
    :param task: for messages.
    :param labelled: subjects with labels, where labels matter.
    :returns: one split for each fold.
    :raises ConfigurationError: a stored split names an unknown subject, leaks, or has an empty side.
    :raises DataError: there is one subject only.
    """
    warn_of_spellings(scans)
    if paths.splits.is_file():
        splits = [Split(tuple(entry["train"]), tuple(entry["val"])) for entry in _read_splits(paths.splits)]
        _check_splits(splits, scans, paths, task.words.needs)
        return splits
    subjects = sorted(scans)
    if len(subjects) < 2:
        raise DataError(
            f"{paths.name} has {len(subjects)} subject(s) with {task.words.needs}; at least two are needed, one to "
            "train on and one to validate on."
        )
    first = sorted(labelled) if len(labelled) > 1 else subjects
    made = validation_folds(first, min(FOLDS, len(first)), SEED)
    rest = np.random.default_rng(SEED).permutation(sorted(set(subjects) - set(first)))
    validating = [{*fold, *map(str, part)} for fold, part in zip(made, np.array_split(rest, len(made)), strict=True)]
    splits = [
        Split(tuple(one for one in subjects if one not in val), tuple(one for one in subjects if one in val))
        for val in validating
    ]
    write_json([asdict(split) for split in splits], paths.splits)
    return splits


def split_of_fold(splits: list[Split], fold: int, path: Path) -> Split:
    """Return the split of one fold.

    :param splits: of all folds.
    :param fold: counted from 0.
    :param path: of the splits, for the message.
    :returns: the split.
    :raises NotFoundError: there is no such fold.
    """
    if not 0 <= fold < len(splits):
        raise NotFoundError(f"There is no fold {fold}: {path} has the folds 0 to {len(splits) - 1}.")
    return splits[fold]


def _read_splits(path: Path) -> list[dict[str, list[str]]]:
    content = read_json(path)
    good = isinstance(content, list) and all(
        isinstance(entry, dict) and all(_are_names(entry.get(side)) for side in ("train", "val")) for entry in content
    )
    if not good or not content:
        raise ConfigurationError(
            f'{path} should be a list of {{"train": [subjects], "val": [subjects]}}, one for each fold. Correct it, or '
            "delete the file: longflow then makes new splits."
        )
    return [{side: [normalize("NFC", name) for name in entry[side]] for side in ("train", "val")} for entry in content]


def _are_names(subjects: object) -> bool:
    return isinstance(subjects, list) and all(isinstance(name, str) for name in subjects)


def _check_splits(splits: list[Split], scans: dict[str, list[str]], paths: DatasetPaths, needs: str) -> None:
    path = paths.splits
    remedy = (
        f"If the dataset has changed since the splits were made, delete the file {path}: longflow then makes new ones, "
        "and every fold has to be trained again. If you made it yourself, correct it."
    )
    if forgotten := sorted(set(scans) - {name for split in splits for name in (*split.train, *split.val)}):
        logger.info("%d subjects are in no fold of %s: %s. %s", len(forgotten), path, first_few(forgotten), remedy)
    for fold, split in enumerate(splits):
        if leaked := sorted(set(split.train) & set(split.val)):
            raise ConfigurationError(
                f"{path}, fold {fold}: {', '.join(leaked)} is in train and in val. A subject that is trained on cannot "
                "validate: its scans are too similar."
            )
        if unknown := sorted({*split.train, *split.val} - set(scans)):
            raise ConfigurationError(
                f"{path}, fold {fold}: {first_few(unknown)} is not a subject with {needs} in this dataset. Splits "
                f"name subjects (the column of scans.csv), not cases. {remedy}"
            )
        if not split.train or not split.val:
            raise ConfigurationError(f"{path}, fold {fold}: both train and val need at least one subject.")
