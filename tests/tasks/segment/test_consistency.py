import numpy as np
import pytest
from scipy import stats

from longflow.tasks.segment.consistency import (
    LESS_CONSISTENT,
    NOT_TOLD_APART,
    OVER_SMOOTHED,
    aspc,
    judge,
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


def difference(mean, p=0.01, subjects=9):
    return {"mean": mean, "p_holm": p, "subjects": subjects}


@pytest.mark.parametrize(
    ("of_stcs", "of_aspc", "expected"),
    [
        (difference(0.05), difference(-3), OVER_SMOOTHED),
        (difference(-0.05), difference(3), LESS_CONSISTENT),
        (difference(0.05, 0.06), difference(-3, 0.2), NOT_TOLD_APART),
        # one of the two is enough, where the other says nothing
        (difference(0.05, 0.06), difference(-3), OVER_SMOOTHED),
        # unregistered: ASPC alone
        (difference(None, None, 0), difference(3), LESS_CONSISTENT),
        # they can disagree: borders that move about while the volume stands still
        (difference(-0.05), difference(-3), "STCS: less consistent; ASPC: over-smoothed"),
        # five subjects of one sign are so by chance in one of 16 cohorts
        (difference(0.05, 0.0625, 5), difference(-1, 0.0625, 5), None),
        (difference(0, 1.0), difference(0, 1.0), NOT_TOLD_APART),
        (difference(None, None, 0), difference(None, None, 0), None),
    ],
)
def test_verdict(of_stcs, of_aspc, expected):
    assert verdict(of_stcs, of_aspc) == expected


def test_structures_are_corrected_together():
    """Six subjects of one sign have p = 1/32: a finding for one number, none for the two of one structure."""
    rows = [row(subject, (0.9, 2.0), (0.8, 2.0 + size)) for subject, size in zip("abcdef", range(1, 7), strict=True)]
    alone = {"x": summarise_consistency([{**one, "stcs": None, "true_stcs": None} for one in rows])}
    judge(alone)
    assert (alone["x"]["aspc_difference"]["p_holm"], alone["x"]["verdict"]) == (1 / 32, OVER_SMOOTHED)
    both = {"x": summarise_consistency(rows)}
    judge(both)
    assert (both["x"]["aspc_difference"]["p_holm"], both["x"]["verdict"]) == (1 / 16, NOT_TOLD_APART)


@pytest.mark.parametrize("number", [5, 8])
def test_a_faithful_prediction_is_seldom_called_anything(number):
    """Three structures of a prediction that changes as the reference does: at most one cohort in 20 has a verdict."""
    generator = np.random.default_rng(number)
    wrong = 0
    for _ in range(200):
        of_structures = {}
        for name in "xyz":
            numbers = generator.normal([0.8, 5], [0.05, 1], (2, number, 2))
            rows = [row(str(subject), numbers[0, subject], numbers[1, subject]) for subject in range(number)]
            of_structures[name] = summarise_consistency(rows)
        judge(of_structures)
        wrong += any(one["verdict"] not in (NOT_TOLD_APART, None) for one in of_structures.values())
    assert wrong <= stats.binom.ppf(0.999, 200, 0.05)


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
