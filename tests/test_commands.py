"""Commands are run as shown, and end with the process that runs them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from longflow.commands import Command, ended_together, run_command, start_command, why_ended

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM on Windows")

#: the "command" is a shell script in place of python: it writes a file on SIGTERM
RUN = (
    "import signal, sys; from pathlib import Path; import longflow.commands as commands\n"
    "start = commands.subprocess.Popen\n"
    "def started(*arguments, **further):\n"
    "    process = start(*arguments, **further)\n"
    "    Path(sys.argv[2]).touch()\n"
    "    return process\n"
    "commands.subprocess.Popen = started\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    "commands.sys.executable = sys.argv[1]\n"
    "commands.run_command(commands.Command('train', ()), {})\n"
)
#: a command as `run_command` launches it, with other work
ENDS = (
    "import pathlib, signal, subprocess, sys, time\n"
    "child = '''\n"
    "import pathlib, signal, sys, time\n"
    "from longflow.commands import end_with_parent\n"
    "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[2]).touch(), sys.exit(143)))\n"
    "end_with_parent(int(sys.argv[3]), every=0.01)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "time.sleep(60)\n"
    "'''\n"
    "import os\n"
    "subprocess.run([sys.executable, '-c', child, *sys.argv[1:], str(os.getpid())])\n"
)


def wait_for(path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def test_exit_code_of_a_command_comes_back():
    assert run_command(Command("demo", ("--help",)), {}) == 0
    assert run_command(Command("demo", ("--no_such_flag",)), {}) == 1


def test_a_command_is_shown_as_typed():
    assert Command("predict", ("-i", "my scans")).typed == "longflow_predict -i 'my scans'"


def test_a_command_uses_the_given_folders_only(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("longflow_results", str(tmp_path / "of the user"))
    code = run_command(Command("verify", ("-d", "101")), {"LONGFLOW_HOME": str(tmp_path / "home")})
    message = capfd.readouterr().err
    assert code == 1 and str(tmp_path / "home" / "raw") in message.replace("\n", "")


def test_the_output_of_a_command_goes_to_a_log(tmp_path):
    with open(tmp_path / "log", "w") as log:
        assert start_command(Command("demo", ("--no_such_flag",)), {}, log).wait() == 1
    assert "no_such_flag" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("stop", "told"), [(SystemExit(143), True), (KeyboardInterrupt(), False)])
def test_commands_end_together(stop, told):
    """Ctrl-C reaches them by the terminal; any other end is passed on. Both times they are waited for."""

    said = []

    class Process:
        def terminate(self):
            said.append("terminate")

        def wait(self):
            said.append("wait")

    with pytest.raises(type(stop)), ended_together([Process()]):
        raise stop
    assert said == (["terminate"] if told else []) + ["wait"]


def test_the_end_of_a_command_is_explained():
    assert why_ended(-9) == "ended by the system (signal 9), most often because memory ran out"


@UNIX
def test_sigterm_reaches_the_command(tmp_path):
    child = tmp_path / "python"
    child.write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/saved; exit 0' TERM\ntouch {tmp_path}/started\n"
        "while true; do sleep 0.05; done\n"
    )
    child.chmod(0o755)
    parent = subprocess.Popen([sys.executable, "-c", RUN, str(child), str(tmp_path / "launched")])
    wait_for(tmp_path / "started"), wait_for(tmp_path / "launched")
    os.kill(parent.pid, signal.SIGTERM)
    assert parent.wait(timeout=60) == 143
    assert (tmp_path / "saved").exists()


@UNIX
def test_a_command_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", ENDS, str(tmp_path / "started"), str(tmp_path / "saved")])
    wait_for(tmp_path / "started")
    parent.kill()
    parent.wait(timeout=60)
    wait_for(tmp_path / "saved")
