"""The command as a user runs it, with simulated commands and, once, with real ones."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from longflow.cli import compare
from longflow.cli.compare import parser, request_of
from longflow.cli.status import main as status
from longflow.cluster.comparison import read_study_record
from longflow.compare import perform
from longflow.compare.comparison import Budget
from longflow.compare.request import ComparisonRequest
from longflow.compare.variants import STUDIES
from longflow.files import write_json
from longflow.paths import DatasetPaths, cluster_settings
from longflow.reading import read_json
from tests.cluster.helpers import ListedJobs
from tests.compare.helpers import Player, trained
from tests.conftest import OWN_VARIABLES


@pytest.fixture
def play(dataset, monkeypatch):
    """Run the command with simulated commands; return its exit code and the player."""
    monkeypatch.setattr("longflow.parallel.available_cores", lambda: 1)
    monkeypatch.setattr(compare.signal, "signal", lambda *_: None)

    def played(*arguments, codes=None):
        player = Player(dataset, codes)
        monkeypatch.setattr(perform, "run_command", player)
        try:
            return compare.main(["-d", "1", "--device", "cpu", *map(str, arguments)]), player
        except SystemExit as exit:
            return exit.code, player

    return played


def test_flags_make_a_request(dataset):
    options = ["-d", "1", "--device", "cpu", "-np", "2", "--seeds", "0", "3"]
    typed = parser().parse_args([*options, "--study", "nfe", "--evaluations", "2", "-m", "tfm", "--max_time", "2m"])
    assert request_of(typed, "cpu") == ComparisonRequest(
        "1",
        methods=("tfm",),
        study="nfe",
        budget=Budget(max_time=120),
        seeds=(0, 3),
        evaluations=(2,),
        device="cpu",
        workers=2,
    )
    assert request_of(parser().parse_args([*options, "-m", "lci"]), "cpu").budget is None


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "cronos", "lci", "--max_time", "2m", "-f", "1", "0", "--seeds", "3", "-np", "0", "--name", "x"],
        ["--study", "nfe", "--evaluations", "2", "5", "-c", "2d", "-p", "mine", "--epochs", "3"],
        ["-m", "lci", "-i", "asked", "-r", "a", "b"],
    ],
)
def test_a_job_requests_the_same(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = request_of(parser().parse_args(["-d", "1", *words]), "cuda")
    typed = list(request.arguments)
    monkeypatch.chdir("/")
    again = parser().parse_args(typed)
    found = request_of(again, again.device)
    folders = [folder and tmp_path / folder for folder in (request.input, *request.references)]
    assert [found.input, *found.references] == folders
    assert replace(found, input=None, references=()) == replace(request, input=None, references=())


def test_help_names_every_study(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}: {study.title} ({study.source})" in said for name, study in STUDIES.items())


@pytest.mark.parametrize("budget", [["--epochs", "2", "--iterations", "3"], ["--iterations", "0"], ["--seeds", "-1"]])
def test_impossible_flags(dataset, budget, capsys):
    with pytest.raises(SystemExit) as raised:
        parser().parse_args(["-d", "1", "-m", "lci", *budget])
    assert raised.value.code == 1 and "Error" in capsys.readouterr().err


def test_it_announces_its_steps_and_folders(play, dataset, capsys):
    code, player = play("-m", "cronos", "lci", "--iterations", 3, "--seeds", 0, 1)
    assert code == 0 and player.names() == ["train", "predict", "predict", "train", "predict"]
    said = " ".join(capsys.readouterr().out.split())
    assert "every training has 3 iterations" in said and "Missing models are trained in" in said
    assert "1 of 3: cronos, fold 0, seed 0" in said and "3 of 3: cronos, fold 0, seed 1" in said
    assert f"$ {player.ran[0].typed}" in said
    assert "Written: comparison.csv, comparison.json, targets.csv, cost.png, horizon.png, learning.png" in said
    code, player = play("-m", "cronos", "lci", "--iterations", 3, "--seeds", 0, 1)
    assert code == 0 and player.ran == [] and "of 3" not in capsys.readouterr().out


@pytest.mark.parametrize(("study", "file"), [("change", "change.png"), ("velocity", "velocity_cronos.png")])
def test_studies_that_draw_figures_of_their_own(play, dataset, capsys, study, file):
    code, player = play("--study", study, "--iterations", 3)
    assert code == 0 and player.names() == ["predict", "train", "predict"]
    assert f", {file}, learning.png in " in " ".join(capsys.readouterr().out.split())
    assert (dataset.comparison(f"{study}_3_iterations").folder / file).stat().st_size > 1000


def test_models_of_the_standard_results_are_named(play, dataset, capsys):
    trained(dataset, dataset.results.parent)
    code, player = play("-m", "cronos", "--iterations", 3)
    assert code == 0 and player.names() == ["predict"]
    said = " ".join(capsys.readouterr().out.split())
    assert "Reused from" in said and "cronos, fold 0, seed 0" in said and "Missing models" not in said


def test_failures_are_reported_at_the_end(play, dataset, capsys):
    code, _ = play("-m", "cronos", "tfm", "lci", "--iterations", 3, codes={"-m tfm": 1})
    assert code == 1
    said, complaint = capsys.readouterr()
    assert "cronos" in said.split("Costs (means")[1] and "Failed: tfm, fold 0, seed 0: longflow_train" in complaint
    table = read_json(DatasetPaths(dataset.name).comparison("methods_3_iterations").table_json)
    assert [line["variant"] for line in table["table"]] == ["cronos", "lci"] and len(table["failures"]) == 1


def test_an_interruption_leaves_the_table_of_finished_runs(play, dataset, capsys):
    code, _ = play("-m", "lci", "cronos", "--iterations", 3, codes={"longflow_train": 130})
    assert code == 130 and "Run the same command again to continue" in capsys.readouterr().err
    table = read_json(dataset.comparison("methods_3_iterations").table_json)["table"]
    assert [line["variant"] for line in table] == ["lci"]


@pytest.fixture
def slurm(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/bin/{name}")
    return ListedJobs(monkeypatch)


CLUSTER = ("-m", "cronos", "lci", "--iterations", 3, "--seeds", 0, 1)


def test_trainings_are_submitted_and_the_command_itself_after_them(play, dataset, slurm, capsys):
    code, player = play(*CLUSTER, "--cluster", "slurm", "--gpus", 2)
    assert code == 0 and player.ran == []
    said = capsys.readouterr().out
    assert "train: 2 steps;" in said and "compare: 1 step;" in said and "Cancel: the same command with --cancel" in said
    assert list(slurm.after.values()) == [[], ["100"]]
    assert play(*CLUSTER, "--cluster", "slurm")[0] == 0 and "Under way already: 3 steps" in capsys.readouterr().out
    assert play(*CLUSTER)[0] == 1 and "3 steps of this study wait or run in Slurm" in capsys.readouterr().err
    assert status(["-d", "1"]) == 0
    said = capsys.readouterr().out
    assert "comparison methods_3_iterations" in said and "train cronos fold 0 seed 1" in said and "3 waiting" in said
    assert play(*CLUSTER, "--cancel")[0] == 0 and "3 steps cancelled" in capsys.readouterr().out
    assert slurm.waiting == {}


def test_a_comparison_on_a_cluster_continues_here_and_is_shown_then(play, dataset, slurm, monkeypatch, capsys):
    play(*CLUSTER, "--cluster", "slurm")
    slurm.waiting = {}  # all failed
    trained(dataset, dataset.trained_to_compare("3_iterations", "cronos", 0))
    capsys.readouterr()
    assert play(*CLUSTER, "--cluster", "slurm")[0] == 0 and "train: 1 step;" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_JOB_ID", "103")  # as the last job does
    code, player = play(*CLUSTER)
    assert code == 0 and player.names() == ["predict", "predict", "train", "predict"]
    slurm.waiting = {}
    capsys.readouterr()
    assert play(*CLUSTER, "--cluster", "slurm")[0] == 0
    said = capsys.readouterr().out
    assert "Nothing to do: every step is done" in said and "Costs (means over runs)" in said and len(slurm.after) == 4
    # forecasts that were deleted are made again by a job
    shutil.rmtree(dataset.comparison("methods_3_iterations").folder / "predictions")
    assert play(*CLUSTER, "--cluster", "slurm")[0] == 0 and "compare: 1 step;" in capsys.readouterr().out


def test_the_device_is_that_of_the_jobs_and_not_of_this_machine(play, dataset, capsys):
    """Login nodes have no GPU."""
    words = ["-d", "1", "-m", "cronos", "--iterations", "3", "--print"]
    assert compare.main(words) == 0
    paths = dataset.comparison("methods_3_iterations")
    record = read_study_record(paths)
    assert "--device cuda" in " ".join(record.trainings[0].arguments) and "--device cuda" in " ".join(record.arguments)
    assert (paths.study.printed / "submit.sh").is_file() and not paths.study.jobs.exists()
    write_json({"steps": {"train": {"gpus": 0}}}, cluster_settings())
    assert compare.main(words) == 0 and "--device cpu" in " ".join(read_study_record(paths).arguments)


def test_outdated_trainings_are_named_and_trained_from_scratch(play, dataset, capsys):
    trained(dataset, dataset.trained_to_compare("3_iterations", "cronos", 0), device="cuda")
    code, _ = play("-m", "cronos", "--iterations", 3, "--print")
    assert code == 0 and "or another device: cronos, fold 0, seed 0" in capsys.readouterr().out
    (script,) = dataset.comparison("methods_3_iterations").study.printed.glob("*train*.sh")
    assert "longflow.cli.train" in script.read_text() and "--overwrite" not in script.read_text()


def test_without_slurm_nothing_is_written(play, dataset, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(dataset.raw))
    assert play(*CLUSTER, "--cluster", "slurm")[0] == 1 and "No Slurm on this machine" in capsys.readouterr().err
    assert play(*CLUSTER, "--cancel")[0] == 1 and play(*CLUSTER, "--gpus", 2)[0] == 1
    assert not (dataset.results / "comparisons").exists()


@pytest.mark.slow
def test_killed_it_continues_and_a_study_reuses_its_models(dataset, run_command):
    home = dataset.raw.parents[1]
    arguments = ["-d", "1", "--iterations", "6", "--device", "cpu"]
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    process = subprocess.Popen(
        [sys.executable, "-m", "longflow.cli.compare", *arguments, "-m", "cronos", "lci"],
        env={**environment, "LONGFLOW_HOME": str(home), "PYTHONPATH": str(Path(compare.__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    own = dataset.results / "comparisons"
    deadline = time.monotonic() + 300
    while not list(own.rglob("run.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    assert not list(own.rglob("comparison.json")) and not list(own.rglob("checkpoint_final*"))

    result = run_command("longflow_compare", *arguments, "-m", "cronos", "lci", home=home, timeout=900)
    assert result.returncode == 0, result.stderr
    table = read_json(own / "methods_6_iterations" / "comparison.json")
    lines = {line["variant"]: line for line in table["table"]}
    assert set(lines) == {"cronos", "lci"} and not table["failures"]
    assert lines["lci"]["nrmse"]["minus_lci"]["mean"] == 0
    cost = lines["cronos"]["cost"]
    assert cost["iterations"] == 6 and cost["parameters"] > 100 and cost["seconds_per_prediction"] > 0

    again = run_command("longflow_compare", *arguments, "--study", "masking", home=home, timeout=900)
    assert again.returncode == 0 and "longflow_train" not in again.stdout, again.stderr
    folder = own / "masking_6_iterations"
    lines = {line["variant"]: line["nrmse"] for line in read_json(folder / "comparison.json")["table"]}
    assert set(lines) == {"lci", "cronos", *(f"cronos, {end} {n} hidden" for end in ("first", "last") for n in (1, 2))}
    # with the latest scans hidden, LCI is an earlier scan; with the earliest, it is the same
    assert lines["cronos, first 2 hidden"]["lci"] == lines["cronos"]["lci"] < lines["cronos, last 2 hidden"]["lci"]
    assert (folder / "study.png").is_file()
