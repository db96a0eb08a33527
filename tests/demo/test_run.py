"""The demo runs the commands that it shows, and stops where one fails."""

import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import numpy as np
import pytest

from longflow.data.dataset import image_path, read_description, series_of_folder
from longflow.data.images import read_scan
from longflow.demo.cohort import DATASET_NAME
from longflow.demo.run import Command, attainable_nrmse, demo_commands, run_command
from longflow.evaluation.metrics import nrmse


def test_commands_are_shown_as_a_user_types_them(tmp_path):
    typed = [command.typed for command in demo_commands(tmp_path, "5s")]
    assert typed == [
        "longflow_plan_and_preprocess -d 900 --preset tiny",
        "longflow_train 900 3d_fullres 0 --max_time 5s",
        "longflow_find_best -d 900",
        f"longflow_predict -i {tmp_path}/raw/Dataset900_Phantom/imagesTs -o {tmp_path}/forecasts",
        f"longflow_evaluate -d 900 -i {tmp_path}/forecasts",
    ]


def test_commands_are_understood(tmp_path):
    for command in demo_commands(tmp_path, "5s"):
        import_module(f"longflow.cli.{command.name}").parser().parse_args(command.arguments)


def test_exit_code_of_a_command_comes_back(tmp_path):
    assert run_command(Command("demo", ("--help",)), tmp_path) == 0
    assert run_command(Command("demo", ("--no_such_flag",)), tmp_path) == 1


def test_demo_refuses_a_folder_that_holds_something_else(phantom_dataset, run_command):
    result = run_command("longflow_demo", "--folder", phantom_dataset)
    assert result.returncode == 1
    assert "holds another dataset" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM on Windows")
def test_a_demo_that_is_told_to_end_takes_its_command_along(tmp_path):
    # the "command" is python itself, asleep; it writes a file when it is told to end
    code = (
        "import signal, sys; from pathlib import Path; import longflow.demo.run as run\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "run.sys.executable = sys.argv[1]\n"
        "run.run_command(run.Command('train', ()), Path(sys.argv[2]))\n"
    )
    child = tmp_path / "python"
    child.write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/saved; exit 0' TERM\ntouch {tmp_path}/started\n"
        "while true; do sleep 0.05; done\n"
    )
    child.chmod(0o755)
    demo = subprocess.Popen([sys.executable, "-c", code, str(child), str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(demo.pid, signal.SIGTERM)
    assert demo.wait(timeout=60) == 143
    assert (tmp_path / "saved").exists()


def test_the_law_is_a_better_forecast_than_the_last_scan(phantom_dataset):
    raw = phantom_dataset / "raw" / DATASET_NAME
    description = read_description(raw / "dataset.json")
    errors = []
    for series in series_of_folder(raw / "imagesTs", description):
        last = read_scan(series.with_images().scans[-1].images).array
        for scan in (scan for scan in series.scans if not scan.exists):
            target = read_scan((image_path(raw / "targetsTs", scan.case, 0, description),)).array
            errors.append(nrmse(last, target))
    assert len(errors) == 4
    assert attainable_nrmse(raw) < 0.6 * np.mean(errors)
