"""Conformal intervals: bound the error for a new subject by the errors for subjects that a model did not learn from.

Each subject of the calibration has one score: the largest of |error| / scale over its visits. If a new subject is
exchangeable with them (one more of the same kind), the rank of its score among n + 1 is uniform. So its score is at
most the k-th smallest of the n with probability k / (n + 1), whatever the distribution of errors is. With
k = ceil((n + 1) level), **all** intervals prediction -+ factor x scale of a new subject together hold with at least
this probability (Vovk et al., Algorithmic Learning in a Random World, 2005, section 2.2; Lei et al., JASA 113, 2018,
section 2).

The probability is over calibrations and new subjects together. It is no statement about one kind of subject among them,
nor about subjects of another kind. Scales must not be fitted to the errors of the calibration.
"""

import math
from collections.abc import Mapping, Sequence

from longflow.errors import DataError

#: names of the files of a calibration: its record, and the table of all errors
WRITTEN = CALIBRATION_JSON, CALIBRATION_CSV = "calibration.json", "calibration.csv"

#: in a folder of predictions: the calibration that its intervals are made of
INTERVALS_JSON = "intervals.json"

#: (n + 1) level is a whole number but for rounding
_ROUNDING = 1e-9


def fewest_subjects(level: float) -> int:
    """Return the number of subjects that a level needs.

    >>> fewest_subjects(0.9), fewest_subjects(0.95), fewest_subjects(0.5)
    (9, 19, 1)
    """
    return math.ceil(level / (1 - level) - _ROUNDING)


def attainable_level(subjects: int) -> float:
    """Return the highest level that so many subjects can give: n / (n + 1).

    >>> attainable_level(9)
    0.9
    """
    return subjects / (subjects + 1)


def subject_scores(subjects: Sequence[str], errors: Sequence[float], scales: Sequence[float]) -> dict[str, float]:
    """Compute one score for each subject: the largest of |error| / scale over its visits.

    :param subjects: of each prediction.
    :param errors: prediction - reference, of models that did not learn from the subject.
    :param scales: expected size of each error, above 0, in its unit: for example by the horizon.
    :returns: by subject, in order of name.
    :raises DataError: an error is not finite, or a scale is not above 0.
    """
    scores: dict[str, float] = {}
    for subject, error, scale in zip(subjects, errors, scales, strict=True):
        if not math.isfinite(error) or not 0 < scale < math.inf:
            raise DataError(
                f"An error of {subject} is {error} and its scale {scale}. Expected: finite numbers, the scale above 0. "
                "Exclude what is not defined before calibrating."
            )
        scores[subject] = max(scores.get(subject, 0.0), abs(error) / scale)
    return dict(sorted(scores.items()))


def conformal_factor(scores: Mapping[str, float], level: float) -> float:
    """Return the factor of the scale in intervals that hold for a new subject with at least a probability.

    :param scores: of each subject of the calibration.
    :param level: the probability, above 0 and below 1.
    :returns: the k-th smallest score, k = ceil((n + 1) level).
    :raises DataError: there are too few subjects for the level.
    """
    if not 0 < level < 1:
        raise DataError(f"The level of an interval is {level:g}. Expected: above 0 and below 1, for example 0.9.")
    rank = math.ceil((len(scores) + 1) * level - _ROUNDING)
    if rank > len(scores):
        raise DataError(
            f"{len(scores)} subjects cannot give intervals of {level:.0%}: that needs {fewest_subjects(level)} "
            f"subjects. The highest level of these is {attainable_level(len(scores)):.1%}. Choose a lower "
            "level, or add subjects."
        )
    return sorted(scores.values())[rank - 1]


def conformal_intervals(
    predictions: Sequence[float], scales: Sequence[float], factor: float, lowest: float = -math.inf
) -> list[tuple[float, float]]:
    """Return the interval of each prediction: prediction -+ factor x scale.

    :param predictions: of a new subject.
    :param scales: expected size of each error, as in the calibration.
    :param factor: of :func:`conformal_factor`.
    :param lowest: that the reference can be, as 0 for a volume; the interval ends there, which loses no coverage.
    :returns: lower and upper limit of each.
    """
    return [
        (max(lowest, prediction - factor * scale), max(lowest, prediction + factor * scale))
        for prediction, scale in zip(predictions, scales, strict=True)
    ]
