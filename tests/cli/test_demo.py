"""What the demo says and in which order; its commands are played by a function. The continuous integration runs it."""

import shutil
from pathlib import Path

import pytest

from longflow.cli import demo
from longflow.demo.cohort import DATASET_NAME
from longflow.demo.forecasting import demo_commands, forecast_folder
from longflow.files import write_json

OVERALL = {
    **{name: {"nrmse": {"mean": mean}} for name, mean in (("lci", 0.1), ("context_mean", 0.09), ("forecast", 0.05))},
    "better_than_lci": {"better": 3, "targets": 4},
}


@pytest.fixture
def play(monkeypatch, phantom_dataset, tmp_path):
    """Play the demo on the tiny cohort, with an exit code for each of its commands; the commands that were run."""

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


def test_commands_are_run_as_they_are_shown_and_results_stand_beside_lci(play, tmp_path, capsys):
    ran = play({})
    assert ran == [command.typed for command in demo_commands(tmp_path / "home", 7)]
    shown = capsys.readouterr().out
    positions = [shown.index(f"$ {typed}") for typed in ran]
    assert positions == sorted(positions)
    assert "0.0500" in shown and "0.50 x" in shown and "0.90 x" in shown
    assert "Better than LCI in 3 of 4 targets" in shown


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (130, 130), (-15, 143)])
def test_it_stops_where_a_command_fails(play, code, expected, capsys):
    with pytest.raises(SystemExit) as raised:
        play({"train": code})
    assert raised.value.code == expected
    assert "The demo stops here" in capsys.readouterr().err
