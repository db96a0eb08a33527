import pytest

from longflow.cli import status as module
from longflow.cli.run import main as run
from longflow.cli.status import main
from longflow.cluster.request import read_request, read_study_data
from longflow.cluster.slurm import SlurmUnreachableError
from longflow.cluster.status import StepStatus
from longflow.cluster.steps import study_steps
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME, finish


@pytest.fixture
def steps(phantom_home):
    """A study whose preparation and first fold are done; its commands were never run."""
    run(["-d", "900", "-f", "0", "1", "--preset", "tiny", "--print"])
    request, data = read_request(DatasetPaths(NAME)), read_study_data(DatasetPaths(NAME))
    steps = study_steps(request, data)
    for step in steps[:3]:
        finish(step, request, data)
    return steps


def test_every_step_is_shown(steps, capsys):
    capsys.readouterr()
    assert main([]) == 0
    said = capsys.readouterr().out
    assert NAME in said and "5 not started, 3 done" in said
    assert said.index("not started") < said.index(" done")


def test_a_failure_is_first_and_says_where_its_log_is(steps, monkeypatch, capsys):
    found = [StepStatus(step, "done", "1_0") for step in steps[:3]]
    found += [StepStatus(steps[3], "failed", "3_1", reason="more memory", last_line="Killed [oom]")]
    found += [StepStatus(steps[4], "running", "4_0", 0.25, 5400.0, "gpu07", 2, "step 3")]
    monkeypatch.setattr(module, "status_of", lambda paths: found)
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    assert main(["-d", "900"]) == 0
    said = capsys.readouterr().out
    assert "more memory: Killed [oom]" in said and "25%" in said and "1.5 h" in said and "gpu07" in said
    assert "1 failed, 1 running, 3 done (shown: 2; --all shows all)" in said and "prepare" not in said
    assert "need about 1.5 h more" in said and "Logs: " in said
    assert main(["-d", "900", "--all"]) == 0 and "prepare" in capsys.readouterr().out


def test_watching_ends_when_nothing_runs(steps, monkeypatch):
    rounds = [[StepStatus(steps[3], state)] for state in ("waiting", "running", "failed")]
    monkeypatch.setattr(module, "status_of", lambda paths: rounds.pop(0))
    monkeypatch.setattr(module, "EVERY", 0.01)
    assert main(["-d", "900", "--watch"]) == 0 and rounds == []


def test_a_scheduler_that_does_not_answer_is_asked_again_while_watching(steps, monkeypatch, capsys):
    rounds = [None, [StepStatus(steps[3], "failed")]]

    def answer(paths):
        if (found := rounds.pop(0)) is None:
            raise SlurmUnreachableError("The scheduler does not answer at present.")
        return found

    monkeypatch.setattr(module, "status_of", answer)
    monkeypatch.setattr(module, "EVERY", 0.01)
    assert main(["-d", "900", "--watch"]) == 0 and rounds == []
    assert "Not known: The scheduler does not answer at present." in capsys.readouterr().err
    rounds.append(None)
    assert main(["-d", "900"]) == 1 and "Error: The scheduler does not answer" in capsys.readouterr().err


def test_without_a_study_the_error_says_how_to_start_one(phantom_home, capsys):
    assert main(["-d", "900"]) == 1 and "longflow_run -d 900" in capsys.readouterr().err
    assert main([]) == 1 and "No study was started" in capsys.readouterr().err
