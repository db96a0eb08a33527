"""Ensembles of two models as candidates, and what a choice among candidates is worth for new subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from longflow.evaluation.metric import Better


def means_of_two(
    names: Sequence[str], fit: Callable[[int, int], bool] = lambda one, other: True
) -> dict[str, tuple[int, int]]:
    """List the ensembles of two models.

    :param names: of the models.
    :param fit: whether the predictions of two models, by their positions, can be averaged.
    :returns: the positions of both models by the name of the ensemble.

    >>> means_of_two(["unet", "mfm"])
    {'unet + mfm': (0, 1)}
    """
    return {
        f"{names[one]} + {names[other]}": (one, other)
        for one, other in combinations(range(len(names)), 2)
        if fit(one, other)
    }


def subject_weights(subjects: Sequence[str]) -> np.ndarray:
    """Return weights of items: the weighted sum is the mean over subjects of each subject's mean over its items.

    :param subjects: of each item.
    """
    number_of_items = {subject: list(subjects).count(subject) for subject in set(subjects)}
    return np.array([1 / (len(number_of_items) * number_of_items[subject]) for subject in subjects])


def first_minimum(means: np.ndarray) -> tuple[int, int]:
    """Find the lowest mean; among equals the first candidate, then its first setting.

    :param means: (candidates, settings).
    :returns: position of the candidate, position of the setting.
    """
    candidate, setting = np.unravel_index(np.argmin(means), means.shape)
    return int(candidate), int(setting)


@dataclass(frozen=True)
class NestedChoice:
    """A choice that was repeated without the subjects of each fold in turn, and judged on that fold.

    :param error: of the choices, mean over subjects.
    :param optimism: ``error`` minus the lowest mean where choice and judgement share all items.
    :param choices: fold, position of the candidate, position of its setting.
    """

    error: float
    optimism: float
    choices: list[tuple[int, int, int]]


def nested_choice(curves: np.ndarray, subjects: Sequence[str], of_fold: np.ndarray) -> NestedChoice | None:
    """Estimate the error when candidate and setting are chosen without the subjects they are judged on.

    Splits of the user may validate a subject in several folds. So the choice for a fold is made without all items of
    its subjects, in whatever fold they are.

    :param curves: (candidates, items, settings), errors.
    :param subjects: of each item.
    :param of_fold: (items,), the fold of each item.
    :returns: the estimate; None where a fold has all subjects, as with a single fold.
    """
    folds, names = sorted(set(of_fold.tolist())), np.array(subjects)
    if any(np.isin(names, names[of_fold == fold]).all() for fold in folds):
        return None
    judged, choices = np.empty(len(names)), []
    for fold in folds:
        own = of_fold == fold
        others = ~np.isin(names, names[own])
        means = curves[:, others].transpose(0, 2, 1) @ subject_weights(names[others].tolist())
        chosen, setting = first_minimum(means)
        judged[own] = curves[chosen, own, setting]
        choices.append((fold, chosen, setting))
    weights = subject_weights(names.tolist())
    error = float(judged @ weights)
    return NestedChoice(error, error - float((curves.transpose(0, 2, 1) @ weights).min()), choices)


def nested_estimate(
    values: Mapping[str, Mapping[tuple[int, str], float]], name: str, better: Better
) -> dict[str, Any] | None:
    """Estimate what a choice among candidates is worth for new subjects (:func:`nested_choice`).

    :param values: of each candidate, simpler ones first: value by fold and subject, the same for all.
    :param name: of the value.
    :param better: whether higher or lower values win.
    :returns: the value under its name, optimism (how much better the chosen candidate looks) and choices (fold,
        candidate); None where a fold has all subjects.
    """
    sign = 1 if better == "lower" else -1
    places = sorted(next(iter(values.values())))
    curves = np.array([[[sign * own[place]] for place in places] for own in values.values()])
    found = nested_choice(curves, [subject for _, subject in places], np.array([fold for fold, _ in places]))
    if found is None:
        return None
    candidates = list(values)
    return {
        name: sign * found.error,
        "optimism": found.optimism,
        "choices": [{"fold": fold, "candidate": candidates[chosen]} for fold, chosen, _ in found.choices],
    }
