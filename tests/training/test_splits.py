import json

import numpy as np
import pytest

from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.paths import DatasetPaths
from longflow.training.splits import (
    LONGEST_CONTEXT,
    Split,
    draw_context,
    read_or_draw_targets,
    read_or_make_splits,
    split_of_fold,
)

SCANS = {f"s{number:02d}": [f"s{number:02d}_{scan}" for scan in range(2 + number % 4)] for number in range(13)}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return DatasetPaths("Dataset001_Test")


def own(paths, splits):
    paths.splits.parent.mkdir(parents=True, exist_ok=True)
    paths.splits.write_text(json.dumps(splits))


def test_every_subject_validates_once_and_never_in_its_own_training(paths):
    splits = read_or_make_splits(paths, SCANS)
    assert len(splits) == 5
    assert sorted(subject for split in splits for subject in split.val) == sorted(SCANS)
    for split in splits:
        assert set(split.train) == set(SCANS) - set(split.val)
    assert max(len(split.val) for split in splits) - min(len(split.val) for split in splits) <= 1
    assert json.loads(paths.splits.read_text())[0].keys() == {"train", "val"}


def test_splits_are_the_same_every_time_and_on_every_machine(paths):
    first = read_or_make_splits(paths, SCANS)
    assert read_or_make_splits(paths, SCANS) == first
    paths.splits.unlink()
    assert read_or_make_splits(paths, dict(reversed(SCANS.items()))) == first


def test_with_fewer_than_five_subjects_each_is_a_fold(paths):
    splits = read_or_make_splits(paths, {name: SCANS[name] for name in ("s01", "s02", "s03")})
    assert sorted(split.val for split in splits) == [("s01",), ("s02",), ("s03",)]


def test_one_subject_is_not_enough(paths):
    with pytest.raises(DataError, match=r"has 1 subject\(s\) with at least 2 scans; at least two are needed"):
        read_or_make_splits(paths, {"s01": SCANS["s01"]})
    with pytest.raises(DataError, match=r"with a pair of scans, one in each phase at one time; at least two"):
        read_or_make_splits(paths, {"s01": SCANS["s01"]}, "translate")
    assert not paths.splits.exists()


def test_a_users_own_splits_are_honoured(paths):
    own(paths, [{"train": ["s00", "s01"], "val": ["s02"]}])
    assert read_or_make_splits(paths, SCANS) == [Split(("s00", "s01"), ("s02",))]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([{"train": ["s00", "s01"], "val": ["s01"]}], "fold 0: s01 is in train and in val"),
        ([{"train": ["s00"], "val": ["s01"]}, {"train": ["s00"], "val": ["s77"]}], "fold 1: s77 is not a subject"),
        ([{"train": ["s00_0"], "val": ["s01"]}], "Splits name subjects .*, not cases"),
        ([{"train": [], "val": ["s01"]}], "fold 0: both train and val need at least one subject"),
        ([{"train": ["s01"], "val": []}], "fold 0: both train and val need at least one subject"),
        ([], "should be a list"),
        ({"train": ["s00"], "val": ["s01"]}, "should be a list"),
        ([{"train": ["s00"]}], "should be a list"),
        ([{"train": "s00", "val": ["s01"]}], "should be a list"),
    ],
)
def test_splits_that_cannot_be_used(paths, splits, message):
    own(paths, splits)
    with pytest.raises(ConfigurationError, match=message):
        read_or_make_splits(paths, SCANS)


@pytest.mark.parametrize("fold", [-1, 5, 9])
def test_a_fold_that_does_not_exist(paths, fold):
    with pytest.raises(NotFoundError, match=f"no fold {fold}: .*splits_final.json has the folds 0 to 4"):
        split_of_fold(read_or_make_splits(paths, SCANS), fold, paths.splits)


def targets_of(paths, scans=SCANS):
    return read_or_draw_targets(paths, read_or_make_splits(paths, scans), scans)


def test_targets_lie_after_their_context_and_belong_to_one_subject(paths):
    splits, folds = read_or_make_splits(paths, SCANS), targets_of(paths)
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


def test_targets_are_drawn_anew_where_they_do_not_fit_any_more(paths):
    targets_of(paths)
    own(paths, [{"train": ["s00", "s01"], "val": ["s07"]}])
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


def test_labels_are_spread_over_the_folds_and_so_are_those_without(paths):
    """Three labelled subjects of twelve: three folds, a labelled one and three of the others validate each."""
    scans = {f"s{number:02d}": ["a", "b"] for number in range(12)}
    labelled = ["s01", "s05", "s09"]
    splits = read_or_make_splits(paths, scans, "segment", labelled)
    assert len(splits) == 3
    for split in splits:
        assert len(set(split.val) & set(labelled)) == 1 and len(split.val) == 4
        assert sorted((*split.train, *split.val)) == sorted(scans)
    assert sorted(subject for split in splits for subject in split.val) == sorted(scans)
    assert read_or_make_splits(paths, scans, "segment", labelled) == splits
