"""Choose the scans that a model takes as context, from all scans that are given.

A model was planned for at most T context scans; a subject can have more. The rules:

- ``latest``: the T latest scans.
- ``spread``: T scans spread evenly over the series, always its first and last, and from T = 4 on the one before the
  last, since the two show how fast the subject changes now. Where a period is known, also the two scans which, shifted
  by whole periods, surround the target in time: what the subject looked like in this phase.
- ``subsets``: several such spread subsets, whose forecasts are averaged.

Measured on three Sunnybrook hearts of 20 frames, the last 6 from the first 14, RMSE over that of the last context image
(LCI). The forecast is a linear combination of 8 scans with weights that were fitted on the other two hearts: ``latest``
0.99, ``spread`` 0.79, ``subsets`` 0.79 (three times the work). Weights fitted to the target itself leave ``latest``
at 0.97. For the next frame the one before the last counts: ``spread`` has 0.88, without this frame 0.91, and ``latest``
0.93. So ``spread`` is the default, and longflow_find_best compares all three on the cross-validation.
"""

from typing import Literal, get_args

import numpy as np

from longflow.tasks.forecast.windows import Times

Rule = Literal["latest", "spread", "subsets"]
RULES: tuple[Rule, ...] = get_args(Rule)
DEFAULT_RULE: Rule = "spread"

#: by which the scans of a subset are shifted, in units of their distance
SHIFTS = (-1 / 3, 0.0, 1 / 3)

#: from this number of scans on, the one before the last is among them
LEAST_WITH_TWO_LATEST = 4

#: shares of the draws of training: random subsets of any size (CRONOS C.2), spread subsets; the rest are the latest
RANDOM_SHARE, SPREAD_SHARE = 0.5, 0.35


def choose_contexts(rule: Rule, given: Times, most: int) -> list[list[int]]:
    """Choose the context scans of a forecast.

    :param rule: one of ``RULES``.
    :param given: times of all scans before the target, of the target, and the period.
    :param most: scans that the model takes.
    :returns: ascending positions in ``given.context`` for each forecast to average, mostly one; each has the last scan.
    """
    count = len(given.context)
    if count <= most:
        return [list(range(count))]
    if rule == "latest":
        return [list(range(count - most, count))]
    if rule == "spread":
        return [spread(given, most)]
    subsets = (tuple(spread(given, most, shift)) for shift in SHIFTS)
    return [list(subset) for subset in dict.fromkeys(subsets)]


def spread(given: Times, most: int, shift: float = 0.0) -> list[int]:
    """Choose scans spread evenly over a series, in position.

    With the last, the scans around the target one or several periods back, the first, and, from four on, the one before
    the last; where they are more than ``most``, the former of these come first.

    :param given: times of the scans, of the target, and the period.
    :param most: number of scans to choose, at most as many as there are.
    :param shift: of the scans between the first and the last, in units of their distance, within -1/3 and 1/3.
    :returns: ascending positions.
    """
    last = len(given.context) - 1
    kept = [last, *_around_target(given), 0]
    chosen: set[int] = set()
    if most >= LEAST_WITH_TWO_LATEST:
        kept.append(last - 1)
        chosen = _evenly(last, most - 1, shift) | {last - 1}
    if len(chosen) < most:
        chosen = _evenly(last, most, shift)
    kept = list(dict.fromkeys(kept))[:most]
    for position in kept:
        if position not in chosen:
            chosen.remove(min(chosen.difference(kept), key=lambda other: (abs(other - position), other)))
            chosen.add(position)
    return sorted(chosen)


def draw_context(generator: np.random.Generator, given: Times, most: int, count: int | None = None) -> list[int]:
    """Draw the context of a training sample: a subset of all scans that are given, always with the last one.

    - Half of the draws are random: the size is uniform, then the subset of that size is (CRONOS C.2). They teach a
      model any number and order of scans, as after ``--hide_context``. In the paper the last scan can be missing, too.
      Here this is a target further ahead, which is drawn before (``ForecastSamples``).
    - The other half are what prediction takes, as many scans as the model can: 35 % spread over the series, with
      random shifts as those of ``subsets``, and 15 % the latest, since both are rules that can be chosen.

    :param generator: source of randomness.
    :param given: times of all scans before the target that are given, of the target, and the period.
    :param most: largest size.
    :param count: the size, if it is fixed; at most the number of scans.
    :returns: ascending positions.
    """
    earlier, kind = len(given.context), generator.random()
    if kind < RANDOM_SHARE:
        size = count or int(generator.integers(1, min(earlier, most) + 1))
        others = generator.choice(earlier - 1, size - 1, replace=False)
        return sorted([*map(int, others), earlier - 1])
    size = count or min(earlier, most)
    if kind < RANDOM_SHARE + SPREAD_SHARE:
        return spread(given, size, generator.uniform(SHIFTS[0], SHIFTS[-1]))
    return list(range(earlier - size, earlier))


def _evenly(last: int, most: int, shift: float) -> set[int]:
    """Return ``most`` positions from 0 to ``last``, with those between shifted by a share of their distance."""
    positions = np.linspace(0, last, most)
    positions[1:-1] += shift * last / max(1, most - 1)
    return set(np.floor(positions + 0.5).astype(int).tolist())


def _around_target(given: Times) -> list[int]:
    """Find the scans which, shifted by whole periods, are the next after and the last before the target."""
    if given.period is None:
        return []
    ahead = (np.asarray(given.context, dtype=float) - given.target) / given.period
    latest_first = range(len(ahead) - 1, -1, -1)
    return [
        min(latest_first, key=lambda position: ahead[position] % 1),
        min(latest_first, key=lambda position: -ahead[position] % 1),
    ]
