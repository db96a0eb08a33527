"""Tests of paired differences over few subjects, and their correction where several are made."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np

#: a difference is called one where chance alone would give it at most this often
LEVEL = 0.05

#: the fewest subjects over which the sign-flip test can reach ``LEVEL``: 2 of its 2^n sign patterns are as extreme as
#: all signs alike
FEWEST_FOR_A_VERDICT = 6

#: with more values than this, sign patterns are drawn
_ENUMERATED = 14
_DRAWN = 20_000
_SEED = 0

Key = TypeVar("Key", bound=Hashable)


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Compute the two-sided p value of the sign-flip test of paired differences.

    If two methods are alike, the difference of each subject has either sign with equal chance. The p value is the
    share of all sign patterns whose absolute sum is at least the one found. It needs no distribution, only one that is
    symmetric if methods are alike (Fisher, The Design of Experiments, 1935, section 21). With more than 14 subjects,
    20,000 patterns are drawn from one seed, and the pattern found is one of them (Phipson & Smyth 2010).

    :param differences: one of each subject.
    :returns: None without any.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return None
    found = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # equal sums in another order of adding
    if len(values) <= _ENUMERATED:
        patterns = np.arange(2 ** (len(values) - 1))[:, None] >> np.arange(len(values)) & 1  # one sign is fixed
        return float(np.mean(np.abs((1 - 2 * patterns) @ values) >= found))
    generator = np.random.default_rng(_SEED)
    portion = max(1, 1_000_000 // len(values))  # patterns drawn at a time, so that memory stays small
    extreme = 0
    for done in range(0, _DRAWN, portion):
        signs = 1 - 2 * generator.integers(0, 2, (min(portion, _DRAWN - done), len(values)))
        extreme += int((np.abs(signs @ values) >= found).sum())
    return (extreme + 1) / (_DRAWN + 1)


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Correct the p values of several tests, so that the chance of any false finding is at most the level.

    Holm, Scandinavian Journal of Statistics 6 (1979): the k-th smallest of m values is multiplied by m - k + 1.

    :param p_values: None where a test is not defined; it does not count.
    :returns: corrected values under the same keys.
    """
    defined = sorted((value, position) for position, value in enumerate(p_values.values()) if value is not None)
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, (value, position) in enumerate(defined):
        highest = max(highest, min(1.0, value * (len(defined) - rank)))
        corrected[position] = highest
    return {key: corrected.get(position) for position, key in enumerate(p_values)}


def compared_with_best(values: Mapping[Key, Mapping[str, float]], best: Key) -> dict[Key, float | None]:
    """Test all candidates against the best of them, which was found on the same values.

    Any of the candidates could have been the best, so the correction is for all pairs of candidates.

    :param values: of each candidate: value by subject, of the same subjects.
    :param best: one of the candidates.
    :returns: corrected p value of each other candidate.
    """
    pairs = {
        frozenset((one, other)): sign_flip_p([values[one][subject] - values[other][subject] for subject in values[one]])
        for one, other in combinations(values, 2)
    }
    corrected = holm(pairs)
    return {one: corrected[frozenset((one, best))] for one in values if one != best}


def is_difference(p: float | None) -> bool:
    """Return whether a (corrected) p value makes a difference a finding."""
    return p is not None and p <= LEVEL
