"""The reference of the fitness gate: how the training subjects spread, and how far a new one may be from them.

In each measure, the deviation of a subject in standard deviations is divided by the largest one of a training subject
from the others, so that a measure with rare large values does not hide the others. The score of a subject is its
largest ratio. Each training subject is scored against the others (leave one subject out), and thresholds are
quantiles of these scores. With n subjects, the rank rule of conformal prediction holds: of new subjects of the same
kind, about 1 - k / (n + 1) exceed the k-th smallest of n scores (Vovk et al., Algorithmic Learning in a Random World,
2005). So no rule can promise fewer false alarms than 1 / (n + 1).
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from longflow.fitness.looks import AXES, CELLS, Look, agreement, halved, stretched
from longflow.fitness.series import Observation, Observed
from longflow.fitness.stored import FEWEST_SUBJECTS, FitnessReference, Spread

#: share of subjects of the training's kind that may be called doubtful, where there are enough subjects
FALSE_ALARMS = 0.05
#: standard deviations of the log scores beyond their mean at which 1 of 20, and 1 of 1000, of a normal distribution lie
DOUBTFUL_DEVIATIONS, UNFIT_DEVIATIONS = 1.645, 3.09
#: differences that mean nothing, by the first word of a measure: spreads of the training data below them count as these
RESOLUTION = {
    "spacing": 0.02,
    "field": 0.03,
    "shift": 0.5,
    "interval": 0.1,
    "horizon": 0.1,
    "scans": 0.2,
    "course": 0.1,
}
OTHER_RESOLUTION = 0.05
#: measures of which only low, or only high values are suspicious
LOW, HIGH = ("anatomy", "mirrored", "agreement", "pair mirrored", "direction"), ("course", "scans")
#: standard deviations that a training subject deviates at least in each measure: where all are equal, nothing is known
LEAST_USUAL = 2.0
#: the kind of observation of two neighbouring scans
PAIR = "pair"
#: largest value of a template that is stored, in standard deviations, and the number that stands for it
LARGEST, STEPS = 6.0, 32767


@dataclass(frozen=True)
class Distance:
    """How far a subject is from the training data in one measure.

    :param kind: of the observation.
    :param position: of the observation among those of its kind.
    :param score: relative to the largest deviation of a training subject from the others.
    """

    kind: str
    position: int
    measure: str
    value: float
    score: float


def kind_of_scan(phase: str) -> str:
    """Return the kind of observation that a scan is. :param phase: contrast phase, or empty."""
    return f"scan {phase}".strip()


def observations(subject: Observed, templates: Mapping[str, np.ndarray]) -> dict[str, list[Observation]]:
    """List all observations of a subject.

    :param templates: (channels, 12, 12, 12), by kind of scan.
    :returns: by kind, in order of time.
    """
    found: dict[str, list[Observation]] = {}
    for look, phase in zip(subject.looks, subject.kinds, strict=True):
        kind = kind_of_scan(phase)
        likeness = compare_with_template(look, templates[kind]) if kind in templates else {}
        found.setdefault(kind, []).append({**look.values, **likeness})
    found |= {kind: some for kind, some in subject.further.items() if some}
    if PAIR in found and PAIR in templates:
        found[PAIR] = [
            {**pair, **compare_with_change(change, templates[PAIR])}
            for pair, change in zip(found[PAIR], _changes(subject), strict=True)
        ]
    return found


def compare_with_change(change: np.ndarray, template: np.ndarray) -> Observation:
    """Compare the change from one scan to the next with the mean change of the training: ``direction``."""
    return {"direction": stretched(agreement(change, template))} if change.shape == template.shape else {}


def _changes(subject: Observed) -> list[np.ndarray]:
    """Return the change from each scan to the next: (channels, 12, 12, 12), in the normal form."""
    return [halved(other.picture - one.picture) for one, other in pairwise(subject.looks)]


def compare_with_template(look: Look, template: np.ndarray) -> Observation:
    """Compare the picture of a scan with the mean picture of the training.

    :returns: ``anatomy``, the agreement, and for each axis that of the parts that change their sign in the mirror.
    """
    picture = halved(look.picture)
    if picture.shape != template.shape:
        return {}
    mirrored = {
        f"mirrored {axis}": stretched(agreement(_odd(picture, 1 + number), _odd(template, 1 + number)))
        for number, axis in enumerate(AXES)
    }
    return {"anatomy": stretched(agreement(picture, template)), **mirrored}


def _odd(picture: np.ndarray, axis: int) -> np.ndarray:
    """Return the part of a picture that changes its sign in the mirror."""
    return picture - np.flip(picture, axis)


def learn_reference(subjects: Sequence[Observed]) -> FitnessReference | None:
    """Learn from the training subjects how far a new one may be from them.

    :param subjects: everything that is compared of each subject.
    :returns: the reference; None where there are too few subjects.
    """
    if len(subjects) < FEWEST_SUBJECTS:
        return None
    sums = [_pictures(subject) for subject in subjects]
    own = [
        observations(subject, _means(sums[:place] + sums[place + 1 :])) for place, subject in enumerate(subjects)
    ]  # templates without the subject: its own picture would resemble it
    moments = _moments(own)
    without = [_spreads(moments, place) for place in range(len(own))]
    deviations = [_largest(some, spreads) for some, spreads in zip(own, without, strict=True)]
    scores = [
        max((found / _usual(deviations, key, place) for key, found in some.items()), default=0.0)
        for place, some in enumerate(deviations)
    ]
    doubtful, unfit, level = thresholds(scores)
    return FitnessReference(
        subjects=len(subjects),
        doubtful=doubtful,
        unfit=unfit,
        false_alarms=level,
        spreads=_with_usual(_spreads(moments), deviations),
        templates={kind: _packed(template) for kind, template in _means(sums).items()},
    )


def thresholds(scores: Sequence[float]) -> tuple[float, float, float]:
    """Choose the scores above which a subject is doubtful, and unfit.

    Doubtful: the smallest score that at most 5 % of new subjects exceed by the rank rule. With fewer than 19 subjects
    no score is so high; then it is the largest one, or, if that is more, the one that 5 % exceed if logarithms of
    scores are normally distributed. Unfit: what 1 of 1000 exceeds in that distribution, but not less than any score.

    :param scores: of the training subjects, each against the others.
    :returns: both thresholds, and the share of false alarms that the rank rule allows at the first one.

    >>> thresholds([1.0] * 3 + [2.0])[2]
    0.2
    """
    ordered, count = np.sort(scores), len(scores)
    logs = np.log(np.maximum(ordered, 1e-3))
    widened = float(logs.std(ddof=1)) * float(np.sqrt(1 + 1 / count))
    rank = int(np.ceil((1 - FALSE_ALARMS) * (count + 1)))
    if rank <= count:
        doubtful, level = float(ordered[rank - 1]), 1 - rank / (count + 1)
    else:
        normal = float(np.exp(logs.mean() + DOUBTFUL_DEVIATIONS * widened))
        doubtful, level = max(float(ordered[-1]), normal), 1 / (count + 1)
    doubtful = max(doubtful, 1e-3)
    return doubtful, max(doubtful, float(ordered[-1]), float(np.exp(logs.mean() + UNFIT_DEVIATIONS * widened))), level


def distances(subject: Observed, reference: FitnessReference) -> list[Distance]:
    """Compare a new subject with the training subjects.

    :returns: the distance of each measure of each observation, largest first.
    """
    templates = {kind: _unpacked(text) for kind, text in reference.templates.items()}
    found = _distances(observations(subject, templates), reference.spreads)
    return sorted(found, key=lambda one: -one.score)


def _distances(
    some: Mapping[str, Sequence[Observation]], spreads: Mapping[str, Mapping[str, Spread]]
) -> Iterator[Distance]:
    for kind, of_kind in some.items():
        known = spreads.get(kind, {})
        for position, observation in enumerate(of_kind):
            for measure, value in observation.items():
                if measure in known:
                    spread = known[measure]
                    score = (value - spread.mean) / (spread.deviation * spread.usual)
                    yield Distance(kind, position, measure, value, suspicion(measure, score))


#: by (kind, measure): the largest deviation of a subject's observations, in standard deviations
Deviations = dict[tuple[str, str], float]


def _largest(some: Mapping[str, Sequence[Observation]], spreads: Mapping[str, Mapping[str, Spread]]) -> Deviations:
    result: Deviations = {}
    for one in _distances(some, spreads):
        key = one.kind, one.measure
        result[key] = max(result.get(key, 0.0), one.score * spreads[one.kind][one.measure].usual)
    return result


def _usual(deviations: Sequence[Deviations], key: tuple[str, str], without: int | None = None) -> float:
    """Return the largest deviation of a training subject in a measure. :param without: who does not count."""
    return max(LEAST_USUAL, *(one.get(key, 0.0) for place, one in enumerate(deviations) if place != without))


def _with_usual(
    spreads: Mapping[str, Mapping[str, Spread]], deviations: Sequence[Deviations]
) -> dict[str, dict[str, Spread]]:
    return {
        kind: {
            measure: Spread(**{**spread.model_dump(), "usual": _usual(deviations, (kind, measure))})
            for measure, spread in of_kind.items()
        }
        for kind, of_kind in spreads.items()
    }


def suspicion(measure: str, score: float) -> float:
    """Return how suspicious a deviation is: in both directions, or in one."""
    if measure.startswith(LOW):
        return -score
    return score if measure.startswith(HIGH) else abs(score)


#: by (kind, measure): for each subject [mean, mean square, smallest, largest] of its observations; NaN: it has none
Moments = dict[tuple[str, str], np.ndarray]


def _moments(own: Sequence[Mapping[str, Sequence[Observation]]]) -> Moments:
    values: dict[tuple[str, str], list[list[float]]] = {}
    for place, some in enumerate(own):
        for kind, of_kind in some.items():
            for observation in of_kind:
                for measure, value in observation.items():
                    values.setdefault((kind, measure), [[] for _ in own])[place].append(value)
    nothing = [np.nan] * 4
    return {
        key: np.array(
            [
                [np.mean(one), np.mean(np.square(one)), np.min(one), np.max(one)] if one else nothing
                for one in of_subjects
            ]
        )
        for key, of_subjects in values.items()
    }


def _spreads(moments: Moments, without: int | None = None) -> dict[str, dict[str, Spread]]:
    """Return the spread of each measure. :param without: position of a subject that does not count."""
    result: dict[str, dict[str, Spread]] = {}
    for (kind, measure), table in moments.items():
        rows = table if without is None else np.delete(table, without, axis=0)
        rows = rows[np.isfinite(rows[:, 0])]
        if len(rows) < 2:
            continue
        mean = rows[:, 0].mean()
        # within and between subjects; the mean was estimated from as many numbers as there are subjects
        variance = max(rows[:, 1].mean() - mean**2, 0.0) * len(rows) / (len(rows) - 1)
        least = RESOLUTION.get(measure.split()[0], OTHER_RESOLUTION)
        spread = Spread(
            mean=mean,
            deviation=float(np.hypot(np.sqrt(variance), least)),
            usual=LEAST_USUAL,
            low=rows[:, 2].min(),
            high=rows[:, 3].max(),
        )
        result.setdefault(kind, {})[measure] = spread
    return result


def _pictures(subject: Observed) -> dict[str, np.ndarray]:
    """Return the mean picture of a subject's scans, by kind, and the mean change between neighbours."""
    found: dict[str, list[np.ndarray]] = {}
    for look, phase in zip(subject.looks, subject.kinds, strict=True):
        found.setdefault(kind_of_scan(phase), []).append(halved(look.picture))
    if PAIR in subject.further and (changes := _changes(subject)):
        found[PAIR] = changes
    return {kind: np.mean(pictures, axis=0) for kind, pictures in found.items()}


def _means(of_subjects: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    kinds = dict.fromkeys(kind for one in of_subjects for kind in one)
    return {kind: np.mean([one[kind] for one in of_subjects if kind in one], axis=0) for kind in kinds}


def _packed(template: np.ndarray) -> str:
    numbers = np.rint(np.clip(template, -LARGEST, LARGEST) * STEPS / LARGEST).astype("<i2")
    return base64.b64encode(numbers.tobytes()).decode()


def _unpacked(text: str) -> np.ndarray:
    """Undo :func:`_packed`: (channels, 12, 12, 12)."""
    numbers = np.frombuffer(base64.b64decode(text), "<i2").astype(np.float32) * (LARGEST / STEPS)
    return numbers.reshape(-1, *(3 * [CELLS // 2]))
