"""The ladder of baselines: forecasts of a target without any training, in the units of its last context scan.

A trained model is worth its training where it is better than the best rung, so every table, figure and choice names it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from longflow.data.images import Volume
from longflow.data.periods import neighbours_in_period
from longflow.evaluation.references import read_like
from longflow.evaluation.summary import Row, summary
from longflow.registration.motion import carried_on, motion_between
from longflow.tasks.forecast.pairs import OWN_GRID, ForecastPrediction

#: the rungs, simpler ones first: of two that are equally good, the first is the best
LCI, CONTEXT_MEAN, LINEAR, MOTION, PERIODIC, RECURRENCE = RUNGS = (
    "lci",
    "context_mean",
    "linear",
    "motion",
    "periodic",
    "recurrence",
)

#: their names in tables and figures
RUNG_NAMES = {
    LCI: "LCI",
    CONTEXT_MEAN: "context mean",
    LINEAR: "linear",
    MOTION: "motion",
    PERIODIC: "periodic",
    RECURRENCE: "recurrence",
}


@dataclass(frozen=True)
class Given:
    """The scans of a target that its rungs are made from; volumes are (channels, z, y, x), float32.

    :param last: the last context scan.
    :param mean: of all context scans.
    :param before: the second last; None where there is one scan.
    :param ahead: horizon over the interval between both; 0 where there is one scan.
    :param around: the scans around the target one or more periods back or on, and the weight of the second; None where
        no period is known.
    :param expected: the weighted sum of the context scans, where scans are taken to repeat; None elsewhere.
    """

    last: Volume
    mean: np.ndarray
    before: np.ndarray | None = None
    ahead: float = 0.0
    around: tuple[np.ndarray, np.ndarray, float] | None = None
    expected: np.ndarray | None = None


class Rung(NamedTuple):
    """The forecast of a rung.

    :param forecast: (channels, z, y, x), float32.
    :param folded: share of voxels at which its motion folds.
    """

    name: str
    forecast: np.ndarray
    folded: float = 0.0


def read_given(pair: ForecastPrediction, reference: Volume) -> Given:
    """Read the context scans of a target; at most six volumes are in memory at a time.

    :param pair: with its context scans.
    :param reference: of the pair; all scans must have its grid.
    :raises DataError: a scan has another grid; it is named.
    """
    times, around, kept = sorted(pair.context_times), None, {}
    cases = [case for _, case in sorted(zip(pair.context_times, pair.context, strict=True))]
    if pair.period is not None:
        around = neighbours_in_period(times, pair.target_time, pair.period)
    total, before, last, expected = None, None, None, None
    for position, files in enumerate(pair.context_images):
        before, last = last, read_like(files, reference, pair.reference[0], OWN_GRID)
        total = last.array.astype(np.float64) if total is None else total + last.array
        if weight := pair.recurrence.get(cases[position], 0.0):
            part = np.float32(weight) * last.array
            expected = part if expected is None else expected + part
        if around is not None and position in around[:2]:
            kept[position] = last.array
    interval = times[-1] - times[-2] if len(times) > 1 else 0.0
    moves = before is not None and interval > 0
    return Given(
        last,
        (total / len(pair.context_images)).astype(np.float32),
        before.array if moves else None,
        pair.horizon / interval if moves else 0.0,
        None if around is None else (kept[around[0]], kept[around[1]], around[2]),
        expected,
    )


def rungs(given: Given, steps: Mapping[str, float]) -> Iterator[Rung]:
    """Forecast a target by every rung that is defined for it, one at a time.

    :param steps: step of ``motion`` by the name under which its forecast is returned.
    :returns: each rung.
    """
    last = given.last.array
    yield Rung(LCI, last)
    yield Rung(CONTEXT_MEAN, given.mean)
    yield Rung(LINEAR, last if given.before is None else last + (last - given.before) * np.float32(given.ahead))
    if given.before is not None:
        velocity = motion_between(given.before[0], last[0], given.last.geometry.array_spacing)
    for name, step in steps.items():
        yield Rung(name, *((last,) if given.before is None else carried_on(last, velocity, step * given.ahead)))
    if given.around is not None:
        before, after, weight = given.around
        yield Rung(PERIODIC, before + (after - before) * np.float32(weight))
    if given.expected is not None:
        yield Rung(RECURRENCE, given.expected)


def rung_names(pairs: Sequence[ForecastPrediction], steps: Mapping[str, float]) -> list[str]:
    """List the rungs that are defined for all targets, in the order of :func:`rungs`; no scan is read."""
    periodic = [PERIODIC] if all(pair.period is not None for pair in pairs) else []
    recurrence = [RECURRENCE] if all(pair.recurrence for pair in pairs) else []
    return [LCI, CONTEXT_MEAN, LINEAR, *steps, *periodic, *recurrence]


def best_rung(rows: Sequence[Row]) -> str:
    """Find the rung with the lowest mean NRMSE over subjects, among those that are defined for all targets.

    It is chosen on the targets that a forecast is then compared on, which favours the ladder, never the forecast.

    :param rows: of :func:`longflow.tasks.forecast.evaluation.evaluate_pairs`.
    :returns: its name; LCI where no target is defined.
    """
    of_rung = {rung: [row for row in rows if row["method"] == rung] for rung in RUNGS}
    defined = {
        rung: summary([row["subject"] for row in own], [row["nrmse"] for row in own])["mean"]
        for rung, own in of_rung.items()
        if len(own) == len(of_rung[LCI])
    }
    means = {rung: mean for rung, mean in defined.items() if mean is not None}
    return min(means, key=lambda rung: means[rung], default=LCI)
