"""A study on a real Slurm; its commands are played, so that a job takes a second."""

import subprocess
import sys
from pathlib import Path

import pytest

from longflow.cli.compare import main as compare
from longflow.cli.run import main as run
from longflow.cli.status import main as status
from longflow.cli.status import status_of, status_of_comparison
from longflow.cluster import slurm as commands
from longflow.files import write_json
from longflow.paths import DatasetPaths, cluster_settings
from longflow.reading import read_json
from tests.cluster.helpers import NAME, empty_queue, start_now
from tests.cluster.helpers import wait_until as wait

ROOT = Path(__file__).parents[2]
SETTINGS = {"cpus": 1, "memory": 0.2, "time": "10m", "steps": {"train": {"gpus": 0}, "predict": {"gpus": 0}}}
FOLD = "train cronos 3d_fullres fold {}"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]


@pytest.fixture
def home(phantom_home, monkeypatch):
    """A study whose jobs find the played Python; what is still in the queue at the end is cancelled."""
    python = phantom_home / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/bash\nexec {sys.executable} -m tests.cluster.played_python "$@"\n')
    python.chmod(0o755)
    (phantom_home / "played").mkdir()
    monkeypatch.setenv("PLAYED", str(phantom_home / "played"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_json({**SETTINGS, "setup": [f'export PATH="{python.parent}:$PATH"']}, cluster_settings())
    yield phantom_home
    empty_queue()


def wait_until(condition, seconds=120):
    return wait(condition, seconds, lambda: f"{commands.queue()}\n{states()}")


def play(home, step, *words):
    (home / "played" / step).write_text("\n".join(words))


def starts(home, step):
    file = home / "played" / f"{step}.started"
    return file.read_text().split() if file.is_file() else []


def submit(*further):
    return run(["-d", "900", "-f", "0", "1", "--cluster", "slurm", *further])


def states():
    return {one.step.name: one.state for one in status_of(DatasetPaths(NAME))}


def all_done():
    return set(states().values()) == {"done"}


def running(step):
    """The number of a step's job once its command runs."""
    found = {one.step.name: one for one in status_of(DatasetPaths(NAME))}
    playing = "playing" in found[step].last_line
    return found[step].job if found[step].state == "running" and playing else ""


def test_one_command_runs_the_whole_study(home, capsys):
    assert submit() == 0
    said = capsys.readouterr().out
    assert "train: 2 steps; each 1 core, 0.2 GB, at most 10 min" in said and "You can log out" in said
    wait_until(all_done)
    assert submit() == 0 and "nothing to do" in capsys.readouterr().out
    assert status(["-d", "900"]) == 0 and "8 done" in capsys.readouterr().out


def test_a_failed_fold_is_reported_and_continued(home, capsys):
    play(home, FOLD.format(1), "fail")
    assert submit() == 0
    wait_until(lambda: not commands.queue())
    assert states()[FOLD.format(0)] == "done" and states()[FOLD.format(1)] == states()["find best"] == "failed"
    assert status(["-d", "900"]) == 0
    said = capsys.readouterr().out
    assert "was not started, because it waits for train cronos 3d_fullres fold 1" in said
    assert submit() == 0 and "train: 1 step;" in capsys.readouterr().out
    wait_until(all_done)
    assert len(starts(home, FOLD.format(0))) == 1 and len(starts(home, FOLD.format(1))) == 2


def test_a_warned_training_saves_and_continues_in_the_same_job(home):
    play(home, FOLD.format(0), "wait")
    submit()
    number = wait_until(lambda: running(FOLD.format(0)))
    subprocess.run(["scancel", "--batch", "--signal=USR2", number], check=True)
    start_now(number)
    wait_until(all_done)
    assert starts(home, FOLD.format(0)) == ["0", "1"]
    log = next((DatasetPaths(NAME).study.logs).glob("*train*_0.log")).read_text()
    assert "goes back into the queue" in log and "start 1:" in log


def test_a_job_that_staff_puts_back_continues(home):
    play(home, FOLD.format(0), "wait")
    submit()
    number = wait_until(lambda: running(FOLD.format(0)))
    subprocess.run(["scontrol", "requeue", number], check=True)
    start_now(number)
    wait_until(all_done)


@pytest.mark.parametrize("word", ["die", "wait"])
def test_what_was_killed_is_continued_by_the_same_command(home, word):
    """kill -9 of the command, and scancel of the job."""
    play(home, FOLD.format(1), word)
    submit()
    if word == "wait":
        subprocess.run(["scancel", wait_until(lambda: running(FOLD.format(1)))], check=True)
    wait_until(lambda: not commands.queue())
    assert states()[FOLD.format(1)] == "failed"
    submit()
    wait_until(all_done)


def test_jobs_survive_a_restart_of_the_controller_and_a_drained_node(home, slurm):
    for fold in (0, 1):
        play(home, FOLD.format(fold), "work")
    submit()
    slurm.restart_controller()
    slurm.drain_and_resume()
    wait_until(all_done)
    assert [len(starts(home, FOLD.format(fold))) for fold in (0, 1)] == [1, 1]


def test_while_the_controller_is_down_every_command_says_so_and_nothing_is_lost(home, slurm, capsys):
    play(home, "prepare", "work")
    assert submit() == 0
    slurm.stop_daemon("slurmctld")
    try:
        for command in (submit, lambda: status(["-d", "900"]), lambda: run(["-d", "900", "--cancel"])):
            capsys.readouterr()
            assert command() == 1
            said = capsys.readouterr().err
            assert "does not answer at present" in said and "Nothing is lost" in said
    finally:
        slurm.restart_controller()
    wait_until(all_done)


def test_a_job_whose_node_dies_continues_on_the_other_one(home, slurm):
    play(home, FOLD.format(0), "wait")
    submit()
    number = wait_until(lambda: running(FOLD.format(0)))
    wait_until(lambda: states()[FOLD.format(1)] == "done")
    node = commands.queue()[number].node
    slurm.kill_node(node)
    try:
        start_now(number)
        wait_until(all_done)
    finally:
        slurm.start_node(node)
    assert starts(home, FOLD.format(0)) == ["0", "1"]
    log = next((DatasetPaths(NAME).study.logs).glob("*train*_0.log")).read_text()
    assert "goes back into the queue" not in log and "start 1:" in log


def test_measured_trainings_ask_for_what_was_measured(home, capsys):
    settings = {**SETTINGS, "steps": {**SETTINGS["steps"], "train": {"gpus": 0, "nodes": 2}}}
    settings = {name: value for name, value in settings.items() if name not in ("time", "memory")}
    setup = read_json(cluster_settings())["setup"]
    write_json({**settings, "setup": setup}, cluster_settings())
    assert submit("--measure") == 0
    assert "measure: 1 step; each 1 core" in capsys.readouterr().out
    wait_until(all_done)
    model = DatasetPaths(NAME).model("cronos", "longflowPlans", "3d_fullres")
    assert model.measured(2).is_file() and not model.finished_folds()
    assert submit() == 0
    said = capsys.readouterr().out
    assert "prepare" not in said and "h expected from measured steps" in said and "GB of a process measured" in said
    wait_until(all_done)


def test_the_same_command_twice_submits_once(home, capsys):
    play(home, "prepare", "work")
    assert submit() == 0
    capsys.readouterr()
    assert submit() == 0 and "Under way already: 8 steps" in capsys.readouterr().out
    assert run(["-d", "900", "-f", "0", "1"]) == 1
    assert "8 steps of this study wait or run in Slurm" in capsys.readouterr().err
    assert run(["-d", "900", "--cancel"]) == 0 and "8 steps cancelled" in capsys.readouterr().out
    wait_until(lambda: not commands.queue())


@pytest.mark.parametrize(
    ("step", "words", "advice"),
    [
        ({"partition": "gpuu"}, "invalid partition", 'Change "partition" (steps.train.partition)'),
        ({"partition": "short", "time": "2h"}, "time limit", 'Change "time" (steps.train.time)'),
        ({"memory": 9000.0}, "emory", 'Change "memory" (steps.train.memory)'),
        ({"constraint": "a100"}, "feature", 'Change "constraint" (steps.train.constraint)'),
    ],
)
def test_what_slurm_refuses_is_explained_and_nothing_stays(home, capsys, step, words, advice):
    settings = {**SETTINGS, "steps": {**SETTINGS["steps"], "train": {"gpus": 0, **step}}}
    write_json(settings, cluster_settings())
    assert submit() == 1
    said = " ".join(capsys.readouterr().err.split())
    assert words in said and advice in said
    wait_until(lambda: not commands.queue(), 10)


def test_further_seeds_are_elements_of_the_same_array(home, capsys):
    assert submit("--seeds", "0", "1") == 0 and "train: 4 steps;" in capsys.readouterr().out
    wait_until(all_done)
    assert starts(home, f"{FOLD.format(1)} seed 1") == ["0"]
    assert (DatasetPaths(NAME).of_seed(1) / NAME).is_dir()


def test_a_comparison_trains_in_an_array_and_the_last_job_writes_the_tables(dataset, monkeypatch, capsys):
    """With real commands, of which there are four."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_json({**SETTINGS, "memory": 2.0}, cluster_settings())
    words = ["-d", "1", "-m", "cronos", "lci", "--iterations", "3", "--seeds", "0", "1"]
    assert compare([*words, "--cluster", "slurm"]) == 0
    said = capsys.readouterr().out
    assert "train: 2 steps; each 1 core, 2 GB" in said and "compare: 1 step;" in said
    paths = dataset.comparison("methods_3_iterations")

    def found():
        return {one.step.name: (one.state, one.reason, one.last_line) for one in status_of_comparison(paths)}

    wait_until(lambda: not commands.queue(), 900)
    assert {name: state for name, (state, *_) in found().items()} == {
        **{f"train cronos fold 0 seed {seed}": "done" for seed in (0, 1)},
        "compare": "done",
    }, found()
    table = read_json(paths.table_json)
    assert [line["variant"] for line in table["table"]] == ["cronos", "lci"] and len(table["table"][0]["runs"]) == 2
    log = next(paths.study.logs.glob("*compare*_0.log")).read_text()
    assert "longflow_predict" in log and "longflow_train" not in log  # all trainings were done
    assert status(["-d", "1"]) == 0 and "3 done" in capsys.readouterr().out
    assert compare([*words, "--cluster", "slurm"]) == 0
    assert "Nothing to do: every step is done" in capsys.readouterr().out and not commands.queue()


def test_printed_scripts_are_submitted_by_hand(home):
    assert submit("--print") == 0
    folder = DatasetPaths(NAME).study.printed
    assert not commands.queue()
    subprocess.run(["bash", folder / "submit.sh"], check=True, capture_output=True)
    wait_until(all_done)
