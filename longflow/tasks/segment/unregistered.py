"""Find scans of one subject that share a grid but are not aligned."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from longflow.data.coarse import SHIFT, shift_between
from longflow.errors import first_few
from longflow.preprocessing.series import load_prepared
from longflow.spread import evenly_spaced
from longflow.training.splits import Cohort

logger = logging.getLogger(__name__)

#: subjects that are checked at most
SUBJECTS = 50


def warn_of_unregistered(cohort: Cohort) -> None:
    """Warn once if most pairs of a cohort are shifted: losses on pairs assume that scans are aligned."""
    _warn_once(cohort.folder, tuple(cohort.scans))


@lru_cache
def _warn_once(folder: Path, subjects: tuple[str, ...]) -> None:
    checked, shifted = _shifted_pairs(folder, subjects)
    if checked and len(shifted) > checked / 2:
        logger.warning(
            "%d of %d pairs of neighbouring scans look shifted against each other (%s), but this method compares them "
            "voxel by voxel. Register the scans of each subject first: longflow_register",
            len(shifted),
            checked,
            first_few(f"{one} and {other}" for one, other in shifted),
        )


def warn_of_each_unregistered(cohort: Cohort) -> None:
    """Name the neighbouring scans that are shifted, for methods that look at aligned scans only."""
    if shifted := unregistered_pairs(cohort):
        logger.warning(
            "%d pairs of neighbouring scans look shifted against each other (%s). Scans that look shifted are not "
            "looked at, unless you add --set unregistered=on. Better register the scans first: longflow_register",
            len(shifted),
            first_few(f"{one} and {other}" for one, other in shifted),
        )


def unregistered_pairs(cohort: Cohort) -> list[tuple[str, str]]:
    """List neighbouring scans (j, j + 1) whose coarse means fit best after a shift of ``SHIFT`` blocks or more.

    This is a quick check of the translation alone, of at most ``SUBJECTS`` subjects. Pairs in the list are shifted by
    centimetres; other pairs may still be rotated or deformed.

    :param cohort: the subjects.
    :returns: cases of each such pair.
    """
    return _shifted_pairs(cohort.folder, tuple(cohort.scans))[1]


def _shifted_pairs(folder: Path, subjects: Sequence[str]) -> tuple[int, list[tuple[str, str]]]:
    """Return how many pairs were checked, and the shifted ones."""
    checked, shifted = 0, []
    for subject in (subjects[index] for index in evenly_spaced(len(subjects), SUBJECTS)):
        series = load_prepared(folder, subject)
        for first, (one, other) in enumerate(pairwise(series.properties.cases)):
            checked += 1
            if np.abs(shift_between(series.coarse[first], series.coarse[first + 1])).max() >= SHIFT:
                shifted.append((one, other))
    return checked, shifted
