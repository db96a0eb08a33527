import pytest

from longflow.cli import find_best
from longflow.data.dataset import DatasetDescription, write_description
from longflow.task import all_tasks
from tests.tasks.forecast.test_tables import BEST
from tests.tasks.segment.test_tables import BEST as SEGMENTATION
from tests.tasks.translate.test_best_tables import TRANSLATION


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
    for choose in ("rules.choose_rule", "solvers.choose_solver"):
        monkeypatch.setattr(f"longflow.tasks.forecast.{choose}", lambda dataset, best, progress: best)
    assert find_best.main(["-d", "101"]) == 0
    shown = capsys.readouterr().out
    assert "Chosen: cronos 3d_fullres (last) with s = 0.80" in shown
    assert "0.03100" in shown
    assert "best.json" in shown


def test_nothing_trained_is_the_users_affair(dataset, capsys):
    assert find_best.main(["-d", "101"]) == 1
    assert "longflow_train 101" in capsys.readouterr().err


def test_unknown_dataset(dataset, capsys):
    assert find_best.main(["-d", "Dataset101_Tyni"]) == 1
    assert "Did you mean 'Dataset101_Tiny'" in capsys.readouterr().err


def test_segmentation_models(dataset, monkeypatch, capsys):
    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", task="segment")
    write_description(description, dataset / "dataset.json")
    monkeypatch.setattr("longflow.tasks.segment.best.find_best", lambda *_: SEGMENTATION)
    assert find_best.main(["-d", "101"]) == 0
    shown = capsys.readouterr().out
    assert "Chosen: unet 3d_fullres, Dice 0.9000" in shown and "best.json, best.csv" in shown


def test_translation_models_and_solvers(dataset, monkeypatch, capsys):
    description = DatasetDescription(
        channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days", task="translate"
    )
    write_description(description, dataset / "dataset.json")
    monkeypatch.setattr("longflow.tasks.translate.best.find_best", lambda *_: TRANSLATION)
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


def test_the_help_says_how_every_task_chooses():
    text = " ".join(find_best.parser().format_help().split())
    for task in all_tasks():
        assert task.words.help["find_best"] in text
