import json

import numpy as np
import pytest

from longflow.paths import DatasetPaths
from longflow.task import get_task
from longflow.tasks.forecast.targets import LONGEST_CONTEXT, draw_context, read_or_draw_targets
from longflow.training.splits import read_or_make_splits

SCANS = {f"s{number:02d}": [f"s{number:02d}_{scan}" for scan in range(2 + number % 4)] for number in range(13)}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return DatasetPaths("Dataset001_Test")


def splits_of(paths, scans=SCANS):
    return read_or_make_splits(paths, scans, get_task("forecast"))


def targets_of(paths, scans=SCANS):
    return read_or_draw_targets(paths, splits_of(paths, scans), scans)


def test_targets_lie_after_their_context_and_belong_to_one_subject(paths):
    splits, folds = splits_of(paths), targets_of(paths)
    for split, fold in zip(splits, folds, strict=True):
        assert {target.subject for target in fold} == set(split.val)
        assert len({(target.subject, target.target) for target in fold}) == len(fold)
        for target in fold:
            cases = SCANS[target.subject]
            positions = [cases.index(case) for case in target.context]
            assert 1 <= len(positions) <= LONGEST_CONTEXT and positions == sorted(set(positions))
            assert positions[-1] < cases.index(target.target)
        # the last scan of every subject, and more where there are few subjects
        assert {SCANS[subject][-1] for subject in split.val} <= {target.target for target in fold}


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


def test_context_sizes_are_uniform_and_so_are_the_subsets():
    generator = np.random.default_rng(0)
    drawn = [tuple(draw_context(generator, 3, 5)) for _ in range(3000)]
    shares = {subset: drawn.count(subset) / len(drawn) for subset in set(drawn)}
    assert len(shares) == 7
    for subset, share in shares.items():
        assert share == pytest.approx({1: 1 / 9, 2: 1 / 9, 3: 1 / 3}[len(subset)], abs=0.03)
    assert {len(draw_context(generator, 9, 2)) for _ in range(50)} == {1, 2}
    assert {len(draw_context(generator, 9, 2, count=2)) for _ in range(50)} == {2}


@pytest.mark.parametrize("content", ["{}", '{"folds": 3}', '{"folds": [[{"subject": "s00"}]]}', '{"folds": [[[]]]}'])
def test_stored_targets_of_another_structure_are_drawn_again(paths, content):
    expected = targets_of(paths)
    paths.validation_targets.write_text(content)
    assert targets_of(paths) == expected
