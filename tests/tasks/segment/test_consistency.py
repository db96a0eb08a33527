import numpy as np
import pytest

from longflow.tasks.segment.consistency import (
    LESS_CONSISTENT,
    NOT_TOLD_APART,
    OVER_SMOOTHED,
    aspc,
    stcs,
    summarise_consistency,
    verdict,
)


def test_stcs_by_counting():
    """10 and 6 voxels, 4 of them shared."""
    first, second = np.zeros((2, 4, 5), bool), np.zeros((2, 4, 5), bool)
    first.reshape(-1)[:10] = True
    second.reshape(-1)[6:12] = True
    assert stcs(first, second) == pytest.approx(2 * 4 / 16)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(10, 10, 0), (9, 11, 20), (11, 9, 20), (0, 5, 200), (5, 0, 200), (0, 0, None)],
)
def test_aspc_in_closed_form(first, second, expected):
    assert aspc(first, second) == expected


def test_absent_structure_has_no_consistency():
    empty = np.zeros((2, 2, 2), bool)
    assert stcs(empty, empty) is None
    assert stcs(empty, ~empty) == 0


def difference(mean, interval=None):
    return {"mean": mean, "interval": interval}


@pytest.mark.parametrize(
    ("of_stcs", "of_aspc", "expected"),
    [
        (difference(0.05, [0.01, 0.1]), difference(-3, [-4, -2]), OVER_SMOOTHED),
        (difference(-0.05, [-0.1, -0.01]), difference(3, [2, 4]), LESS_CONSISTENT),
        (difference(0.05, [-0.01, 0.1]), difference(-3, [-7, 2]), NOT_TOLD_APART),
        # one of the two is enough, where the other says nothing
        (difference(0.05, [-0.01, 0.1]), difference(-3, [-4, -2]), OVER_SMOOTHED),
        # unregistered: ASPC alone
        (difference(None), difference(3, [2, 4]), LESS_CONSISTENT),
        # they can disagree: borders that move about while the volume stands still
        (difference(-0.05, [-0.1, -0.01]), difference(-3, [-4, -2]), "STCS: less consistent; ASPC: over-smoothed"),
        # a single subject: by the sign
        (difference(0.05), difference(-1), OVER_SMOOTHED),
        (difference(0), difference(0), NOT_TOLD_APART),
        (difference(None), difference(None), None),
    ],
)
def test_verdict(of_stcs, of_aspc, expected):
    assert verdict(of_stcs, of_aspc) == expected


def row(subject, predicted, reference, same_grid=True):
    """Predicted and reference: (stcs, aspc)."""
    names = ("stcs", "aspc", "true_stcs", "true_aspc")
    return {"subject": subject, "same_grid": same_grid, **dict(zip(names, (*predicted, *reference), strict=True))}


def test_subjects_count_alike_and_what_is_undefined_is_counted():
    rows = [
        row("a", (0.9, 2.0), (0.8, 4.0)),
        row("a", (0.7, 4.0), (0.8, 4.0)),
        row("a", (None, 6.0), (None, 7.0), same_grid=False),
        row("b", (0.5, 8.0), (0.4, None)),
    ]
    result = summarise_consistency(rows)
    assert (result["pairs"], result["on_other_grids"]) == (4, 1)
    assert result["stcs"]["mean"] == pytest.approx((0.8 + 0.5) / 2)
    assert result["stcs"]["undefined"] == 1
    assert result["true_stcs"]["mean"] == pytest.approx((0.8 + 0.4) / 2)
    # paired: b has no true ASPC, so its ASPC would be compared with nothing
    assert result["aspc"]["mean"] == pytest.approx(4)
    assert result["true_aspc"]["mean"] == pytest.approx(5)
    assert result["aspc_difference"]["mean"] == pytest.approx(np.mean([-2, 0, -1]))
    assert all((result[name]["subjects"], result[name]["undefined"]) == (1, 1) for name in ("aspc", "true_aspc"))
    assert result["stcs_difference"]["mean"] == pytest.approx((0 + 0.1) / 2)
