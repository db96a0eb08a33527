"""Who is trained on and who validates, and which forecasts are validated: both drawn once and stored."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np

from longflow.errors import ConfigurationError, DataError, NotFoundError, first_few
from longflow.files import read_json, write_json
from longflow.nnunet import validation_folds
from longflow.paths import DatasetPaths
from longflow.plans import CONTEXT_WINDOW
from longflow.preprocessing.series import PreparedSeries, load_prepared, prepared_subjects

logger = logging.getLogger(__name__)

FOLDS = 5
SEED = 12345

#: a fold validates at least about this many forecasts, with as many targets per subject as that takes
TARGETS_PER_FOLD = 8

#: scans that a subject must have to be of use; the others are left out of the splits. To translate, pairs alone are
#: prepared
FEWEST_SCANS: dict[str, int] = {"forecast": 2, "translate": 2, "segment": 1}
#: the same for people
NEEDED: dict[str, str] = {
    "forecast": "at least 2 scans",
    "translate": "a pair of scans, one in each phase at one time",
    "segment": "at least 1 scan",
}

#: most scans of a validation forecast's context
LONGEST_CONTEXT = 8


@dataclass(frozen=True)
class Split:
    """The subjects of a fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Cohort:
    """The subjects that samples are drawn from.

    :param folder: of the prepared subjects. :param scans: cases of each subject, in order of time.
    :param labelled: the subjects whose labels may be used; None: all.
    """

    folder: Path
    scans: dict[str, list[str]]
    labelled: frozenset[str] | None = None


@dataclass(frozen=True)
class ForecastTarget:
    """A forecast whose truth is known: a target scan, and the scans that it is to be made from, in order of time."""

    subject: str
    target: str
    context: tuple[str, ...]


def prepared_scans(cache: Path, task: str) -> dict[str, list[str]]:
    """Cases of every prepared subject that has enough scans for the task, in order of time.

    :param cache: folder of the prepared subjects.
    """
    subjects = prepared_subjects(cache) if cache.is_dir() else []
    if not subjects:
        raise DataError(
            f"{cache} holds no preprocessed subject. Run longflow_preprocess (or longflow_plan_and_preprocess) first."
        )
    cases = {subject: load_prepared(cache, subject).properties.cases for subject in subjects}
    left_out = sorted(subject for subject, found in cases.items() if len(found) < FEWEST_SCANS[task])
    if left_out:
        logger.info(
            "Left out, having one scan where the task '%s' needs two: %d subjects (%s).",
            *(task, len(left_out), first_few(left_out)),
        )
    return {subject: found for subject, found in cases.items() if len(found) >= FEWEST_SCANS[task]}


def cohorts_of_fold(dataset: DatasetPaths, task: str, cache: Path, fold: int) -> tuple[Cohort, Cohort]:
    """Those who are trained on and those who validate.

    :raises NotFoundError: there is no such fold.
    """
    scans = prepared_scans(cache, task)
    split = split_of_fold(splits_of(dataset, task, cache, scans), fold, dataset.splits)
    training, validation = (
        Cohort(cache, {subject: scans[subject] for subject in side}) for side in (split.train, split.val)
    )
    return training, validation


def splits_of(dataset: DatasetPaths, task: str, cache: Path, scans: dict[str, list[str]]) -> list[Split]:
    """The splits of a dataset, with its labels spread evenly where the task is to segment."""
    wanted = task == "segment" and not dataset.splits.is_file()
    labelled = [subject for subject in scans if scans_with_label(load_prepared(cache, subject))] if wanted else []
    return read_or_make_splits(dataset, scans, task, labelled)


def scans_with_label(series: PreparedSeries) -> list[int]:
    """Positions of the scans that have a label: the segmentation of the others is -1 everywhere."""
    if series.segmentations is None:
        return []
    return [scan for scan in range(len(series.properties.cases)) if int(series.segmentations[scan, 0, 0, 0]) != -1]


def read_or_make_splits(
    paths: DatasetPaths, scans: dict[str, list[str]], task: str = "forecast", labelled: Sequence[str] = ()
) -> list[Split]:
    """The splits of a dataset; made by nnU-Net's rule on subjects where none are stored yet.

    A user's own ``splits_final.json`` is honoured and checked. With fewer than five subjects each is a fold. Where some
    subjects have labels and others have not, each kind is spread over the folds by itself, so that every fold has
    labels to validate on; there are then no more folds than labelled subjects.

    :param scans: cases of each subject of use, in order of time. :param labelled: those with labels, where they matter.
    :raises ConfigurationError: a stored split names an unknown subject, leaks, or leaves a side empty.
    """
    if paths.splits.is_file():
        splits = [Split(tuple(entry["train"]), tuple(entry["val"])) for entry in _read_splits(paths.splits)]
        _check_splits(splits, scans, paths.splits, NEEDED[task])
        return splits
    subjects = sorted(scans)
    if len(subjects) < 2:
        raise DataError(
            f"{paths.name} has {len(subjects)} subject(s) with {NEEDED[task]}; at least two are needed, one to train "
            "on and one to validate on."
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
    """One fold.

    :raises NotFoundError: there is no such fold.
    """
    if not 0 <= fold < len(splits):
        raise NotFoundError(f"There is no fold {fold}: {path} has the folds 0 to {len(splits) - 1}.")
    return splits[fold]


def read_or_draw_targets(
    paths: DatasetPaths, splits: list[Split], scans: dict[str, list[str]]
) -> list[list[ForecastTarget]]:
    """The validation forecasts of every fold: drawn once from one seed and stored (CRONOS C.2).

    They depend on the dataset alone, so that every method and every plan is judged by the same ones; a model that
    takes fewer scans than a context has uses the latest. Drawn anew where they do not fit the splits or scans any more.

    :param scans: cases of each subject, in order of time.
    :returns: a list for each fold.
    """
    if paths.validation_targets.is_file():
        stored = read_json(paths.validation_targets)
        folds = [
            [ForecastTarget(entry["subject"], entry["target"], tuple(entry["context"])) for entry in fold]
            for fold in stored["folds"]
        ]
        if _targets_fit(folds, splits, scans):
            return folds
    generator = np.random.default_rng(SEED)
    folds = [_draw_targets(split, scans, generator) for split in splits]
    content = {"seed": SEED, "folds": [[asdict(target) for target in fold] for fold in folds]}
    write_json(content, paths.validation_targets)
    return folds


def draw_context(generator: np.random.Generator, earlier: int, most: int, count: int | None = None) -> list[int]:
    """A random non-empty subset of the latest earlier scans (CRONOS C.2), as ascending positions.

    Its size is uniform, then the subset of that size is.

    :param earlier: number of earlier scans, of which the latest ``CONTEXT_WINDOW * most`` are drawn from.
    :param most: largest size. :param count: the size, if it is fixed.
    """
    first = max(0, earlier - CONTEXT_WINDOW * most)
    size = count or int(generator.integers(1, min(earlier, most) + 1))
    return sorted(first + int(position) for position in generator.choice(earlier - first, size, replace=False))


def _draw_targets(split: Split, scans: dict[str, list[str]], generator: np.random.Generator) -> list[ForecastTarget]:
    """Targets spread evenly over each subject's series, with a random context each."""
    targets = []
    per_subject = ceil(TARGETS_PER_FOLD / len(split.val))
    for subject in split.val:
        cases = scans[subject]
        count = min(per_subject, len(cases) - 1)
        for position in np.unique(np.linspace(len(cases) - 1, 1, count).round().astype(int)):
            context = draw_context(generator, int(position), LONGEST_CONTEXT)
            targets.append(ForecastTarget(subject, cases[position], tuple(cases[index] for index in context)))
    return targets


def _targets_fit(folds: list[list[ForecastTarget]], splits: list[Split], scans: dict[str, list[str]]) -> bool:
    """Whether stored targets are of these splits and scans, each after its context."""
    return len(folds) == len(splits) and all(
        {target.subject for target in fold} == set(split.val)
        and all(_in_order((*target.context, target.target), scans[target.subject]) for target in fold)
        for fold, split in zip(folds, splits, strict=True)
    )


def _in_order(chosen: tuple[str, ...], cases: list[str]) -> bool:
    """Whether the ``chosen`` cases are among ``cases``, in the same order and without repetition."""
    return [case for case in cases if case in chosen] == list(chosen)


def _read_splits(path: Path) -> list[dict[str, list[str]]]:
    content = read_json(path)
    good = isinstance(content, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("train"), list) and isinstance(entry.get("val"), list)
        for entry in content
    )
    if not good or not content:
        raise ConfigurationError(
            f'{path} should be a list of {{"train": [subjects], "val": [subjects]}}, one for each fold.'
        )
    return content


def _check_splits(splits: list[Split], scans: dict[str, list[str]], path: Path, needed: str) -> None:
    for fold, split in enumerate(splits):
        if leaked := sorted(set(split.train) & set(split.val)):
            raise ConfigurationError(
                f"{path}, fold {fold}: {', '.join(leaked)} is in train and in val. A subject that is trained on cannot "
                "validate: its scans are too alike."
            )
        if unknown := sorted({*split.train, *split.val} - set(scans)):
            raise ConfigurationError(
                f"{path}, fold {fold}: {first_few(unknown)} is not a subject with {needed} in this dataset. Splits "
                f"name "
                "subjects (the column of scans.csv), not cases."
            )
        if not split.train or not split.val:
            raise ConfigurationError(f"{path}, fold {fold}: both train and val need at least one subject.")
