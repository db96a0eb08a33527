import json

import numpy as np
import pytest

from longflow.paths import DatasetPaths
from longflow.task import get_task
from longflow.tasks.forecast.targets import FORMAT, draw_targets, read_or_draw_targets
from longflow.training.splits import read_or_make_splits

SCANS = {f"s{number:02d}": [f"s{number:02d}_{scan}" for scan in range(2 + number % 4)] for number in range(13)}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return DatasetPaths("Dataset001_Test")


def splits_of(paths, scans=SCANS):
    return read_or_make_splits(paths, scans, get_task("forecast"))


def targets_of(paths, scans=SCANS, protocol="deployment"):
    return read_or_draw_targets(paths, splits_of(paths, scans), scans, protocol)


@pytest.mark.parametrize("protocol", ["deployment", "random"])
def test_targets_lie_after_their_context_and_belong_to_one_subject(paths, protocol):
    splits, folds = splits_of(paths), targets_of(paths, protocol=protocol)
    for split, fold in zip(splits, folds, strict=True):
        assert {target.subject for target in fold} == set(split.val)
        assert len({(target.subject, target.target) for target in fold}) == len(fold)
        for target in fold:
            cases = SCANS[target.subject]
            positions = [cases.index(case) for case in target.context]
            assert positions and positions == sorted(set(positions))
            assert positions[-1] < cases.index(target.target)


def test_both_protocols_have_the_same_targets(paths):
    deployment, random = targets_of(paths), targets_of(paths, protocol="random")
    assert [[one.target for one in fold] for fold in deployment] == [[one.target for one in fold] for fold in random]


def drawn(subjects, scans, seeds=1):
    """Positions of the targets, and their distances from the last scan that is given."""
    series = {f"s{number}": [f"s{number}_{scan}" for scan in range(scans)] for number in range(subjects)}
    found = []
    for seed in range(seeds):
        for target in draw_targets(series, np.random.default_rng(seed)):
            cases, given = series[target.subject], len(target.context)
            assert list(target.context) == cases[:given]  # as longflow_predict gets it: every scan up to some time
            found.append((cases.index(target.target), cases.index(target.target) - given + 1))
    return np.array(found)


def test_targets_of_many_subjects_are_stratified_over_positions_and_horizons():
    """Until 0.2, with 8 and more subjects every target was the last scan of its series."""
    positions, gaps = drawn(38, 20).T
    assert np.bincount(positions, minlength=20).tolist() == [0] + [2] * 19
    # the distance is uniform among those that the position allows
    assert np.all((gaps >= 1) & (gaps <= positions))
    parts = np.sort((gaps - 0.5) / positions)
    assert np.abs(parts - (np.arange(38) + 0.5) / 38).max() < 0.1


def test_of_few_subjects_several_targets_are_spread_over_each_series():
    positions, _ = drawn(2, 21).T
    for own in (positions[:4], positions[4:]):
        assert np.diff(own).tolist() == [5, 5, 5] and 1 <= own[0] <= 5


def test_horizons_are_uniform_among_those_that_a_position_allows():
    positions, gaps = drawn(10, 6, seeds=300).T
    for position in range(1, 6):
        shares = [np.mean(gaps[positions == position] == gap) for gap in range(1, position + 1)]
        assert np.mean(positions == position) == pytest.approx(1 / 5, abs=0.02)
        assert shares == pytest.approx([1 / position] * position, abs=0.06)


def test_with_two_scans_there_is_one_target():
    assert drawn(9, 2).tolist() == [[1, 1]] * 9


def test_random_contexts_hold_each_earlier_scan_half_of_the_time(paths):
    scans = {f"s{number:02d}": [f"s{number:02d}_{scan}" for scan in range(30)] for number in range(40)}
    shares = [
        len(target.context) / scans[target.subject].index(target.target)
        for fold in targets_of(paths, scans, "random")
        for target in fold
        if scans[target.subject].index(target.target) > 10
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_targets_are_drawn_once_and_reused(paths):
    folds = targets_of(paths)
    before = paths.validation_targets.stat().st_mtime_ns
    assert targets_of(paths) == folds
    assert paths.validation_targets.stat().st_mtime_ns == before
    paths.validation_targets.unlink()
    assert targets_of(paths) == folds


def test_targets_are_drawn_again_where_they_no_longer_fit(paths):
    targets_of(paths)
    paths.splits.write_text(json.dumps([{"train": ["s00", "s01"], "val": ["s07"]}]))
    (fold,) = targets_of(paths)
    assert {target.subject for target in fold} == {"s07"}
    fewer = {**SCANS, "s07": ["s07_0", "s07_1"]}
    (fold,) = targets_of(paths, scans=fewer)
    assert [(target.target, target.context) for target in fold] == [("s07_1", ("s07_0",))]
    corrected = {**SCANS, "s07": ["s07_1", "s07_0"]}
    (fold,) = targets_of(paths, scans=corrected)
    assert [(target.target, target.context) for target in fold] == [("s07_0", ("s07_1",))]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"seed": 12345, "folds": [[{"subject": "s00", "target": "s00_1", "context": ["s00_0"]}]]},  # of longflow 0.1
        {"format": FORMAT, "protocols": {"deployment": []}},
        {"format": FORMAT, "protocols": {"deployment": [[{"subject": "s00"}]], "random": []}},
        {"format": FORMAT, "protocols": {"deployment": [[[]]], "random": [[[]]]}},
        {"format": FORMAT + 1, "protocols": {"deployment": [], "random": []}},
    ],
)
def test_stored_targets_of_another_structure_are_drawn_again(paths, content):
    expected = targets_of(paths)
    paths.validation_targets.write_text(json.dumps(content))
    assert targets_of(paths) == expected


def test_a_stored_target_without_context_is_drawn_again(paths):
    expected = targets_of(paths)
    content = json.loads(paths.validation_targets.read_text())
    content["protocols"]["deployment"][0][0]["context"] = []
    paths.validation_targets.write_text(json.dumps(content))
    assert targets_of(paths) == expected
