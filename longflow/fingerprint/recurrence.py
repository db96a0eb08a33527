"""The fingerprint of recurrence: do scans of a subject repeat, after which periods, and what a forecast gains by it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from longflow.data.recurrence import FEWEST_SCANS, Kernel, infer_recurrence, period_probabilities
from longflow.fingerprint.temporal import interval_percentiles
from longflow.spread import evenly_spaced

#: the kernels that are tried
KERNELS = tuple(Kernel(length, noise) for length in (0.7, 1.5) for noise in (0.01, 0.03, 0.1))
#: candidates for the period, in equal ratios
PERIODS = 48
#: shortest candidate, in median intervals: two scans in a period cannot be told from twice as many
SHORTEST = 2.5
#: longest candidate, in median spans from first scan to last
LONGEST = 1.15
#: width of the smoothing over subjects, in the logarithm of the period
SMOOTHING = 0.1
#: share of probability that is spread over all candidates: a new subject can be unlike all others
UNLIKE = 0.01
#: forecasts of the training scans that are measured (and so most subjects), and most context scans of one
MOST_TARGETS, MOST_SCANS = 120, 8
#: scans of a subject that its period is inferred from: its first ones
MOST_FOR_PERIOD = 24


class RecurrenceFingerprint(BaseModel):
    """Forecasts of training scans as the expected scan of a subject that repeats (:mod:`longflow.data.recurrence`)."""

    model_config = ConfigDict(extra="forbid")

    periods: list[float] = Field(description="candidates, in time units")
    probabilities: list[float] = Field(description="of each candidate, over the training subjects")
    length: float = Field(gt=0, description="of the kernel")
    noise: float = Field(gt=0, description="of the kernel")
    relative_error: float = Field(
        ge=0, description="RMSE over that of the last context image (LCI), by coarse blocks, mean over subjects"
    )
    better: int = Field(ge=0, description="subjects in which the error is below LCI's")
    subjects: int = Field(ge=1, description="subjects with four scans and more, which were measured")


class _Scans(NamedTuple):
    times: np.ndarray
    similarity: np.ndarray


def find_recurrence(
    times: Sequence[Sequence[float]], similarities: Sequence[np.ndarray]
) -> RecurrenceFingerprint | None:
    """Measure how well scans are forecast if every subject repeats, with the best kernel of ``KERNELS``.

    Each scan after the third of a subject is forecast from the scans before it, as far as the numbers of targets and
    context scans allow. Only coarse views are compared, so the shares are not those of whole volumes.

    :param times: of each subject, ascending.
    :param similarities: of each subject, :func:`longflow.data.recurrence.scan_similarity` of all scans.
    :returns: the measured numbers; None where no subject has more than three scans.
    """
    subjects = [
        _Scans(np.asarray(one, float), similarity)
        for one, similarity in zip(times, similarities, strict=True)
        if len(one) > FEWEST_SCANS
    ]
    if not subjects:
        return None
    subjects = [subjects[place] for place in evenly_spaced(len(subjects), MOST_TARGETS)]
    interval = interval_percentiles([one.times for one in subjects], [50])[0]
    longest = LONGEST * np.median([one.times[-1] - one.times[0] for one in subjects])
    if longest <= SHORTEST * interval:
        return None
    periods = np.geomspace(SHORTEST * interval, longest, PERIODS)
    measured = [_measure(subjects, periods, kernel) for kernel in KERNELS]
    return min(measured, key=lambda one: one.relative_error)


def _measure(subjects: Sequence[_Scans], periods: np.ndarray, kernel: Kernel) -> RecurrenceFingerprint:
    common = probabilities_of_periods(subjects, periods, kernel)
    ratios = []
    for subject, targets in zip(subjects, _targets(subjects), strict=True):
        errors = [_squared_errors(subject, target, periods, common, kernel) for target in targets]
        own, lci = np.sqrt(np.maximum(errors, 0)).mean(axis=0)
        ratios.append(own / lci if lci > 0 else 1.0)
    return RecurrenceFingerprint(
        periods=periods.tolist(),
        probabilities=common.tolist(),
        length=kernel.length,
        noise=kernel.noise,
        relative_error=float(np.mean(ratios)),
        better=sum(ratio < 1 for ratio in ratios),
        subjects=len(ratios),
    )


def probabilities_of_periods(subjects: Sequence[_Scans], periods: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Average the posterior probabilities of all subjects, smoothed: which periods occur.

    :returns: (periods,), sum 1.
    """
    even = np.full(len(periods), 1 / len(periods))
    first = slice(MOST_FOR_PERIOD)
    found = sum(
        period_probabilities(one.times[first], one.similarity[first, first], periods, even, kernel) for one in subjects
    )
    logarithms = np.log(periods)
    smoothed = np.exp(-(((logarithms[:, None] - logarithms) / SMOOTHING) ** 2) / 2) @ found
    return (1 - UNLIKE) * smoothed / smoothed.sum() + UNLIKE * even


def _targets(subjects: Sequence[_Scans]) -> Iterator[Sequence[int]]:
    """Choose the scans of each subject that are forecast: all after the third, or as many as ``MOST_TARGETS`` allow."""
    most = max(1, MOST_TARGETS // len(subjects))
    for subject in subjects:
        possible = range(FEWEST_SCANS, len(subject.times))
        yield [possible[-1 - place] for place in evenly_spaced(len(possible), most)]


def _squared_errors(
    subject: _Scans, target: int, periods: np.ndarray, probabilities: np.ndarray, kernel: Kernel
) -> tuple[float, float]:
    """Compute the mean squared errors of the expected scan and of LCI."""
    context = evenly_spaced(target, MOST_SCANS)
    similarity = subject.similarity[np.ix_(context, context)]
    times = subject.times[context]
    weights = infer_recurrence(times, subject.times[target], similarity, periods, probabilities, kernel).weights
    last = np.zeros(len(context))
    last[-1] = 1
    with_target, own = subject.similarity[context, target], subject.similarity[target, target]
    return tuple(float(one @ similarity @ one - 2 * one @ with_target + own) for one in (weights, last))
