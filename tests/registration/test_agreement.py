import json

import numpy as np
import pytest

from longflow.registration.agreement import (
    AFTER,
    BEFORE,
    MAE,
    MI,
    agreement,
    agreement_of_dataset,
    mean_absolute_error,
    mutual_information,
    stands_out,
)

#: 32 values, each equally often, in a volume without structure
VALUES = np.random.default_rng(0).permutation(np.arange(64 * 32 * 32) % 32).reshape(64, 32, 32).astype(float)
EVERYWHERE = np.ones(VALUES.shape, bool)


def test_mutual_information_in_closed_form():
    """Of an image with itself it is its entropy, log 32; a map of its values keeps it; a coarser image has less."""
    assert mutual_information(VALUES, VALUES, EVERYWHERE) == pytest.approx(np.log(32), rel=0.01)
    assert mutual_information(VALUES, -3 * VALUES, EVERYWHERE) == pytest.approx(np.log(32), rel=0.01)
    assert mutual_information(VALUES, VALUES // 8, EVERYWHERE) == pytest.approx(np.log(4), rel=0.01)


def test_mutual_information_of_independent_images_is_nearly_nothing():
    """The bias of a histogram is (classes - 1)^2 / 2 n = 0.0073."""
    other = np.random.default_rng(1).permutation(VALUES.ravel()).reshape(VALUES.shape)
    assert mutual_information(VALUES, other, EVERYWHERE) == pytest.approx(31**2 / (2 * VALUES.size), rel=0.2)
    assert mutual_information(VALUES, np.ones_like(VALUES), EVERYWHERE) == pytest.approx(0, abs=1e-12)


def test_only_voxels_that_count_are_compared():
    other = VALUES + 2
    other[0], mask = np.nan, EVERYWHERE.copy()
    other[1], mask[1] = 1000, False
    assert mean_absolute_error(VALUES, other, mask) == 2
    assert mean_absolute_error(VALUES, other, ~EVERYWHERE) is None
    assert mutual_information(VALUES, other, ~EVERYWHERE) is None


def test_before_and_after_are_over_the_same_voxels():
    before, after = VALUES + 4, VALUES + 1
    before[:32], after[48:] = np.nan, np.nan
    before[40] += 16  # 1 of 16 slices
    found = agreement(VALUES, before, after, EVERYWHERE)
    assert found[MAE] == {BEFORE: 5, AFTER: 1}
    assert found[MI][AFTER] > found[MI][BEFORE]


def row(mae, mi, mae_before=20.0, mi_before=1.0):
    return {"mae_before": mae_before, "mae_after": mae, "mi_before": mi_before, "mi_after": mi}


def test_pairs_that_stand_out():
    rows = [row(10 + number / 10, 2 - number / 100) for number in range(9)] + [row(15, 1.9), row(10.4, 1.5)]
    reasons = stands_out(rows)
    assert reasons[:9] == [[]] * 9
    assert reasons[9:] == [["MAE above that of the other pairs"], ["MI below that of the other pairs"]]
    assert stands_out(rows[-2:]) == [[], []]  # quartiles of two pairs mean nothing


def test_pairs_that_registration_made_worse():
    rows = [row(20.3, 0.99), row(20.5, 0.97), row(None, None, None, None)]
    worse = "worse than before registration"
    assert stands_out(rows) == [[], [f"MAE {worse}", f"MI {worse}"], []]


def test_records_of_a_dataset(tmp_path):
    (tmp_path / "transforms").mkdir()
    numbers = {"agreement in the body": {MAE: {BEFORE: 3, AFTER: 2}, MI: {BEFORE: 1, AFTER: 0.5}}}
    (tmp_path / "transforms" / "p1.json").write_text(json.dumps({"pairs": {"a and b": numbers}}))
    (tmp_path / "transforms" / "p2.json").write_text(json.dumps({"pairs": {"c and d": {}}}))  # an earlier version
    (tmp_path / "transforms" / "p3.json").write_text(json.dumps({"model": "rigid"}))
    assert agreement_of_dataset(tmp_path) == [
        {
            "subject": "p1",
            "pair": "a and b",
            **{"mae_before": 3, "mae_after": 2, "mi_before": 1, "mi_after": 0.5},
            "stands_out": "MI worse than before registration",
        }
    ]
    assert agreement_of_dataset(tmp_path / "nowhere") == []
