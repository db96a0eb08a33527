"""The demo runs the commands that it shows, and stops where one fails."""

import os
import signal
import subprocess
import sys
import time

import pytest

from longflow.demo.run import Command, run_command


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
