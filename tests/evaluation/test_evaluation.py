import logging

import pytest

from longflow.evaluation.evaluation import EvaluationJob, check_predictions
from longflow.task import get_task
from tests.tasks.conftest import description, paths, write_table  # noqa: F401 - fixtures

WORDS = get_task("translate").words


@pytest.fixture
def check(paths, description, caplog, monkeypatch):  # noqa: F811
    monkeypatch.setattr(logging.getLogger("longflow"), "propagate", True)

    def run(subjects, without=(), references=()):
        job = EvaluationJob(paths.raw / "out", tuple(references), paths.raw, description)
        return check_predictions(job, WORDS, subjects, [f"{subject}_0" for subject in subjects], without)

    return run


def test_nothing_to_warn_of(check, caplog):
    assert check(["a"]) == {"without_truth": [], "subjects_of_training": []}
    assert not caplog.text


def test_predictions_without_a_reference_are_counted_and_named(check, caplog):
    assert check(["a", "b"], without=["c_0"])["without_truth"] == ["c_0"]
    assert "1 of 3 translations have no reference and are not evaluated: c_0" in caplog.text


def test_subjects_of_training_are_named(check, paths, write_table, caplog):  # noqa: F811
    write_table(paths.raw / "scans.csv", ("a_0", "a", 0.0), ("d_0", "d", 0.0))
    assert check(["b", "a"])["subjects_of_training"] == ["a"]
    assert "1 of the subjects are in imagesTr (a)" in caplog.text


def test_subjects_of_training_of_another_folder_of_the_user(check, tmp_path, write_table):  # noqa: F811
    (tmp_path / "other" / "imagesTr").mkdir(parents=True)
    write_table(tmp_path / "other" / "imagesTr" / "scans.csv", ("b_0", "b", 0.0))
    assert check(["b"], references=[tmp_path / "other" / "imagesTr"])["subjects_of_training"] == []
    write_table(tmp_path / "raw" / "Dataset101_Tiny" / "scans.csv", ("a_0", "a", 0.0))
    assert check(["b"], references=[tmp_path / "other" / "imagesTr"])["subjects_of_training"] == ["b"]
