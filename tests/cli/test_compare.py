"""What is asked is checked before anything is trained; and the whole of it, as a user runs it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longflow.cli import compare
from longflow.cli.compare import STUDY_NAMES, duration, parser, set_up
from longflow.compare import perform
from longflow.compare.comparison import Budget
from longflow.compare.variants import STUDIES
from longflow.errors import ConfigurationError, NotFoundError
from longflow.files import read_json
from longflow.paths import DatasetPaths
from longflow.plans import read_plans, write_plans
from tests.compare.helpers import Player, trained
from tests.conftest import OWN_VARIABLES


def asked(*arguments):
    return set_up(parser().parse_args(["-d", "1", *map(str, arguments), "--device", "cpu"]))


@pytest.fixture
def play(dataset, monkeypatch):
    """Run the command with played commands in its place; exit code, and what it ran."""
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


def test_studies_have_their_names():
    assert tuple(STUDIES) == STUDY_NAMES


def test_methods_as_asked(dataset):
    found = asked("-m", "cronos", "lci", "cronos", "--iterations", 9, "--seeds", 2, 1, "-f", 1, 0, 1)
    assert [variant.name for variant in found.variants] == ["cronos", "lci"]
    assert found.budget == Budget(iterations=9) and found.seeds == (2, 1) and found.folds == (1, 0)
    assert found.configuration == "3d_fullres" and found.device == "cpu"
    assert found.paths.folder == dataset.results / "comparisons" / "methods_9_iterations"
    for fold in (0, 1):
        stored = read_json(dataset.validation_targets)["folds"][fold]
        assert found.targets[fold].subjects == {one["target"]: one["subject"] for one in stored}


def test_without_a_budget_it_is_the_plans(dataset):
    found = asked("-m", "lci")
    assert found.budget == Budget(epochs=read_plans(dataset.plans()).training.epochs)


def test_a_study_with_its_targets_and_its_name(dataset):
    found = asked("--study", "masking", "--max_time", "2m")
    assert [variant.hidden for variant in found.variants if variant.hidden] == [
        "first:1",
        "first:2",
        "last:1",
        "last:2",
    ]
    assert found.targets[0].context_scans == 3 and found.paths.folder.name == "masking_120s"
    few = asked("--study", "nfe", "-m", "tfm", "--evaluations", 1, 3, "--name", "mine")
    assert [variant.steps for variant in few.variants if variant.steps] == [1, 3] and few.paths.folder.name == "mine"


def test_a_folder_in_place_of_the_validation_targets(dataset, tmp_path):
    folder = asked("-m", "lci").targets[0].folder
    wanted = shutil.copytree(folder, tmp_path / "wanted")
    found = asked("-m", "lci", "-i", wanted, "-r", folder, "-f", 0, 1)
    assert found.targets[0] is found.targets[1] and found.targets[0].folder == wanted
    assert found.targets[0].references == (folder, dataset.raw / "imagesTr")
    assert len(found.runs) == 1 and found.paths.folder.name.endswith("_wanted")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ConfigurationError, "Say what is to be compared: methods with -m, or a study with --study"),
        (["-m", "crones"], NotFoundError, "Did you mean 'cronos'"),
        (["-m", "unet"], ConfigurationError, "does not forecast"),
        (["-m", "lci", "--evaluations", 2], ConfigurationError, "--evaluations is for --study nfe"),
        (["-m", "lci", "-r", "x"], ConfigurationError, "Give -i, or leave -r away"),
        (["-m", "lci", "-i", "x", "-r", "nowhere"], NotFoundError, "does not exist: nowhere"),
        (["-m", "lci", "-f", 77], NotFoundError, "There is no fold 77"),
        (["-m", "lci", "-c", "3d_lowres"], NotFoundError, "3d_lowres"),
        (["-m", "lci", "--name", "../elsewhere"], ConfigurationError, "cannot be the name of a folder"),
    ],
)
def test_what_cannot_be_compared(dataset, arguments, error, message):
    with pytest.raises(error, match=message):
        asked(*arguments)


def test_studies_that_hide_need_something_to_hide(dataset, tmp_path):
    folder = shutil.copytree(asked("-m", "lci").targets[0].folder, tmp_path / "wanted")
    rows = (folder / "scans.csv").read_text().splitlines()
    target = next(row.split(",")[0] for row in rows[1:] if "_from_" not in row)
    of_target = [row for row in rows[1:] if row.split(",")[1] == target]
    (folder / "scans.csv").write_text("\n".join([rows[0], *of_target[-2:]]) + "\n")
    with pytest.raises(ConfigurationError, match="has one context scan"):
        asked("--study", "masking", "-i", folder)


@pytest.mark.parametrize("budget", [["--epochs", "2", "--iterations", "3"], ["--iterations", "0"], ["--seeds", "-1"]])
def test_flags_that_cannot_be(dataset, budget, capsys):
    with pytest.raises(SystemExit) as raised:
        parser().parse_args(["-d", "1", "-m", "lci", *budget])
    assert raised.value.code == 1 and "Error" in capsys.readouterr().err


def test_only_forecasts_are_compared(dataset):
    plans = read_plans(dataset.plans())
    write_plans(plans.model_copy(update={"task": "segment"}), dataset.plans())
    with pytest.raises(ConfigurationError, match="only forecasts are compared"):
        asked("-m", "lci")


def test_it_says_what_it_does_and_where(play, dataset, capsys):
    code, player = play("-m", "cronos", "lci", "--iterations", 3, "--seeds", 0, 1)
    assert code == 0 and player.names() == ["train", "predict", "predict", "train", "predict"]
    said = " ".join(capsys.readouterr().out.split())
    assert "every training has 3 iterations" in said and "What is missing is trained in" in said
    assert "1 of 3: cronos, fold 0, seed 0" in said and "3 of 3: cronos, fold 0, seed 1" in said
    assert f"$ {player.ran[0].typed}" in said
    assert "Written: comparison.csv, comparison.json, targets.csv, cost.png, horizon.png, learning.png" in said
    code, player = play("-m", "cronos", "lci", "--iterations", 3, "--seeds", 0, 1)
    assert code == 0 and player.ran == [] and "of 3" not in capsys.readouterr().out


def test_models_of_the_standard_results_are_named(play, dataset, capsys):
    trained(dataset, dataset.results.parent)
    code, player = play("-m", "cronos", "--iterations", 3)
    assert code == 0 and player.names() == ["predict"]
    said = " ".join(capsys.readouterr().out.split())
    assert "Used as they are" in said and "cronos, fold 0, seed 0" in said and "What is missing" not in said


def test_failures_are_reported_at_the_end(play, dataset, capsys):
    code, _ = play("-m", "cronos", "tfm", "lci", "--iterations", 3, codes={"-m tfm": 1})
    assert code == 1
    said, complaint = capsys.readouterr()
    assert "cronos" in said.split("What it took")[1] and "Failed: tfm, fold 0, seed 0: longflow_train" in complaint
    table = read_json(DatasetPaths(dataset.name).comparison("methods_3_iterations").table_json)
    assert [line["variant"] for line in table["table"]] == ["cronos", "lci"] and len(table["failures"]) == 1


def test_stopped_by_the_user_it_writes_the_table_of_what_there_is(play, dataset, capsys):
    code, _ = play("-m", "lci", "cronos", "--iterations", 3, codes={"longflow_train": 130})
    assert code == 130 and "Run the same command again to go on" in capsys.readouterr().err
    table = read_json(dataset.comparison("methods_3_iterations").table_json)["table"]
    assert [line["variant"] for line in table] == ["lci"]


def test_durations():
    assert [duration(seconds) for seconds in (89, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_a_study_uses_what_it_trained(dataset, run_command):
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
