"""Repeatability: how far two measurements of one subject differ although nothing changed in between.

Bland & Altman, BMJ 313 (1996): 744. The within-subject standard deviation s is the root mean square of d / sqrt(2) over
pairs with the difference d. Two measurements of an unchanged subject differ by less than 1.96 sqrt(2) s in 95 % of
pairs. That is the repeatability coefficient where s is known. Of n subjects s is an estimate, and d / (sqrt(2) s) of a
further pair has Student's t distribution of n degrees of freedom, if differences are normal. So its factor is taken in
place of 1.96: 1.98 for 100 subjects, 2.23 for 10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import gammaincinv, stdtr

from longflow.errors import DataError
from longflow.evaluation.intervals import CONFIDENCE, t_quantile
from longflow.evaluation.significance import LEVEL

#: with fewer subjects the spread is hardly known; with 3, the limits of its 95 % interval are 6.6 times apart
FEWEST_SUBJECTS = 3


@dataclass(frozen=True)
class Repeatability:
    """How well a measurement repeats, in its unit.

    :param within_sd: within-subject standard deviation.
    :param within_sd_from: lower limit of its 95 % interval (by chi squared).
    :param within_sd_to: upper limit.
    :param coefficient: 95 % of two measurements of an unchanged subject differ by less.
    :param subjects: number.
    :param pairs: number.
    """

    within_sd: float
    within_sd_from: float
    within_sd_to: float
    coefficient: float
    subjects: int
    pairs: int

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Repeatability":
        """Read what :meth:`record` returned.

        :raises DataError: it is something else.
        """
        try:
            found = cls(**record)
            if not (np.isfinite(list(asdict(found).values())).all() and found.coefficient >= 0):
                raise ValueError
        except (TypeError, ValueError) as error:
            raise DataError("This is no repeatability as longflow_calibrate writes it.") from error
        return found

    def record(self) -> dict[str, Any]:
        """Return all fields, as they are read from JSON."""
        return asdict(self)


def repeatability(subjects: Sequence[str], differences: Sequence[float]) -> Repeatability:
    """Estimate the repeatability from pairs of measurements.

    Pairs of one subject are alike, so a subject's squared differences are averaged first, and subjects are counted.

    :param subjects: of each pair.
    :param differences: of each pair.
    :raises DataError: there are fewer than three subjects.
    """
    squares = _squares_of_subjects(subjects, differences)
    number = len(squares)
    if number < FEWEST_SUBJECTS:
        raise DataError(
            f"The pairs of scans are of {number} subjects. Expected: {FEWEST_SUBJECTS} or more; with 10, the "
            "noise of measurement is known to about 22 %."
        )
    variance = float(np.mean(list(squares.values()))) / 2
    tail = (1 - CONFIDENCE) / 2
    # chi squared of n degrees of freedom is twice a gamma variable of shape n / 2
    high, low = (2 * float(gammaincinv(number / 2, share)) for share in (tail, 1 - tail))
    within = float(np.sqrt(variance))
    return Repeatability(
        within,
        float(np.sqrt(number * variance / low)),
        float(np.sqrt(number * variance / high)),
        t_quantile(number) * float(np.sqrt(2)) * within,
        number,
        len(differences),
    )


def changed_subjects(subjects: Sequence[str], differences: Sequence[float], tests: int = 1) -> list[str]:
    """Find subjects whose pairs differ more than those of all others explain.

    Each is compared with the spread of the others: its root mean square / theirs has Student's t distribution, if
    differences are normal and nobody changed. Corrected for the number of subjects (Bonferroni).

    :param subjects: of each pair.
    :param differences: of each pair.
    :param tests: of other structures, which are corrected for, too.
    :returns: names, sorted; the chance that any is a false alarm is at most 5 %.
    """
    squares = _squares_of_subjects(subjects, differences)
    changed = []
    for subject, own in squares.items():
        others = [square for other, square in squares.items() if other != subject]
        spread = np.mean(others) if others else 0.0
        if own > 0 and len(others) >= FEWEST_SUBJECTS - 1:
            ratio = np.sqrt(own / spread) if spread else np.inf
            if 2 * float(stdtr(len(others), -ratio)) * len(squares) * tests <= LEVEL:
                changed.append(subject)
    return changed


def _squares_of_subjects(subjects: Sequence[str], differences: Sequence[float]) -> dict[str, float]:
    """Return the mean squared difference of each subject, in order of name."""
    collected: dict[str, list[float]] = {}
    for subject, difference in zip(subjects, differences, strict=True):
        collected.setdefault(subject, []).append(difference**2)
    return {subject: float(np.mean(collected[subject])) for subject in sorted(collected)}
