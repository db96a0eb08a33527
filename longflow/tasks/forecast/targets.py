"""Draw the forecasts that validate each fold: once from one seed, and stored (CRONOS C.2).

Two protocols are kept apart:

- ``deployment``: as ``longflow_predict`` is used. All scans up to some time are given, and a later scan is the target,
  the next one or one further ahead. It chooses checkpoint, reduction, model, shrinkage and rule.
- ``random``: as in the papers. Each scan before the target is given with probability 1/2 (CRONOS C.2), so the latest
  is missing half of the time. LCI is handicapped by that, so the protocol chooses nothing; ``longflow_compare``
  reports it.

Both have the same targets.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from longflow.files import write_json
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.training.splits import SEED, Split

#: a fold validates at least about this many forecasts, with as many targets per subject as that takes
TARGETS_PER_FOLD = 8

#: raised whenever the targets would be drawn in another way, so that those of earlier versions are drawn again
FORMAT = 2

Protocol = Literal["deployment", "random"]


@dataclass(frozen=True)
class ForecastTarget:
    """A forecast whose reference is known.

    :param subject: the subject's name.
    :param target: case of the scan to forecast.
    :param context: cases of all scans that are given, in order of time; a model takes some of them by its rule.
    """

    subject: str
    target: str
    context: tuple[str, ...]


def read_or_draw_targets(
    paths: DatasetPaths, splits: list[Split], scans: dict[str, list[str]], protocol: Protocol = "deployment"
) -> list[list[ForecastTarget]]:
    """Return the validation forecasts of every fold.

    They depend on the dataset alone, so that every method and every plan is measured on the same ones. Where stored
    targets are of an earlier version, or no longer fit the splits or scans, they are drawn again.

    :param paths: of the dataset.
    :param splits: of all folds.
    :param scans: cases of each subject, in order of time.
    :param protocol: which scans are given.
    :returns: a list for each fold.
    """
    if paths.validation_targets.is_file():
        stored = _stored_targets(paths.validation_targets)
        if stored and all(_targets_fit(folds, splits, scans) for folds in stored.values()):
            return stored[protocol]
    generator = np.random.default_rng(SEED)
    deployment = [draw_targets({name: scans[name] for name in split.val}, generator) for split in splits]
    random = [[_with_random_context(one, scans[one.subject], generator) for one in fold] for fold in deployment]
    drawn: dict[Protocol, list[list[ForecastTarget]]] = {"deployment": deployment, "random": random}
    protocols = {name: [[asdict(target) for target in fold] for fold in folds] for name, folds in drawn.items()}
    write_json({"format": FORMAT, "seed": SEED, "protocols": protocols}, paths.validation_targets)
    return drawn[protocol]


def draw_targets(scans: dict[str, list[str]], generator: np.random.Generator) -> list[ForecastTarget]:
    """Draw targets of the protocol ``deployment``.

    The position of a target is uniform among the scans after the first; then its distance from the last scan that is
    given is, in scans, among those that the position allows. Both are stratified: they are spread over the subjects,
    and the positions over a subject's own targets, too.

    :param scans: cases of each subject, in order of time, at least two.
    :param generator: source of randomness.
    :returns: the targets, different scans, by subject.
    """
    positions = spread_positions(scans, ceil(TARGETS_PER_FOLD / len(scans)), generator)
    shares = _stratified(len(positions), generator)
    return [
        ForecastTarget(subject, scans[subject][position], tuple(scans[subject][: position - int(share * position)]))
        for (subject, position), share in zip(positions, shares, strict=True)
    ]


def spread_positions(
    scans: dict[str, list[str]], per_subject: int, generator: np.random.Generator, least: int = 1
) -> list[tuple[str, int]]:
    """Draw positions of targets, stratified: spread over the subjects, and evenly over each subject's own targets.

    :param scans: cases of each subject, in order of time, more than ``least``.
    :param per_subject: most targets of a subject.
    :param generator: source of randomness.
    :param least: earliest position, from 0.
    :returns: (subject, position) of each target, all different, by subject.
    """
    return [
        (subject, position)
        for (subject, cases), share in zip(scans.items(), _stratified(len(scans), generator), strict=True)
        for position in _positions(len(cases), per_subject, share, least)
    ]


def random_context(earlier: Sequence[str], generator: np.random.Generator) -> tuple[str, ...]:
    """Keep each scan with probability 1/2, at least one (CRONOS C.2).

    :param earlier: cases that may be given, in order of time, at least one.
    :param generator: source of randomness.
    :returns: the kept ones in their order.
    """
    given = np.zeros(len(earlier), dtype=bool)
    while not given.any():
        given = generator.random(len(earlier)) < 0.5
    return tuple(case for case, kept in zip(earlier, given, strict=True) if kept)


def _stratified(count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a number in each of ``count`` equal parts of [0, 1), in random order (a Latin hypercube's axis)."""
    return (generator.permutation(count) + generator.random(count)) / count


def _positions(scans: int, most: int, share: float, least: int) -> list[int]:
    """Choose positions from ``least`` on, evenly spaced; ``share`` in [0, 1) decides where in its part each is."""
    count = min(most, scans - least)
    return [least + int((scans - least) * (part + share) / count) for part in range(count)]


def _with_random_context(target: ForecastTarget, cases: list[str], generator: np.random.Generator) -> ForecastTarget:
    """Give each scan before the target with probability 1/2, at least one."""
    return replace(target, context=random_context(cases[: cases.index(target.target)], generator))


def _stored_targets(path: Path) -> dict[Protocol, list[list[ForecastTarget]]]:
    """Read the targets of every protocol and fold; none where the file has another structure."""
    stored = read_json(path, dict)
    try:
        if stored["format"] != FORMAT:
            return {}
        return {name: [read_targets(fold) for fold in stored["protocols"][name]] for name in get_args(Protocol)}
    except (KeyError, TypeError):
        return {}


def read_targets(stored: Sequence[dict[str, Any]]) -> list[ForecastTarget]:
    """Read targets that were stored as JSON.

    :param stored: a dictionary for each target, with the names of its fields.
    :returns: the targets.
    :raises KeyError: a field is missing. :raises TypeError: the structure is another one.
    """
    return [ForecastTarget(entry["subject"], entry["target"], tuple(entry["context"])) for entry in stored]


def _targets_fit(folds: list[list[ForecastTarget]], splits: list[Split], scans: dict[str, list[str]]) -> bool:
    """Tell whether stored targets are of these splits and scans, each after its context."""
    return len(folds) == len(splits) and all(
        {target.subject for target in fold} == set(split.val)
        and all(target.context and in_order((*target.context, target.target), scans[target.subject]) for target in fold)
        for fold, split in zip(folds, splits, strict=True)
    )


def in_order(chosen: Sequence[str], cases: Sequence[str]) -> bool:
    """Tell whether the ``chosen`` cases are among ``cases``, in the same order and without repetition."""
    return [case for case in cases if case in chosen] == list(chosen)
