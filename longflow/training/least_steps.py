"""Find the least number of solver steps whose predictions equal those of the planned number.

A flow that is still nearly straight needs one step where ten are planned. Two numbers of steps are equal on the items
of a validation if

- the score, and on average over the items the error of each prediction, differ by at most ``ALIKE`` of the skill (the
  score of the unchanged input minus that of the method), so that differences of two items cannot cancel;
- no prediction differs from that of the planned steps by more than ``ALIKE`` of what it changes, both as sums of
  squares, so that different predictions with equal errors are noticed.

Where the method has no skill, nothing is within a share of it, and the planned number stays.
"""

from collections.abc import Callable

import numpy as np

from longflow.flow.solvers import ORDERS
from longflow.methods.method import Method
from longflow.training.validation import Score

#: numbers of steps that are tried, where they are below the planned one
TRIED = (1, 2, 3, 5, 10, 20, 50, 100)

#: largest share of the skill, and of the squared change, by which equal predictions differ
ALIKE = 0.01

#: the validations of a run at which the number is measured; it also is at the last one
MEASURED_AT = frozenset(10**power for power in range(10))


def could_take_fewer(method: Method) -> bool:
    """Tell whether a method integrates with planned steps, more than the fewest.

    :param method: with the planned solver and steps.
    :returns: False also for dopri5, which chooses its steps itself, and for a flow from a noisy source: few steps
        forecast its mean as well as many, but its samples would differ too little (one Euler step: not at all).
    """
    return method.integrates and not method.stochastic and method.solver in ORDERS and method.steps > TRIED[0]


def least_steps(planned: int, score_with: Callable[[int], Score]) -> tuple[int, Score]:
    """Find the least number of steps that equals the planned one; the planned one itself where none does.

    :param planned: number of steps.
    :param score_with: scores the method with a number of steps, on the same items every time.
    :returns: the number, and the score with it.
    """
    reference = score_with(planned)
    if reference.baseline is not None:
        for steps in (number for number in TRIED if number < planned):
            score = score_with(steps)
            if are_equal(score, reference):
                return steps, score
    return planned, reference


def are_equal(score: Score, reference: Score) -> bool:
    """Tell whether two scores of the same items are of equal predictions.

    :param score: with some number of steps.
    :param reference: with the planned number.
    :returns: True where nothing differs by more than ``ALIKE``.
    """
    most = ALIKE * abs(reference.baseline - reference.value)
    of_errors = np.abs(np.subtract(score.errors, reference.errors)).mean(axis=0)
    return bool(
        abs(score.value - reference.value) <= most
        and np.all(of_errors <= most)
        and all(
            np.square(one - other).sum() <= ALIKE * np.square(other).sum()
            for one, other in zip(score.changes, reference.changes, strict=True)
        )
    )
