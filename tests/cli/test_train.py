import subprocess
import sys
import time
from pathlib import Path

import pytest

from longflow.cli import train
from longflow.methods.registry import method_class
from longflow.plans import write_plans
from longflow.task import all_tasks
from tests.inference.helpers import plans_to_translate

MODEL = "cronos__longflowPlans__3d_fullres"


def run(*arguments):
    return train.main([*arguments, "--device", "cpu"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "0 is not above zero"),
        (["--iterations", "many"], "'many' is not a number"),
        (["--lr", "-1"], "-1 is not above zero"),
        (["-np", "-1"], "-1 is not above zero"),
        (["--max_time", "soon"], "'soon' is not a time"),
    ],
)
def test_impossible_numbers(arguments, message, capsys):
    with pytest.raises(SystemExit) as raised:
        run("1", "3d_fullres", "0", *arguments)
    assert raised.value.code == 1 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Dataset001_Tset", "3d_fullres", "0"), "Did you mean 'Dataset001_Test'"),
        (("77", "3d_fullres", "0"), "There is no dataset '77'"),
        (("1", "3d_fulres", "0"), "Did you mean '3d_fullres'"),
        (("1", "3d_fullres", "0", "-m", "crones"), "Did you mean 'cronos'"),
        (("1", "3d_fullres", "5"), "There is no fold 5"),
        (("1", "3d_fullres", "first"), "The fold is 'first', expected a number from 0 to 4, or all"),
        (("1", "3d_fullres", "-1"), "The fold is '-1', expected a number"),
        (("1", "3d_fullres", "0", "-p", "otherPlans"), "otherPlans.json does not exist"),
        (("1", "3d_fullres", "0", "-m", "lci"), "'lci' has nothing to train"),
        (("1", "3d_fullres", "0", "--network", "unet"), "There is no network 'unet'. Did you mean 'film_unet'"),
        (("1", "3d_fullres", "0", "-m", "mfm", "--network", "segrasnet"), "Did you mean 'segresnet'"),
        (("1", "3d_fullres", "0", "-m", "mfm-unet", "--network", "segresnet"), "'mfm-unet' names a network already"),
        (("1", "3d_fullres", "0", "-m", "mfm", "--network", "unet"), "'mfm-unet' is for the task 'translate'"),
    ],
)
def test_unknown_names_end_with_1(dataset, arguments, message, capsys):
    assert run(*arguments) == 1
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split()) and "Traceback" not in shown
    assert not dataset.results.exists()


def test_an_unknown_device(dataset, capsys):
    assert train.main(["1", "3d_fullres", "0", "--device", "tpu"]) == 1
    assert "The device 'tpu' cannot be used" in capsys.readouterr().err


def test_all_folds_one_after_the_other_and_again(dataset, capsys):
    assert run("1", "3d_fullres", "all", "--iterations", "1") == 0
    assert dataset.model("cronos", "longflowPlans", "3d_fullres").finished_folds() == [0, 1, 2, 3, 4]
    assert capsys.readouterr().out.count("Trained: ") == 5
    fold = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    assert fold.progress_png.is_file()
    before = fold.final.stat().st_mtime_ns
    assert run("1", "3d_fullres", "0") == 0
    assert fold.final.stat().st_mtime_ns == before and "is finished" in capsys.readouterr().err


def test_the_course_is_drawn_now_and_then_and_at_the_end(dataset, monkeypatch):
    drawn, paths = [], dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)

    def draws_slowly(*_):
        drawn.append("drawn")
        time.sleep(0.02)

    def trains(*_, after_epoch, **__):
        for epoch in range(30):
            drawn.append(epoch)
            after_epoch(paths)
        return paths

    monkeypatch.setattr("longflow.training.loop.train_fold", trains)
    monkeypatch.setattr("longflow.report.drawing.progress_figure", draws_slowly)
    assert run("1", "3d_fullres", "0") == 0
    assert drawn == [0, "drawn", *range(1, 30), "drawn"]


def test_a_measurement_trains_nothing(dataset, monkeypatch, capsys):
    monkeypatch.setattr("longflow.training.measure.SECONDS", 0.0)
    assert run("1", "3d_fullres", "all", "--measure", "--iterations", "100") == 0
    model = dataset.model("cronos", "longflowPlans", "3d_fullres")
    assert [path.name for path in model.folder.iterdir()] == ["measured_1.json"]
    said = " ".join(capsys.readouterr().err.split())
    assert "s a validation" in said and "A training of 100 steps takes about" in said


def test_a_fault_of_ours_ends_with_2(dataset, monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("oops")

    monkeypatch.setattr("longflow.training.loop.train_fold", fails)
    assert run("1", "3d_fullres", "0") == 2
    assert "fault of longflow: RuntimeError: oops" in capsys.readouterr().err


def test_an_interruption_ends_with_130(dataset, monkeypatch, capsys):
    from longflow.stop import Stopped

    def stops(*_, **__):
        raise Stopped

    monkeypatch.setattr("longflow.training.loop.train_fold", stops)
    assert run("1", "3d_fullres", "0") == 130
    assert "Run the same command again to continue" in capsys.readouterr().err


def test_the_help_has_the_default_method_of_every_task(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{task.default_method} ({task.name})" in shown for task in all_tasks())


def test_an_unknown_network_lists_all(dataset, capsys):
    write_plans(plans_to_translate(), dataset.plans())
    assert run("1", "3d_fullres", "0", "--network", "transformer") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert all(network in said for network in method_class("mfm").networks)


@pytest.mark.parametrize(
    ("flags", "model"),
    [
        ((), "mfm"),
        (("--network", "timeresnet"), "mfm"),
        (("-m", "mfm-timeresnet"), "mfm"),
        (("--network", "segresnet"), "mfm-segresnet"),
        (("-m", "regression", "--network", "unet"), "regression-unet"),
        (("-m", "regression-unet"), "regression-unet"),
    ],
)
def test_the_network_is_part_of_the_models_name(dataset, monkeypatch, flags, model):
    trained = []

    def remember(job, *_, **__):
        trained.append(job.method)
        return job.paths

    monkeypatch.setattr("longflow.training.loop.train_fold", remember)
    write_plans(plans_to_translate(), dataset.plans())
    assert run("1", "3d_fullres", "0", *flags) == 0
    assert trained == [model]


def test_workers_by_device(monkeypatch):
    monkeypatch.setattr("longflow.parallel.available_cores", lambda: 32)
    assert train.default_workers("cpu") == 0 and train.default_workers("cuda:0") == 8


@pytest.mark.parametrize("command", ["train", "predict"])
def test_help_is_instant_and_has_an_example(command):
    begun = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"longflow.cli.{command}", "--help"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0 and "example:" in result.stdout and f"longflow_{command} " in result.stdout
    assert " torch" not in result.stderr
    assert time.monotonic() - begun < 3


def test_the_bar_says_what_is_being_done_and_is_full_at_the_end_only(dataset, monkeypatch):
    shown = []
    update = train.bar_with(train.TaskProgressColumn()).__class__.update

    def note(bar, task, **state):
        shown.append((state["completed"], state.get("note", "")))
        update(bar, task, **state)

    monkeypatch.setattr("rich.progress.Progress.update", note)
    assert run("1", "3d_fullres", "0", "--iterations", "2") == 0
    assert [share for share, _ in shown if share == 1] == [1] and shown[-1] == (1, "")
    texts = [text for _, text in shown]
    assert texts[0].startswith("training, step 1") and "validating, 1 of 6" in texts
    assert texts[-2] == "predicting out of fold, 6 of 6" and shown[-2][0] == 0.99
