import numpy as np
import pytest

from longflow.tasks.segment.lesions import LesionCounts, count_lesions

SHAPE = (8, 30, 40)


def lesions(*corners, size=3):
    """Cubes with these lowest corners."""
    mask = np.zeros(SHAPE, bool)
    for z, y, x in corners:
        mask[z : z + size, y : y + size, x : x + size] = True
    return mask


def test_lesions_by_construction():
    """Four true ones, of which three are met; four found ones, of which two are nowhere near."""
    true = lesions((0, 0, 0), (0, 10, 10), (0, 16, 10), (4, 20, 30))
    found = lesions((1, 1, 1), (4, 0, 30), (4, 25, 0))
    found[1, 10:19, 11] = True  # one found lesion that joins two true ones
    counts = count_lesions(found, true)
    assert counts == LesionCounts(reference=4, detected=3, predicted=4, correct=2)
    assert (counts.precision, counts.recall) == (0.5, 0.75)
    assert counts.f1 == pytest.approx(2 * 0.5 * 0.75 / 1.25)


def test_one_voxel_of_overlap_is_enough():
    assert count_lesions(lesions((2, 2, 2)), lesions((0, 0, 0))) == LesionCounts(1, 1, 1, 1)
    assert count_lesions(lesions((3, 3, 3)), lesions((0, 0, 0))) == LesionCounts(1, 0, 1, 0)


def test_voxels_that_touch_by_a_corner_are_one_lesion():
    true = lesions((0, 0, 0), (3, 3, 3))
    assert count_lesions(true, true) == LesionCounts(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("found", "true", "precision", "recall", "f1"),
    [
        (lesions(), lesions(), None, None, None),
        (lesions(), lesions((0, 0, 0)), None, 0.0, 0.0),
        (lesions((0, 0, 0)), lesions(), 0.0, None, 0.0),
        (lesions((0, 0, 0)), lesions((4, 20, 30)), 0.0, 0.0, 0.0),
    ],
)
def test_absent_lesions(found, true, precision, recall, f1):
    counts = count_lesions(found, true)
    assert (counts.precision, counts.recall, counts.f1) == (precision, recall, f1)
