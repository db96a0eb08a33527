import pytest

from longflow.cli import find_best

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
    (tmp_path / "raw" / "Dataset101_Tiny").mkdir(parents=True)


def test_shows_the_choice_and_its_honest_estimate(dataset, monkeypatch, capsys):
    monkeypatch.setattr("longflow.evaluation.best.find_best", lambda paths, processes, progress: BEST)
    assert find_best.main(["-d", "101"]) == 0
    shown = capsys.readouterr().out
    assert "Chosen: cronos 3d_fullres (last) with s = 0.80" in shown
    assert "0.03100" in shown
    assert "best.json" in shown


def test_a_single_fold_is_said_to_be_optimistic(dataset, monkeypatch, capsys):
    best = {**BEST, "nested": None, "folds": [0]}
    monkeypatch.setattr("longflow.evaluation.best.find_best", lambda paths, processes, progress: best)
    assert find_best.main(["-d", "101"]) == 0
    assert "slightly optimistic" in capsys.readouterr().out


def test_constant_lci_leaves_the_ratio_empty(dataset, monkeypatch, capsys):
    table = [{**row, "relative_to_lci": None} for row in BEST["table"]]
    best = {**BEST, "table": table * 15}
    monkeypatch.setattr("longflow.evaluation.best.find_best", lambda paths, processes, progress: best)
    assert find_best.main(["-d", "101"]) == 0
    assert "and 10 more in the file" in capsys.readouterr().out


def test_nothing_trained_is_the_users_affair(dataset, capsys):
    assert find_best.main(["-d", "101"]) == 1
    assert "longflow_train 101" in capsys.readouterr().err


def test_unknown_dataset(dataset, capsys):
    assert find_best.main(["-d", "Dataset101_Tyni"]) == 1
    assert "Did you mean 'Dataset101_Tiny'" in capsys.readouterr().err
