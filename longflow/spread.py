"""A few of many, spread evenly: which targets, subjects or steps are looked at where all are too many."""

import numpy as np


def evenly_spaced(count: int, most: int) -> list[int]:
    """Choose positions evenly spaced from the first to the last.

    :param count: number of positions.
    :param most: how many to choose at most.
    :returns: ascending positions, all different; the first alone where one is chosen.

    >>> evenly_spaced(6, 3)
    [0, 2, 5]
    """
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()
