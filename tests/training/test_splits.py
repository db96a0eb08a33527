import json
import logging

import pytest

from longflow.data.dataset import _warn_once
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.paths import DatasetPaths
from longflow.task import get_task
from longflow.training.splits import Split, read_or_make_splits, split_of_fold

FORECAST = get_task("forecast")
SCANS = {f"s{number:02d}": [f"s{number:02d}_{scan}" for scan in range(2 + number % 4)] for number in range(13)}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return DatasetPaths("Dataset001_Test")


def own(paths, splits):
    paths.splits.parent.mkdir(parents=True, exist_ok=True)
    paths.splits.write_text(json.dumps(splits))


def test_every_subject_validates_once_and_never_in_its_own_training(paths):
    splits = read_or_make_splits(paths, SCANS, FORECAST)
    assert len(splits) == 5
    assert sorted(subject for split in splits for subject in split.val) == sorted(SCANS)
    for split in splits:
        assert set(split.train) == set(SCANS) - set(split.val)
    assert max(len(split.val) for split in splits) - min(len(split.val) for split in splits) <= 1
    assert json.loads(paths.splits.read_text())[0].keys() == {"train", "val"}


def test_splits_are_the_same_every_time_and_on_every_machine(paths):
    first = read_or_make_splits(paths, SCANS, FORECAST)
    assert read_or_make_splits(paths, SCANS, FORECAST) == first
    paths.splits.unlink()
    assert read_or_make_splits(paths, dict(reversed(SCANS.items())), FORECAST) == first


def test_with_fewer_than_five_subjects_each_is_a_fold(paths):
    splits = read_or_make_splits(paths, {name: SCANS[name] for name in ("s01", "s02", "s03")}, FORECAST)
    assert sorted(split.val for split in splits) == [("s01",), ("s02",), ("s03",)]


def test_one_subject_is_not_enough(paths):
    with pytest.raises(DataError, match=r"has 1 subject\(s\) with at least 2 scans; at least two are needed"):
        read_or_make_splits(paths, {"s01": SCANS["s01"]}, FORECAST)
    with pytest.raises(DataError, match=r"with a pair of scans, one in each phase at one time; at least two"):
        read_or_make_splits(paths, {"s01": SCANS["s01"]}, get_task("translate"))
    assert not paths.splits.exists()


def test_a_users_own_splits_are_honoured(paths):
    own(paths, [{"train": ["s00", "s01"], "val": ["s02"]}])
    assert read_or_make_splits(paths, SCANS, FORECAST) == [Split(("s00", "s01"), ("s02",))]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([{"train": ["s00", "s01"], "val": ["s01"]}], "fold 0: s01 is in train and in val"),
        ([{"train": ["s00"], "val": ["s01"]}, {"train": ["s00"], "val": ["s77"]}], "fold 1: s77 is not a subject"),
        ([{"train": ["s00_0"], "val": ["s01"]}], "Splits name subjects .*, not cases"),
        ([{"train": [], "val": ["s01"]}], "fold 0: both train and val need at least one subject"),
        ([{"train": ["s01"], "val": []}], "fold 0: both train and val need at least one subject"),
        ([{"train": ["s00"], "val": ["s77"]}], r"delete the file .*splits_final.json: longflow then makes new ones"),
        ([], "should be a list"),
        ([{"train": [["s00"]], "val": ["s01"]}], "should be a list .* delete the file"),
        ({"train": ["s00"], "val": ["s01"]}, "should be a list"),
        ([{"train": ["s00"]}], "should be a list"),
        ([{"train": "s00", "val": ["s01"]}], "should be a list"),
    ],
)
def test_splits_that_cannot_be_used(paths, splits, message):
    own(paths, splits)
    with pytest.raises(ConfigurationError, match=message):
        read_or_make_splits(paths, SCANS, FORECAST)


def test_subjects_in_no_fold_are_named(paths, caplog):
    own(paths, [{"train": [name for name in SCANS if name not in ("s03", "s05")], "val": ["s05"]}])
    with caplog.at_level(logging.INFO):
        read_or_make_splits(paths, SCANS, FORECAST)
    assert "1 subjects are in no fold of" in caplog.text and "splits_final.json: s03." in caplog.text


def test_two_spellings_of_a_subject_are_told_before_training(paths, caplog):
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        read_or_make_splits(paths, {**SCANS, "S1": ["a", "b"]}, FORECAST)
    assert "one patient each: 'S1' and 's01'" in caplog.text


@pytest.mark.parametrize("fold", [-1, 5, 9])
def test_a_fold_that_does_not_exist(paths, fold):
    with pytest.raises(NotFoundError, match=f"no fold {fold}: .*splits_final.json has the folds 0 to 4"):
        split_of_fold(read_or_make_splits(paths, SCANS, FORECAST), fold, paths.splits)


def test_labels_are_spread_over_the_folds_and_so_are_those_without(paths):
    """Three labelled subjects of twelve: three folds, a labelled one and three of the others validate each."""
    scans = {f"s{number:02d}": ["a", "b"] for number in range(12)}
    labelled = ["s01", "s05", "s09"]
    splits = read_or_make_splits(paths, scans, get_task("segment"), labelled)
    assert len(splits) == 3
    for split in splits:
        assert len(set(split.val) & set(labelled)) == 1 and len(split.val) == 4
        assert sorted((*split.train, *split.val)) == sorted(scans)
    assert sorted(subject for split in splits for subject in split.val) == sorted(scans)
    assert read_or_make_splits(paths, scans, get_task("segment"), labelled) == splits
