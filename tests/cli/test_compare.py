"""The command as a user runs it, with simulated commands and, once, with real ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longflow.cli import compare
from longflow.cli.compare import parser, request_of
from longflow.compare import perform
from longflow.compare.comparison import Budget
from longflow.compare.request import ComparisonRequest
from longflow.compare.variants import STUDIES
from longflow.paths import DatasetPaths
from longflow.reading import read_json
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
    assert request_of(typed) == ComparisonRequest(
        "1",
        methods=("tfm",),
        study="nfe",
        budget=Budget(max_time=120),
        seeds=(0, 3),
        evaluations=(2,),
        device="cpu",
        workers=2,
    )
    assert request_of(parser().parse_args([*options, "-m", "lci"])).budget is None


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
