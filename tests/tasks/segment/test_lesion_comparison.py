import numpy as np
import pytest

from longflow.data.images import Geometry
from longflow.tasks.segment.lesion_changes import ChangeRule, find_lesions, follow
from longflow.tasks.segment.lesion_comparison import CHANGED, count_calls, summarise_calls, total
from longflow.tasks.segment.lesions import LesionCounts

GRID = Geometry((60, 20, 8), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def visits(*of):
    """Visits of blocks: (start, stop) along x, 8 x 8 voxels across; 0.512 ml for each voxel of length."""
    scans = []
    for blocks in of:
        mask = np.zeros((8, 20, 60), bool)
        for start, stop in blocks:
            mask[:, 5:13, start:stop] = True
        scans.append(find_lesions(mask, GRID))
    return list(follow(scans, ChangeRule()))


def test_calls_by_construction():
    """The reference: one grows, one goes, one is new, one stays. The prediction misses the growth and invents one."""
    reference = visits([(0, 4), (10, 14), (20, 24)], [(0, 8), (20, 24), (30, 34)])
    predicted = visits([(1, 5), (11, 14), (20, 24)], [(1, 5), (20, 24), (31, 33), (50, 54)])
    counts = count_calls(predicted, reference)
    assert counts["grown"] == LesionCounts(1, 0, 0, 0)
    assert counts["gone"] == LesionCounts(1, 1, 1, 1)
    assert counts["new"] == LesionCounts(1, 1, 2, 1)
    assert counts["stable"] == LesionCounts(1, 1, 2, 1)
    assert counts["shrunk"] == counts["merged"] == counts["split"] == LesionCounts(0, 0, 0, 0)
    assert total([counts[change] for change in CHANGED]) == LesionCounts(3, 2, 3, 2)


def test_a_merged_lesion_counts_once():
    one = visits([(0, 4), (10, 14)], [(0, 14)])
    assert count_calls(one, one)["merged"] == LesionCounts(1, 1, 1, 1)
    assert count_calls(one[::-1], one[::-1])["merged"] == LesionCounts(0, 0, 0, 0)  # of the first visit
    split = visits([(0, 14)], [(0, 4), (10, 14)])
    assert count_calls(split, split)["split"] == LesionCounts(2, 2, 2, 2)


def test_a_change_elsewhere_is_not_called_right():
    new_here, new_there = visits([], [(0, 4)]), visits([], [(30, 34)])
    assert count_calls(new_here, new_there)["new"] == LesionCounts(1, 0, 1, 0)


def test_summary_over_subjects():
    right, wrong, still = visits([], [(0, 4)]), visits([], [(30, 34)]), visits([(0, 4)], [(0, 4)])
    summary = summarise_calls(
        {
            "a": [count_calls(right, right)],
            "b": [count_calls(wrong, right)],
            "c": [count_calls(still, still)],
            "d": [count_calls(right, right), count_calls(wrong, right)],
        }
    )
    assert summary["subjects"] == 4 and summary["subjects_right"] == ["a", "c"]
    assert summary["by_change"]["new"] == {"reference": 4, "detected": 2, "predicted": 4, "correct": 2}
    assert summary["f1"]["mean"] == pytest.approx(0.5)  # 1, 0, not defined, 1/2
    assert summary["f1"]["subjects"] == 3
