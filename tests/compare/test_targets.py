"""Stored targets as a folder: every target has exactly its own context."""

import os

import numpy as np
import pytest

from longflow.compare.targets import targets_of_fold, targets_of_folder, with_equal_context
from longflow.data.dataset import read_description, series_of_folder
from longflow.data.images import read_scan
from longflow.errors import NotFoundError
from longflow.integrity.prediction import verify_input
from longflow.plans import read_plans
from longflow.reading import read_json
from longflow.tasks.forecast.requests import forecast_requests
from longflow.tasks.forecast.targets import ForecastTarget


def of_fold(dataset, folder, fold=0, **further):
    return targets_of_fold(dataset, read_plans(dataset.plans()), "3d_fullres", fold, folder, **further)


def test_a_folder_requests_the_stored_targets_with_their_contexts(dataset, tmp_path):
    found = of_fold(dataset, tmp_path / "targets")
    stored = read_json(dataset.validation_targets)["protocols"]["random"][0]
    assert len(stored) > len({one["subject"] for one in stored})  # several of a subject
    description = read_description(dataset.raw / "dataset.json")
    requests = {one.target.case: one for one in forecast_requests(found.folder, description, ())}
    assert requests.keys() == found.subjects.keys() == {one["target"] for one in stored}
    for one in stored:
        assert found.subjects[one["target"]] == one["subject"]
        context = requests[one["target"]].context
        assert [scan.case for scan in context] == [f"{one['target']}_from_{case}" for case in one["context"]]
        for scan, case in zip(context, one["context"], strict=True):
            acquired = read_scan((dataset.raw / "imagesTr" / f"{case}_0000.nii.gz",))
            assert np.array_equal(read_scan(scan.images).array, acquired.array)
    assert found.references == (dataset.raw / "imagesTr",)
    assert found.context_scans == min(len(one["context"]) for one in stored)


def test_the_same_folder_keeps_its_age_and_another_one_does_not(dataset, tmp_path):
    table = of_fold(dataset, tmp_path / "targets").folder / "scans.csv"
    os.utime(table, (1, 1))
    of_fold(dataset, tmp_path / "targets")
    assert table.stat().st_mtime == 1
    of_fold(dataset, tmp_path / "targets", fold=1)
    assert table.stat().st_mtime > 1
    assert not (table.parent / "new_scans.csv").exists()
    # links of fold 0 would be images that no row names
    assert verify_input(table.parent, read_description(dataset.raw / "dataset.json")) == []


def test_no_such_fold(dataset, tmp_path):
    with pytest.raises(NotFoundError, match="There is no fold 9"):
        of_fold(dataset, tmp_path / "targets", fold=9)


def test_equal_contexts_are_as_long_as_every_subject_allows():
    scans = {"a": ["a0", "a1", "a2", "a3", "a4"], "b": ["b0", "b1", "b2", "b3"]}
    targets = [
        ForecastTarget("a", "a4", ("a0",)),
        ForecastTarget("a", "a2", ("a1",)),
        ForecastTarget("b", "b3", ("b0", "b2")),
        ForecastTarget("b", "b1", ("b0",)),
    ]
    assert with_equal_context(targets, scans, most=9) == [
        ForecastTarget("a", "a4", ("a1", "a2", "a3")),
        ForecastTarget("b", "b3", ("b0", "b1", "b2")),
    ]
    assert [target.context for target in with_equal_context(targets, scans, most=2)] == [
        ("a2", "a3"),
        ("a0", "a1"),
        ("b1", "b2"),
    ]


def test_equal_contexts_of_a_fold(dataset, tmp_path):
    found = of_fold(dataset, tmp_path / "targets", equal_context=True)
    description = read_description(dataset.raw / "dataset.json")
    lengths = {len(one.context) for one in forecast_requests(found.folder, description, ())}
    assert lengths == {found.context_scans} == {3}


def test_a_folder_of_the_user_requests_the_rows_without_an_image(dataset, tmp_path):
    folder = of_fold(dataset, tmp_path / "targets", equal_context=True).folder
    description = read_description(dataset.raw / "dataset.json")
    found = targets_of_folder(folder, [dataset.raw / "imagesTr"], description)
    requested = [series.scans[-1] for series in series_of_folder(folder, description)]
    assert found.subjects == {scan.case: scan.subject for scan in requested}
    assert found.context_scans == 3 and found.references == (dataset.raw / "imagesTr",)
