"""How much changes, and how much of it is forecast."""

import csv
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from longflow.compare import changes as module
from longflow.compare import perform as performing
from longflow.compare.changes import LEVELS, change_figure, change_of, change_of_pair, changes_of_pairs, draw_changes
from longflow.compare.perform import pairs_of, perform
from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError
from longflow.tasks.forecast.metrics import value_range
from tests.compare.helpers import CRONOS, LCI, MEAN, Player, comparison_of, description_of, of

TRUE = np.random.default_rng(0).standard_normal((1, 4, 6, 5)).astype(np.float32) / 10


@pytest.fixture
def found(dataset, monkeypatch):
    """A comparison whose forecasts are LCI, and the context mean."""
    monkeypatch.setattr(performing, "run_command", Player(dataset))
    comparison = comparison_of(dataset, CRONOS, MEAN, LCI)
    return comparison, [outcome.run for outcome in perform(comparison, description_of(dataset))]


def test_the_last_scan_a_perfect_forecast_half_of_it_and_its_opposite():
    nothing = change_of(TRUE, np.zeros_like(TRUE))
    assert (nothing.forecast_change, nothing.share, nothing.agreement) == (0, 0, None)
    for factor in (1.0, 0.5, -1.0):
        change = change_of(TRUE, factor * TRUE)
        assert change.share == pytest.approx(factor) and change.agreement == pytest.approx(np.sign(factor))
        assert change.forecast_change == pytest.approx(abs(factor) * change.change)
    assert change.change == pytest.approx(np.sqrt(np.mean(np.square(TRUE, dtype=float))))


def test_change_in_another_place_agrees_with_nothing():
    true, made = np.zeros((2, 1, 1, 4, 4), np.float32)
    true[0, 0, 0], made[0, 0, 3] = 1, 1
    change = change_of(true, made)
    assert (change.share, change.agreement) == (0, 0) and change.change == change.forecast_change == 0.5


def test_voxels_that_change_more_than_a_level():
    change = change_of(TRUE, 0.5 * TRUE)
    for level in (0, 30, 60):
        assert change.exceeding[level] == pytest.approx((np.abs(TRUE) > LEVELS[level]).mean())
        assert change.forecast_exceeding[level] == pytest.approx((np.abs(0.5 * TRUE) > LEVELS[level]).mean())


def test_a_target_that_does_not_change_has_no_share():
    change = change_of(np.zeros_like(TRUE), TRUE)
    assert (change.change, change.share, change.agreement) == (0, None, None)


def test_a_target_from_its_files(found):
    """In shares of the target's range, against NumPy."""
    comparison, _ = found
    pair = pairs_of(comparison, of(comparison, MEAN), description_of(comparison.dataset))[0][0]
    target, last, forecast = (
        read_scan(files).array for files in (pair.reference, pair.context_images[-1], pair.images)
    )
    true, made = target - last, forecast - last
    change = change_of_pair(pair)
    assert change.change == pytest.approx(np.sqrt(np.mean(true**2)) / value_range(target), rel=1e-5)
    assert change.share == pytest.approx(np.vdot(made, true) / np.vdot(true, true), rel=1e-4)


def test_a_constant_target_is_excluded(found, tmp_path):
    comparison, _ = found
    pair = pairs_of(comparison, of(comparison, MEAN), description_of(comparison.dataset))[0][0]
    scan = read_scan(pair.reference)
    write_volume(np.ones_like(scan.array[0]), scan.geometry, "float32", tmp_path / "flat_0000.nii.gz")
    assert changes_of_pairs([replace(pair, reference=(tmp_path / "flat_0000.nii.gz",))]) == {}


def test_table_and_figure_of_the_trained_variants(found):
    comparison, runs = found
    assert draw_changes(comparison, runs) == ["change.csv", "change.png"]
    with open(comparison.paths.folder / "change.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == [
        v for v in ("cronos", "cronos, mean") for _ in comparison.targets[0].subjects
    ]
    assert all(float(row["share"]) == 0 and row["agreement"] == "" for row in rows if row["variant"] == "cronos")
    assert any(float(row["forecast_change"]) > 0 for row in rows if row["variant"] == "cronos, mean")
    assert {row["subject"] for row in rows} == set(comparison.targets[0].subjects.values())
    assert (comparison.paths.folder / "change.png").stat().st_size > 1000


def test_what_the_figure_shows(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure))
    changes = [("s1", change_of(TRUE, 0.5 * TRUE)), ("s2", change_of(2 * TRUE, TRUE))]
    change_figure({"cronos": changes}, tmp_path / "change.png")
    (figure,) = drawn
    voxels, targets = figure.axes[:2]
    true, forecast = voxels.get_lines()[:2]
    np.testing.assert_allclose(true.get_ydata(), 50 * (changes[0][1].exceeding + changes[1][1].exceeding))
    assert (forecast.get_ydata() <= true.get_ydata()).all()
    (points,) = targets.collections
    x, y = points.get_offsets().T
    np.testing.assert_allclose(y, 0.5 * x)
    assert "share 50 %, agreement 1.00" in points.get_label()
    plt.close(figure)


def test_nothing_to_show(tmp_path):
    with pytest.raises(DataError, match="no forecast of a trained model"):
        change_figure({}, tmp_path / "change.png")
