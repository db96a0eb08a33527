"""The parts that commands with jobs share."""

import os

import pytest

from longflow.cli import jobs
from longflow.cli.run import parser
from longflow.cluster import slurm as module
from longflow.cluster.records import SubmittedJob, write_jobs
from longflow.errors import ConfigurationError, InUseError
from longflow.files import write_json
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME, PENDING, ListedJobs


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A study with a job of two steps, of which one waits."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/bin/{name}")
    files = DatasetPaths(NAME).study
    ListedJobs(monkeypatch)
    monkeypatch.setattr(module, "queue", lambda: {"7_1": PENDING, "8_0": PENDING})
    write_jobs([SubmittedJob(name="x", number="7", steps=("a", "b"))], files.jobs)
    return files


def parsed(*words):
    return parser().parse_args(["-d", "900", *words])


def test_flags_override_the_settings_of_a_training(tmp_path):
    write_json({"gpus": 2, "steps": {"train": {"time": "4h"}}}, tmp_path / "c.json")
    words = ["--cluster", "slurm", "--settings", str(tmp_path / "c.json"), "--gpus", "4", "--nodes", "2"]
    settings = jobs.settings_of(parsed(*words))
    train, predict = settings.of("train"), settings.of("predict")
    assert (train.gpus, train.nodes, train.time) == (4, 2, "4h") and (predict.gpus, predict.nodes) == (2, None)


def test_flags_say_whether_steps_become_jobs():
    assert jobs.is_for_cluster(parsed("--cluster", "slurm", "--gpus", "2")) and jobs.is_for_cluster(parsed("--print"))
    assert not jobs.is_for_cluster(parsed())
    with pytest.raises(ConfigurationError, match="--gpus and --nodes are for --cluster slurm"):
        jobs.is_for_cluster(parsed("--gpus", "2"))


def test_what_slurm_runs_is_not_run_here(files, monkeypatch):
    with pytest.raises(InUseError, match=r"1 steps of this study wait or run.*longflow_status -d 900.*first: STOP"):
        jobs.check_no_jobs(files, "900", "STOP")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    jobs.check_no_jobs(files, "900", "STOP")  # the job itself
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setattr(module, "queue", dict)
    jobs.check_no_jobs(files, "900", "STOP")
    os.remove(files.jobs)
    monkeypatch.setattr(module, "queue", None)
    jobs.check_no_jobs(files, "900", "STOP")  # Slurm is not asked where nothing was submitted


def test_cancelling_says_what_was_cancelled(files, capsys):
    jobs.cancel(files)
    assert "1 step cancelled. What is done is kept" in capsys.readouterr().out
