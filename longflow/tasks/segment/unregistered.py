"""Scans of one subject that lie on one grid but not on each other."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from longflow.data.coarse import SHIFT, shift_between
from longflow.errors import first_few
from longflow.preprocessing.series import load_prepared
from longflow.training.splits import Cohort

logger = logging.getLogger(__name__)

#: so many subjects are looked at
SUBJECTS = 50


def warn_of_unregistered(cohort: Cohort) -> None:
    """Say once where the median pair of a cohort is shifted: losses on pairs assume that scans correspond."""
    _warn_once(cohort.folder, tuple(cohort.scans))


@lru_cache
def _warn_once(folder: Path, subjects: tuple[str, ...]) -> None:
    looked_at, shifted = _shifted_pairs(folder, subjects)
    if looked_at and len(shifted) > looked_at / 2:
        logger.warning(
            "%d of %d pairs of neighbouring scans look shifted against each other (%s), but this method compares them "
            "voxel by voxel. Register the scans of each subject first: longflow_register",
            len(shifted),
            looked_at,
            first_few(f"{one} and {other}" for one, other in shifted),
        )


def unregistered_pairs(cohort: Cohort) -> list[tuple[str, str]]:
    """Neighbouring scans (j, j + 1) whose coarse means fit each other best after a shift of ``SHIFT`` blocks or more.

    A cheap look at the translation alone, at no more than ``SUBJECTS`` subjects: what it finds is shifted by
    centimetres; what it does not find may still be rotated or deformed.

    :returns: cases of each such pair.
    """
    return _shifted_pairs(cohort.folder, tuple(cohort.scans))[1]


def _shifted_pairs(folder: Path, subjects: Sequence[str]) -> tuple[int, list[tuple[str, str]]]:
    """How many pairs were looked at, and those that are shifted."""
    chosen = np.unique(np.linspace(0, len(subjects) - 1, min(SUBJECTS, len(subjects))).round().astype(int))
    looked_at, shifted = 0, []
    for subject in (subjects[index] for index in chosen):
        series = load_prepared(folder, subject)
        for first, (one, other) in enumerate(pairwise(series.properties.cases)):
            looked_at += 1
            if np.abs(shift_between(series.coarse[first], series.coarse[first + 1])).max() >= SHIFT:
                shifted.append((one, other))
    return looked_at, shifted
