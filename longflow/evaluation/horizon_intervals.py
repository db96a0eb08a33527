"""Conformal intervals of forecasts: their width grows with the horizon as errors do.

The expected size of an error is a line in the horizon, a + b h with a, b >= 0. Each score is |error| / size, with the
line of the other folds: it was not fitted to the error itself. A new forecast has the line of all folds.
Where the horizons have enough subjects, they are divided into groups with a factor each, so that a line that fits badly
does not spoil one end of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from longflow.errors import DataError
from longflow.evaluation.conformal import conformal_factor, conformal_intervals, fewest_subjects, subject_scores
from longflow.evaluation.summary import MAX_HORIZON_BINS, horizon_bins

#: horizons are compared with those of the calibration but for rounding
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ForecastError:
    """The error of an out-of-fold forecast.

    :param fold: that made the forecast and did not learn from the subject.
    :param horizon: time units.
    :param error: forecast - reference.
    """

    subject: str
    fold: int
    horizon: float
    error: float


@dataclass(frozen=True)
class Scale:
    """The expected size of an error: at_zero + per_time_unit x horizon, at least ``smallest``, in the error's unit."""

    at_zero: float
    per_time_unit: float
    smallest: float

    def at(self, horizon: float) -> float:
        """Return the expected size of an error. :param horizon: time units."""
        return max(self.smallest, self.at_zero + self.per_time_unit * horizon)


@dataclass(frozen=True)
class HorizonGroup:
    """The horizons that share a factor.

    :param shortest: horizon of the calibration, time units.
    :param longest: likewise.
    :param scores: of the subjects that have forecasts in the group, ascending.
    :param factor: of the scale in the intervals.
    """

    shortest: float
    longest: float
    scores: tuple[float, ...]
    factor: float


@dataclass(frozen=True)
class HorizonIntervals:
    """Intervals of new forecasts.

    :param level: lowest probability with which an interval holds.
    :param scale: of all folds.
    :param groups: in order of the horizon.
    """

    level: float
    scale: Scale
    groups: tuple[HorizonGroup, ...]

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "HorizonIntervals":
        """Read what :meth:`record` returned.

        :raises DataError: it is something else.
        """
        try:
            groups = tuple(
                HorizonGroup(**{**one, "scores": tuple(map(float, one["scores"]))}) for one in record["groups"]
            )
            found = cls(float(record["level"]), Scale(**record["scale"]), groups)
            numbers = [*asdict(found.scale).values()]
            numbers += [number for one in groups for number in (one.shortest, one.longest, one.factor, *one.scores)]
            if not (groups and 0 < found.level < 1 and np.isfinite(numbers).all() and min(numbers) >= 0):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise DataError("These are no intervals as longflow_calibrate writes them.") from error
        return found

    def record(self) -> dict[str, Any]:
        """Return all fields, as they are read from JSON."""
        groups = [{**asdict(one), "scores": list(one.scores)} for one in self.groups]
        return {"level": self.level, "scale": asdict(self.scale), "groups": groups}

    def group_of(self, horizon: float) -> HorizonGroup | None:
        """Return the group of a horizon; None outside of those of the calibration.

        :param horizon: time units. One between two groups belongs to the longer horizons.
        """
        if horizon < self.groups[0].shortest * (1 - _ROUNDING):
            return None
        return next((one for one in self.groups if horizon <= one.longest * (1 + _ROUNDING)), None)

    def interval(self, forecast: float, horizon: float) -> tuple[float, float] | None:
        """Return the interval of a volume, or of another number that cannot be below 0.

        :param horizon: time units.
        :returns: lower and upper limit; None for a horizon outside of those of the calibration.
        """
        group = self.group_of(horizon)
        if group is None:
            return None
        (limits,) = conformal_intervals([forecast], [self.scale.at(horizon)], group.factor, lowest=0.0)
        return limits

    def sample(self, forecast: float, horizon: float) -> np.ndarray | None:
        """Return numbers that stand for the predictive distribution: forecast -+ score x scale of each subject.

        :param horizon: time units.
        :returns: (2 subjects,), ascending, at least 0; None as for :meth:`interval`.
        """
        group = self.group_of(horizon)
        if group is None:
            return None
        distances = np.array(group.scores) * self.scale.at(horizon)
        return np.sort(np.maximum(0.0, forecast + np.concatenate([-distances, distances])))


def calibrate_by_horizon(errors: Sequence[ForecastError], level: float, smallest: float) -> HorizonIntervals:
    """Make intervals from the errors of out-of-fold forecasts.

    :param errors: of one number, as the volume of a structure.
    :param level: lowest probability with which an interval holds.
    :param smallest: size of an error that is always possible, as that of a voxel; above 0.
    :returns: the intervals.
    :raises DataError: there are too few subjects for the level, or an error is not finite.
    """
    of_folds = scales_of_folds(errors, smallest)
    groups = []
    for low, high in horizon_groups(errors, 2 * fewest_subjects(level)):
        own = [one for one in errors if low <= one.horizon <= high]
        scores = subject_scores(
            [one.subject for one in own],
            [one.error for one in own],
            [of_folds[one.fold].at(one.horizon) for one in own],
        )
        groups.append(HorizonGroup(low, high, tuple(sorted(scores.values())), conformal_factor(scores, level)))
    is_constant = all(scale == constant_scale(smallest) for scale in of_folds.values())
    scale = constant_scale(smallest) if is_constant else fit_scale(errors, smallest)
    return HorizonIntervals(level, scale, tuple(groups))


def scales_of_folds(errors: Sequence[ForecastError], smallest: float) -> dict[int, Scale]:
    """Fit the scale of each fold to the errors of subjects that it did not validate.

    :returns: by fold; one constant for all where a fold validated every subject, as with a single fold.
    """
    subjects = {fold: {one.subject for one in errors if one.fold == fold} for fold in {one.fold for one in errors}}
    others = {fold: [one for one in errors if one.subject not in own] for fold, own in subjects.items()}
    if not all(others.values()):
        return dict.fromkeys(others, constant_scale(smallest))
    return {fold: fit_scale(of_others, smallest) for fold, of_others in others.items()}


def constant_scale(smallest: float) -> Scale:
    """Return a scale that is the same for all horizons, where none can be fitted."""
    return Scale(smallest, 0.0, smallest)


def fit_scale(errors: Sequence[ForecastError], smallest: float) -> Scale:
    """Fit a + b horizon to |error| by least squares, with a, b >= 0; each subject has the same weight.

    :param errors: at least one.
    :param smallest: the scale is never below it.
    """
    number = Counter(one.subject for one in errors)
    weights = np.sqrt([1 / number[one.subject] for one in errors])
    horizons = np.array([one.horizon for one in errors])
    unit = horizons.max()
    design = np.stack([np.ones(len(errors)), horizons / unit], axis=1)
    sizes = np.abs([one.error for one in errors])
    (at_zero, slope), _ = nnls(design * weights[:, None], sizes * weights)
    return Scale(float(at_zero), float(slope / unit), smallest)


def horizon_groups(errors: Sequence[ForecastError], least: int) -> list[tuple[float, float]]:
    """Divide the horizons into as many groups as have enough subjects each, at most four; one where none has.

    :param least: number of subjects of a group.
    :returns: shortest and longest horizon of each group.
    """
    horizons = [one.horizon for one in errors]
    for most in range(MAX_HORIZON_BINS, 1, -1):
        bins = horizon_bins(horizons, most)
        subjects = [{one.subject for one in errors if low <= one.horizon <= high} for low, high in bins]
        if min(map(len, subjects)) >= least:
            return bins
    return [(min(horizons), max(horizons))]
