import pytest

from longflow.cli import run as module
from longflow.cli.run import main, parser, request_of
from longflow.cluster.local import Report
from longflow.cluster.request import read_request, read_study_data
from longflow.cluster.steps import study_steps
from longflow.methods.registry import method_class
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME, finish
from tests.conftest import another_process_holds


@pytest.fixture
def paths(phantom_home):
    return DatasetPaths(NAME)


def finish_all(paths):
    request, data = read_request(paths), read_study_data(paths)
    for step in study_steps(request, data):
        finish(step, request, data)


def test_flags_become_a_request(paths):
    words = (
        "-d 900 -m tfm tfm cronos -f 0 2 -p longflowPlans --preset S --iterations 5 --seeds 3 1 3 --device cpu -np 2"
    )
    request = request_of(parser().parse_args(words.split()), paths)
    assert request.methods == ("tfm", "cronos") and request.folds == (0, 2) and request.seeds == (3, 1)
    assert request.planning == ("--preset", "S") and request.training == ("--iterations", "5")
    assert request_of(parser().parse_args(["-d", "900", "--seed", "3"]), paths).seeds == (3,)  # an older flag
    timed = request_of(parser().parse_args(["-d", "900", "--max_time", "2h"]), paths)
    assert timed.max_time == 7200 and timed.training == ("--max_time", "7200s")


def test_a_study_runs_here_and_has_nothing_to_do_then(paths, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("longflow.cluster.local.run_here", lambda study, *_: ran.append(len(study.steps)) or Report())
    assert main(["-d", "900", "-f", "0", "1"]) == 0 and ran == [8]
    finish_all(paths)
    capsys.readouterr()
    assert main(["-d", "900", "-f", "0", "1"]) == 0 and ran == [8]
    assert "nothing to do, every step is done" in capsys.readouterr().out


def test_networks_are_trained_each(paths):
    first, second = method_class("tfm").networks[:2]
    words = ["-d", "900", "-m", "tfm", "--networks", first, second, "--seeds", "0", "1", "-f", "0", "--print"]
    assert main(words) == 0
    steps = study_steps(read_request(paths), read_study_data(paths))
    assert [step.name for step in steps if step.kind == "train"] == [
        f"train {method} 3d_fullres fold 0{seed}" for seed in ("", " seed 1") for method in ("tfm", f"tfm-{second}")
    ]


def test_a_failed_step_ends_with_an_error(paths, monkeypatch, capsys):
    def failing(study, *_):
        return Report([], {"train x": "exit code 1, its message is above"}, [study.steps[-1]])

    monkeypatch.setattr("longflow.cluster.local.run_here", failing)
    with pytest.raises(SystemExit, match="1"):
        main(["-d", "900"])
    said = capsys.readouterr().err
    assert "Failed: train x: exit code 1" in said and "because they need it: report" in said


def test_commands_are_shown_as_typed(paths, capsys):
    main(["-d", "900", "--print"])
    request, data = read_request(paths), read_study_data(paths)
    step = study_steps(request, data)[0]
    capsys.readouterr()
    for typed in step.commands:
        module.show_command(step, typed, 1, 8)
    said = capsys.readouterr().out
    assert said.count("1 of 8: prepare") == 1 and "$ longflow_verify -d Dataset900_Phantom" in said


def test_trainings_are_measured_with_the_processes_that_they_will_have(paths, capsys, tmp_path):
    assert main(["-d", "900", "--measure", "--print", "--cluster", "slurm", "--gpus", "4", "--nodes", "2"]) == 0
    request = read_request(paths)
    assert request.measures == 8 and len(study_steps(request, read_study_data(paths))) == 3
    (script,) = paths.study.printed.glob("*_measure_*.sh")
    assert "srun --kill-on-bad-exit=1" in script.read_text() and "--measure -np 7" in script.read_text()
    assert request_of(parser().parse_args(["-d", "900", "--measure"]), paths).measures == 1


def test_two_studies_at_once_are_refused(paths, capsys):
    with another_process_holds(paths.study.lock):
        assert main(["-d", "900"]) == 1
    assert "The study of Dataset900_Phantom is run or submitted by another process" in capsys.readouterr().err


def test_scripts_are_printed(paths, capsys):
    assert main(["-d", "900", "--print"]) == 0
    said = capsys.readouterr().out
    assert f"{paths.study.printed}/submit.sh" in said and "bash submit.sh" in said


def test_default_settings_are_written(tmp_path, capsys):
    assert main(["--write_cluster", str(tmp_path / "cluster.json")]) == 0
    assert (tmp_path / "cluster.json").is_file()
    assert main(["--write_cluster", str(tmp_path / "cluster.json")]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Which dataset?"),
        (["-d", "900", "--gpus", "2"], "--gpus and --nodes are for --cluster slurm"),
        (["-d", "900", "--cluster", "slurm"], "No Slurm on this machine"),
        (["-d", "900", "--cancel"], "No Slurm on this machine"),
        (["-d", "900", "-m", "crones"], "Did you mean 'cronos'"),
        (["-d", "900", "--print", "--settings", "gone.json"], "gone.json"),
    ],
)
def test_bad_input(paths, monkeypatch, capsys, words, message):
    monkeypatch.setenv("PATH", str(paths.raw))
    assert main(words) == 1
    assert message in capsys.readouterr().err
