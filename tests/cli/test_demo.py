"""The messages of the demo and their order, with simulated commands. The continuous integration runs the real ones."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from longflow.cli import demo
from longflow.demo.cohort import DATASET_NAME
from longflow.demo.forecasting import demo_commands, forecast_folder
from longflow.files import write_json
from longflow.task import all_tasks

OVERALL = {
    **{
        name: {"nrmse": {"mean": mean}}
        for name, mean in (("lci", 0.1), ("context_mean", 0.09), ("motion", 0.08), ("forecast", 0.05))
    },
    "better_than_lci": {"better": 3, "targets": 4},
    "best_rung": {"name": "motion", "better": {"better": 2, "targets": 4}, "verdict": "tie"},
}


@pytest.fixture
def play(monkeypatch, phantom_dataset, tmp_path):
    """Run the demo on the tiny cohort, with an exit code for each simulated command; return the commands."""

    def played(codes: dict[str, int]) -> list[str]:
        ran = []

        def run_command(command, folders):
            ran.append(command.typed)
            if command.name == "evaluate":
                write_json({"overall": OVERALL}, forecast_folder(Path(folders["LONGFLOW_HOME"])) / "metrics.json")
            return codes.get(command.name, 0)

        monkeypatch.setattr("longflow.commands.run_command", run_command)
        assert demo.main(["--folder", str(tmp_path / "home"), "--max_time", "7s"]) == 0 or codes
        return ran

    raw = phantom_dataset / "raw" / DATASET_NAME
    monkeypatch.setattr("longflow.demo.forecasting.write_cohort", lambda folder: shutil.copytree(raw, folder))
    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)
    return played


def test_commands_are_run_as_shown_and_results_are_compared_with_lci(play, tmp_path, capsys):
    ran = play({})
    assert ran == [command.typed for command in demo_commands(tmp_path / "home", 7)]
    shown = capsys.readouterr().out
    positions = [shown.index(f"$ {typed}") for typed in ran]
    assert positions == sorted(positions)
    assert "0.0500" in shown and "0.50 x" in shown and "0.90 x" in shown
    assert "Better than LCI in 3 of 4 targets" in shown and "Better than motion in 2 of 4 targets" in shown
    assert "the last motion continued (best rung)" in shown and "linear" not in shown
    assert "without training (motion): a tie" in shown


def test_every_task_of_longflow_has_a_demo_with_the_four_functions(capsys):
    with pytest.raises(SystemExit):
        demo.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for task in all_tasks():
        assert f"{task.name}: {task.words.help['demo']}" in said
        module = import_module(task.demo)
        assert module.TITLE and module.MAX_TIME > 0
        for name in ("raw_folder", "write_data", "demo_commands", "results"):
            assert callable(getattr(module, name))


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (130, 130), (-15, 143)])
def test_it_stops_where_a_command_fails(play, code, expected, capsys):
    with pytest.raises(SystemExit) as raised:
        play({"train": code})
    assert raised.value.code == expected
    assert "The demo stops here" in capsys.readouterr().err
