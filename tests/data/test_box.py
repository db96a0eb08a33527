import numpy as np

from longflow.data.box import box_slices, nonzero_box


def test_the_box_holds_every_scan():
    first, second = np.zeros((2, 8, 9, 10)), np.zeros((2, 8, 9, 10))
    first[0, 2, 3, 4] = 1
    second[1, 5, 1, 8] = -1  # in another channel, and below zero
    assert nonzero_box([first, second]) == [[2, 6], [1, 4], [4, 9]]
    assert first[(0, *box_slices([[2, 3], [3, 4], [4, 5]]))] == 1


def test_a_series_of_zeros_keeps_its_grid():
    assert nonzero_box([np.zeros((1, 3, 4, 5))]) == [[0, 3], [0, 4], [0, 5]]
