import re

import pytest

from longflow.cli import find_best
from longflow.data.dataset import DatasetDescription, write_description
from tests.tasks.translate.test_best_tables import TRANSLATION

BEST = {
    "dataset": "Dataset101_Tiny",
    "candidate": "cronos__longflowPlans__3d_fullres (last)",
    "shrinkage": 0.8,
    "nrmse": 0.03,
    "lci_nrmse": 0.05,
    "nested": {"nrmse": 0.031, "lci_nrmse": 0.05, "choices": []},
    "folds": [0, 1],
    "subjects": 4,
    "targets": 8,
    "undefined_targets": 0,
    "table": [
        {
            "candidate": name,
            "shrinkage": shrinkage,
            "nrmse": value,
            "relative_to_lci": value / 0.05,
            "nrmse_unshrunk": value,
        }
        for name, shrinkage, value in (
            ("cronos__longflowPlans__3d_fullres (last)", 0.8, 0.03),
            ("lci", 0.0, 0.05),
        )
    ],
}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    raw = tmp_path / "raw" / "Dataset101_Tiny"
    write_description(
        DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months"), raw / "dataset.json"
    )
    return raw


def test_shows_the_choice_and_its_honest_estimate(dataset, monkeypatch, capsys):
    monkeypatch.setattr("longflow.tasks.forecast.best.find_best", lambda *_: BEST)
    assert find_best.main(["-d", "101"]) == 0
    shown = capsys.readouterr().out
    assert "Chosen: cronos 3d_fullres (last) with s = 0.80" in shown
    assert "0.03100" in shown
    assert "best.json" in shown


def test_a_single_fold_is_said_to_be_optimistic(dataset, monkeypatch, capsys):
    best = {**BEST, "nested": None, "folds": [0]}
    monkeypatch.setattr("longflow.tasks.forecast.best.find_best", lambda *_: best)
    assert find_best.main(["-d", "101"]) == 0
    assert "slightly optimistic" in capsys.readouterr().out


def test_constant_lci_leaves_the_ratio_empty(dataset, monkeypatch, capsys):
    table = [{**row, "relative_to_lci": None} for row in BEST["table"]]
    best = {**BEST, "table": table * 15}
    monkeypatch.setattr("longflow.tasks.forecast.best.find_best", lambda *_: best)
    assert find_best.main(["-d", "101"]) == 0
    assert "and 10 more in the file" in capsys.readouterr().out


def test_nothing_trained_is_the_users_affair(dataset, capsys):
    assert find_best.main(["-d", "101"]) == 1
    assert "longflow_train 101" in capsys.readouterr().err


def test_unknown_dataset(dataset, capsys):
    assert find_best.main(["-d", "Dataset101_Tyni"]) == 1
    assert "Did you mean 'Dataset101_Tiny'" in capsys.readouterr().err


SEGMENTATION = {
    "dataset": "Dataset101_Tiny",
    "candidate": "unet__longflowPlans__3d_fullres",
    "dice": 0.9,
    "folds": [0],
    "subjects": 4,
    "scans": 8,
    "table": [
        {
            "candidate": f"{name}__longflowPlans__3d_fullres",
            "dice": value,
            "from": value - 0.01,
            "to": value + 0.01,
            "difference_to_best": value - 0.9,
            "difference_from": difference,
            "difference_to": difference,
        }
        for name, value, difference in (("unet", 0.9, 0.0), ("unet_consistent", 0.85, None))
    ],
}


def test_segmentation_models_are_ranked_by_dice(dataset, monkeypatch, capsys):
    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", task="segment")
    write_description(description, dataset / "dataset.json")
    choose = lambda *_: SEGMENTATION  # noqa: E731
    monkeypatch.setattr("longflow.tasks.segment.best.find_best", choose)
    assert find_best.main(["-d", "101"]) == 0
    shown = capsys.readouterr().out
    assert "8 validation scans of 4 subjects, fold 0" in shown
    assert "0.8900 to 0.9100" in shown
    assert "-0.0500" in shown
    assert "Chosen: unet 3d_fullres, Dice 0.9000" in shown
    assert "Over so few subjects they are too narrow" in shown and "slightly optimistic" in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": SEGMENTATION["table"][:1]}, "nothing was compared"),
        ({"subjects": 1, "scans": 1}, "1 validation scan of 1 subject, .*One subject tells models apart by chance"),
    ],
)
def test_an_uncertain_choice_is_said_to_be_one(dataset, monkeypatch, capsys, changes, words):
    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", task="segment")
    write_description(description, dataset / "dataset.json")
    choose = lambda *_: {**SEGMENTATION, **changes}  # noqa: E731
    monkeypatch.setattr("longflow.tasks.segment.best.find_best", choose)
    assert find_best.main(["-d", "101"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(words, shown) and "tell these models apart" not in shown


def test_translation_models_and_solvers(dataset, monkeypatch, capsys):
    description = DatasetDescription(
        channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days", task="translate"
    )
    write_description(description, dataset / "dataset.json")
    choose = lambda *_: TRANSLATION  # noqa: E731
    monkeypatch.setattr("longflow.tasks.translate.best.find_best", choose)
    assert find_best.main(["-d", "101"]) == 0
    shown = capsys.readouterr().out
    assert "Chosen: mfm 2d with heun2 (1)" in shown
    assert "best.json, best.csv, best_solvers.csv" in shown


def test_nothing_trained_to_translate(dataset, capsys):
    description = DatasetDescription(
        channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days", task="translate"
    )
    write_description(description, dataset / "dataset.json")
    assert find_best.main(["-d", "101"]) == 1
    assert "longflow_train 101" in capsys.readouterr().err
