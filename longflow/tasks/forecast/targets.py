"""Draw the forecasts that validate each fold: once from one seed, and stored (CRONOS C.2)."""

from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np

from longflow.files import write_json
from longflow.paths import DatasetPaths
from longflow.plans import CONTEXT_WINDOW
from longflow.reading import read_json
from longflow.training.splits import SEED, Split

#: a fold validates at least about this many forecasts, with as many targets per subject as that takes
TARGETS_PER_FOLD = 8

#: most scans of a validation forecast's context
LONGEST_CONTEXT = 8


@dataclass(frozen=True)
class ForecastTarget:
    """A forecast whose reference is known.

    :param subject: the subject's name.
    :param target: case of the scan to forecast.
    :param context: cases of the scans to forecast from, in order of time.
    """

    subject: str
    target: str
    context: tuple[str, ...]


def read_or_draw_targets(
    paths: DatasetPaths, splits: list[Split], scans: dict[str, list[str]]
) -> list[list[ForecastTarget]]:
    """Return the validation forecasts of every fold.

    They depend on the dataset alone, so that every method and every plan is measured on the same ones. A model that
    takes fewer scans than a context has uses the latest. Where stored targets no longer fit the splits or scans, they
    are drawn again.

    :param paths: of the dataset.
    :param splits: of all folds.
    :param scans: cases of each subject, in order of time.
    :returns: a list for each fold.
    """
    if paths.validation_targets.is_file():
        folds = _stored_targets(paths.validation_targets)
        if _targets_fit(folds, splits, scans):
            return folds
    generator = np.random.default_rng(SEED)
    folds = [_draw_targets(split, scans, generator) for split in splits]
    content = {"seed": SEED, "folds": [[asdict(target) for target in fold] for fold in folds]}
    write_json(content, paths.validation_targets)
    return folds


def _stored_targets(path: Path) -> list[list[ForecastTarget]]:
    """Read the targets of every fold; none where the file has another structure."""
    stored = read_json(path, dict)
    try:
        return [
            [ForecastTarget(entry["subject"], entry["target"], tuple(entry["context"])) for entry in fold]
            for fold in stored["folds"]
        ]
    except (KeyError, TypeError):
        return []


def draw_context(generator: np.random.Generator, earlier: int, most: int, count: int | None = None) -> list[int]:
    """Draw a random non-empty subset of the latest earlier scans (CRONOS C.2).

    Its size is uniform, then the subset of that size is.

    :param generator: source of randomness.
    :param earlier: number of earlier scans, of which the latest ``CONTEXT_WINDOW * most`` are drawn from.
    :param most: largest size.
    :param count: the size, if it is fixed.
    :returns: ascending positions.
    """
    first = max(0, earlier - CONTEXT_WINDOW * most)
    size = count or int(generator.integers(1, min(earlier, most) + 1))
    return sorted(first + int(position) for position in generator.choice(earlier - first, size, replace=False))


def _draw_targets(split: Split, scans: dict[str, list[str]], generator: np.random.Generator) -> list[ForecastTarget]:
    """Draw targets spread evenly over each subject's series, with a random context each."""
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
    """Tell whether stored targets are of these splits and scans, each after its context."""
    return len(folds) == len(splits) and all(
        {target.subject for target in fold} == set(split.val)
        and all(_in_order((*target.context, target.target), scans[target.subject]) for target in fold)
        for fold, split in zip(folds, splits, strict=True)
    )


def _in_order(chosen: tuple[str, ...], cases: list[str]) -> bool:
    """Tell whether the ``chosen`` cases are among ``cases``, in the same order and without repetition."""
    return [case for case in cases if case in chosen] == list(chosen)
