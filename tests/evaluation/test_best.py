import csv

import numpy as np
import pytest

from longflow.errors import DataError, NotFoundError
from longflow.evaluation.best import (
    check_references,
    check_same_cases,
    comparable_models,
    member,
    rank,
    record_best,
    validation_folder,
)
from longflow.evaluation.intervals import mean_interval
from longflow.reading import read_json
from tests.tasks.conftest import description, paths  # noqa: F401 - fixtures


@pytest.fixture
def train(paths):  # noqa: F811
    """Models with finished folds."""

    def write(method, *folds):
        model = paths.model(method, "longflowPlans", "2d")
        for fold in folds:
            model.fold(fold).folder.mkdir(parents=True)
            model.fold(fold).final.touch()
        return model

    return write


def test_models_with_the_most_folds_are_compared(paths, train, caplog):  # noqa: F811
    two, one, also_two = train("a", 0, 1), train("b", 0), train("c", 0, 1)
    assert comparable_models(paths, [two, one, also_two]) == ([two, also_two], [0, 1])
    assert "b__longflowPlans__2d is excluded: its finished folds are 0, those that are compared are 0, 1" in caplog.text


def test_nothing_trained(paths):  # noqa: F811
    with pytest.raises(NotFoundError, match="longflow_train 101 3d_fullres 0"):
        comparable_models(paths, [])


def test_a_fold_without_predictions(train):
    model = train("a", 3)
    with pytest.raises(DataError, match="run it again for a, 2d, fold 3"):
        validation_folder(model, 3, "labels")
    model.fold(3).validation("labels").mkdir(parents=True)
    assert validation_folder(model, 3, "labels") == model.fold(3).validation("labels")


def test_references_that_are_missing(tmp_path):
    check_references([], tmp_path)
    with pytest.raises(DataError, match="lacks the references of validation scans: a_0, b_0"):
        check_references(["a_0", "b_0"], tmp_path)


def test_models_of_the_same_cases_can_be_compared():
    check_same_cases({"one": {"a": 1, "b": 2}, "two": {"b": 2, "a": 1}})


@pytest.mark.parametrize(
    ("found", "different"), [({"a": 1}, "b"), ({"a": 1, "b": 2, "c": 3}, "c"), ({"a": 1, "b": 9}, "b")]
)
def test_models_of_different_cases_cannot(found, different):
    with pytest.raises(DataError, match=rf"one and two were not validated on the same scans \({different}\)"):
        check_same_cases({"one": {"a": 1, "b": 2}, "two": found})


VALUES = {"x": {"a": 1.0, "b": 3.0}, "y": {"b": 8.0, "a": 2.0}, "input": {"a": 0.5, "b": 0.5}}


def test_ranked_with_paired_differences():
    rows = rank(VALUES, "error", "lower", baselines=["input"])
    assert [(row["candidate"], row["error"]) for row in rows] == [("input", 0.5), ("x", 2.0), ("y", 5.0)]
    assert [row["difference_to_best"] for row in rows] == [-1.5, 0.0, 3.0]
    # two subjects of one sign: 1/2, for each of three pairs
    assert [row["p"] for row in rows] == [1.0, None, 1.0]
    low, high = mean_interval([1.0, 5.0])
    assert (rows[2]["difference_from"], rows[2]["difference_to"]) == (low, high)
    assert [rows[1]["from"], rows[1]["to"]] == mean_interval([1.0, 3.0])


def test_ranking_and_differences_agree():
    values = {name: dict(enumerate(np.random.default_rng(name).random(9))) for name in range(6)}
    rows = rank(values, "dice", "higher", baselines=())
    means = [row["dice"] for row in rows]
    assert means == sorted(means, reverse=True)
    assert [row["difference_to_best"] for row in rows] == pytest.approx([mean - means[0] for mean in means])


def test_candidates_of_different_subjects_cannot_be_ranked():
    with pytest.raises(ValueError, match="different subjects"):
        rank({"x": {"a": 1.0, "b": 3.0}, "y": {"a": 2.0}}, "error", "lower", baselines=())


def test_ranked_where_higher_is_better():
    rows = rank(VALUES, "dice", "higher", baselines=())
    assert [row["candidate"] for row in rows] == ["y", "x", "input"]
    assert rows[1]["difference_to_best"] == pytest.approx(np.mean([-1, -5]))


def test_the_first_of_equal_candidates_is_better_and_one_subject_has_no_interval():
    rows = rank({"b": {"s": 1.0}, "a": {"s": 1.0}}, "dice", "higher", baselines=())
    assert [row["candidate"] for row in rows] == ["b", "a"]
    assert rows[0]["from"] is None and rows[1]["difference_to"] is None


def test_the_record(paths, train):  # noqa: F811
    entry = member(train("mfm-unet", 0), (0,))
    assert entry == {"method": "mfm-unet", "plans_name": "longflowPlans", "configuration": "2d", "folds": [0]}
    best = {"members": [entry], "table": [{"candidate": "x", "dice": 0.5}]}
    assert record_best(paths, best) == best == read_json(paths.best)
    with open(paths.best_table, newline="") as file:
        assert list(csv.DictReader(file)) == [{"candidate": "x", "dice": "0.5"}]
