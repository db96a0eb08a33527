import os
import sys
import time

import pytest

from longflow.cluster import local
from longflow.cluster.local import gpus_of_this_machine
from longflow.cluster.steps import Step
from longflow.cluster.study import Study
from longflow.commands import Command
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return DatasetPaths(NAME).study


def run_here(steps, files, gpus=(), **further):
    return local.run_here(Study(DatasetPaths(NAME), files, steps, files.folder / "no plans"), gpus, **further)


class Played:
    """Commands that run a line of Python each; what they do is written down."""

    def __init__(self, monkeypatch, tmp_path):
        self.folder = tmp_path
        monkeypatch.setattr(local, "start_command", self.start)

    def start(self, command, folders, log=None):
        import subprocess

        said = self.folder / "said"
        code = f"import os, sys, time\nprint({command.name!r}, file=open({str(said)!r}, 'a'))\n{command.arguments[0]}"
        return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **folders}, stdout=log, stderr=log)

    @property
    def said(self):
        return (self.folder / "said").read_text().split()


@pytest.fixture
def played(monkeypatch, tmp_path):
    return Played(monkeypatch, tmp_path)


def step_of(name, *codes, depends_on=(), kind="train"):
    commands = tuple(Command(f"{name}{number or ''}", (code,)) for number, code in enumerate(codes or ("pass",)))
    return Step(name, kind, commands, depends_on, lambda: False)


def test_steps_run_in_their_order_and_are_shown(study, played):
    shown = []
    steps = [
        step_of("a", "pass", "pass", kind="prepare"),
        step_of("b", depends_on=("a",)),
        step_of("c", depends_on=("b",)),
    ]
    report = run_here(steps, study, show=lambda step, command, number, of: shown.append((command.name, number, of)))
    assert played.said == ["a", "a1", "b", "c"] and [step.name for step in report.done] == ["a", "b", "c"]
    assert shown == [("a", 1, 3), ("a1", 1, 3), ("b", 2, 3), ("c", 3, 3)]


def test_a_failure_stops_only_what_depends_on_it(study, played):
    steps = [
        step_of("a", "sys.exit(1)", "pass"),
        step_of("b"),
        step_of("c", depends_on=("a", "b")),
        step_of("d", depends_on=("c",)),
    ]
    report = run_here(steps, study)
    assert played.said == ["a", "b"]
    assert report.failed == {"a": "exit code 1, its message is above"}
    assert [step.name for step in report.skipped] == ["c", "d"]


def test_a_stopped_command_stops_the_study(study, played):
    with pytest.raises(KeyboardInterrupt):
        run_here([step_of("a", "sys.exit(130)"), step_of("b")], study)
    assert played.said == ["a"]


def test_a_stopped_training_stops_those_on_the_other_gpus(study, played):
    """Else they would be waited for until their end."""
    started = f"open({str(played.folder / 'started')!r}, 'w').close(); time.sleep(100)"
    waits = f"\nwhile not os.path.exists({str(played.folder / 'started')!r}): time.sleep(0.01)\nsys.exit(130)"
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_here([step_of("a", waits), step_of("b", started)], study, ["0", "1"])
    assert time.monotonic() - begun < 90


def test_what_is_done_is_not_run(study, played):
    done = Step("a", "train", (Command("a", ("pass",)),), (), lambda: True)
    assert [step.name for step in run_here([done, step_of("b")], study).done] == ["b"]
    assert played.said == ["b"]


def test_trainings_share_the_gpus_of_the_machine(study, played, tmp_path):
    """Two trainings meet: each waits until the other one has begun. Their output goes to files."""
    meet = (
        "open(os.environ['CUDA_VISIBLE_DEVICES'], 'w').close()\nend = time.monotonic() + 20\n"
        "while not (os.path.exists('gpu0') and os.path.exists('gpu1')):\n"
        "    assert time.monotonic() < end; time.sleep(0.01)\nprint('met')"
    )
    steps = [step_of("a", f"os.chdir({str(tmp_path)!r})\n{meet}"), step_of("b", f"os.chdir({str(tmp_path)!r})\n{meet}")]
    report = run_here([*steps, step_of("c", kind="find_best", depends_on=("a", "b"))], study, ["gpu0", "gpu1"])
    assert [step.name for step in report.done][-1] == "c" and not report.failed
    assert study.log("here", 1).read_text() == "met\n" == study.log("here", 2).read_text()


def test_steps_of_the_processor_run_alone(study, played, tmp_path):
    alone = "assert not os.path.exists('busy'); open('busy', 'w').close(); time.sleep(0.3); os.remove('busy')"
    steps = [step_of(name, f"os.chdir({str(tmp_path)!r})\n{alone}", kind="preprocess") for name in ("a", "b")]
    assert not run_here(steps, study, ["0", "1"]).failed


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [("cpu", "0,1", []), (None, "0,1", ["0", "1"]), ("cuda", "3", ["3"]), ("cuda:1", "0,1", []), (None, "", [])],
)
def test_gpus_are_those_that_are_visible(monkeypatch, device, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of_this_machine(device) == expected


def test_gpus_are_listed_by_the_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (tmp_path / "nvidia-smi").write_text("#!/bin/bash\necho 'GPU 0: A'\necho 'GPU 1: A'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpus_of_this_machine(None) == ["0", "1"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/bash\nexit 9\n")
    assert gpus_of_this_machine(None) == []
