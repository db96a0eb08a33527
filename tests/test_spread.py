from itertools import pairwise

import pytest

from longflow.spread import evenly_spaced


def test_first_and_last_are_chosen_and_all_where_they_are_few():
    assert evenly_spaced(6, 3) == [0, 2, 5] and evenly_spaced(2, 8) == [0, 1] and evenly_spaced(0, 8) == []
    assert evenly_spaced(5, 1) == [0] and evenly_spaced(1, 1) == [0]


@pytest.mark.parametrize("count", [2, 7, 26, 39])
def test_neighbours_are_as_far_apart_as_whole_numbers_allow(count):
    for most in range(2, count + 1):
        chosen = evenly_spaced(count, most)
        gaps = [second - first for first, second in pairwise(chosen)]
        assert chosen[0] == 0 and chosen[-1] == count - 1 and len(chosen) == most
        assert all(abs(gap - (count - 1) / (most - 1)) < 1.01 for gap in gaps)
