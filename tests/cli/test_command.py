import errno
import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table

import longflow
from longflow.cli import command
from longflow.errors import DataError


@pytest.fixture
def parser():
    return command.Parser("longflow_test", "A test.", "longflow_test -v\nlongflow_test --debug")


def raising(error):
    def work(options):
        raise error

    return work


def test_a_text_is_printed_as_it_is(capsys):
    command.say("[bold]p[0] 12\x1b[31m")
    assert capsys.readouterr().out == "[bold]p[0] 12\\x1b[31m\n"


def test_exit_codes(parser, capsys):
    assert command.run(parser, lambda options: None, []) == 0
    assert command.run(parser, raising(DataError("a.nii.gz [bad] is truncated")), []) == 1
    assert "Error: a.nii.gz [bad] is truncated" in capsys.readouterr().err
    assert command.run(parser, raising(KeyboardInterrupt()), []) == 130
    assert command.run(parser, raising(RuntimeError("oops")), []) == 2
    message = capsys.readouterr().err
    assert "fault of longflow: RuntimeError: oops" in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[red]x[/red]", "[red]x[/red]"),
        ("[/]", "[/]"),
        ("\\[link=http://x]y", "\\[link=http://x]y"),
        ("a\\", "a\\"),
        ("p1\x1b]8;;http://x\x1b\\", "p1\\x1b]8;;http://x\\x1b\\"),
        ("p1\x07\x9b2J\u202e", "p1\\x07\\x9b2J\\u202e"),
        ("p\ud800", "p\\ud800"),
        (":bug:", ":bug:"),
    ],
)
def test_names_are_shown_as_they_are(parser, capsys, name, shown):
    def work(options):
        logging.getLogger("longflow.test").warning("read %s!", name)
        table = Table("name")
        table.add_row(escape(name))
        command.error_console.print(table)
        raise DataError(f"{name}, a name")

    assert command.run(parser, work, []) == 1
    printed = capsys.readouterr().err
    assert f"read {shown}!" in printed and f"│ {shown}" in printed and f"Error: {shown}, a name" in printed
    assert "\x1b" not in printed and "\x9b" not in printed


def test_a_full_disk_is_the_users_affair(parser, capsys):
    assert command.run(parser, raising(OSError(errno.ENOSPC, "No space left on device", "/data/[x].png")), []) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "Error: No space left on device (/data/[x].png). Free some space" in message
    assert command.run(parser, raising(OSError(errno.EIO, "Input/output error")), []) == 2
    assert "fault of longflow: OSError" in capsys.readouterr().err


IN_WORKERS = """
import operator, sys
sys.path[:] = [folder for folder in sys.path if folder]  # as where a command is typed
from longflow.cli import command
from longflow.commands import Command, run_command
from longflow.parallel import for_each_subject
def work(options):
    assert dict(for_each_subject(operator.neg, {"a": 1, "b": 2}, 2)) == {"a": -1, "b": -2}
    assert run_command(Command("overview", ()), {}) == 0
if __name__ == "__main__":
    raise SystemExit(command.run(command.Parser("longflow_test", "", ""), work, []))
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always imports from the current folder")
def test_code_in_the_current_folder_is_not_run(tmp_path):
    """A folder of data may hold anything; workers and commands that a command starts import modules of these names."""
    for name in ("signal", "selectors", "struct", "shlex", "rich", "longflow"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(IN_WORKERS)
    environment = {**os.environ, "PYTHONPATH": str(Path(longflow.__file__).parents[1])}
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, check=True, timeout=100)
    assert not (tmp_path / "ran").exists()


def test_the_environment_is_afterwards_as_before(parser, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    assert command.run(parser, raising(DataError("bad")), []) == 1
    assert dict(os.environ) == before


def test_a_process_is_set_up_and_the_user_may_choose_the_instructions(monkeypatch):
    monkeypatch.setattr(os, "environ", {"ONEDNN_MAX_CPU_ISA": "AVX2"})
    command.set_up_process()
    assert os.environ == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    monkeypatch.setattr(os, "environ", {})
    command.set_up_process()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_BF16"


def test_what_is_imported_is_never_searched_for_garbage():
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), command.importing():
        assert not gc.isenabled()
        kept = [[]]
        raise ImportError
    assert gc.isenabled() and gc.get_freeze_count() > before
    assert not any(one is kept for one in gc.get_objects())
    gc.unfreeze()


@pytest.mark.parametrize("module", ["train", "compare", "predict", "translate_dataset", "find_best"])
def test_commands_that_compute_are_set_up_first(module, monkeypatch):
    """Libraries read the environment when they are loaded, so nothing comes before."""
    from importlib import import_module

    class SetUp(Exception):
        pass

    def set_up():
        raise SetUp

    monkeypatch.setattr(command, "set_up_process", set_up)
    with pytest.raises(SetUp):
        import_module(f"longflow.cli.{module}").work(None)


def test_debug_shows_the_traceback(parser, capsys):
    assert command.run(parser, raising(RuntimeError("oops")), ["--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_wrong_flag_ends_with_1(parser, capsys):
    with pytest.raises(SystemExit) as raised:
        command.run(parser, lambda options: None, ["--nonsense"])
    assert raised.value.code == 1
    assert "--nonsense" in capsys.readouterr().err


def test_help_has_the_example(parser, capsys):
    with pytest.raises(SystemExit) as raised:
        command.run(parser, lambda options: None, ["--help"])
    assert raised.value.code == 0
    assert "example:\n  longflow_test -v\n  longflow_test --debug" in capsys.readouterr().out


def test_caches_of_libraries_go_below_one_folder(tmp_path, monkeypatch):
    """The user's own variables stay; without LONGFLOW_CACHE nothing is set."""
    for name in command.CACHES:
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MPLCONFIGDIR", "/mine")
    monkeypatch.delenv("LONGFLOW_CACHE", raising=False)
    parser = command.Parser("longflow_x", "", "")
    seen = []

    def look(options):
        seen.append({name: os.environ.get(name) for name in command.CACHES})

    assert command.run(parser, look, []) == 0
    monkeypatch.setenv("LONGFLOW_CACHE", "~/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.run(parser, look, []) == 0
    without, found = seen
    assert without.pop("MPLCONFIGDIR") == found.pop("MPLCONFIGDIR") == "/mine"
    assert set(without.values()) == {None}
    assert found == {name: f"{tmp_path}/cache/{below}" for name, below in command.CACHES.items() if name in found}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_of_a_batch_system_stops_any_command(number, capsys):
    before = signal.getsignal(number)

    def work(options):
        os.kill(os.getpid(), number)
        raise AssertionError("not reached")

    try:
        assert command.run(command.Parser("longflow_x", "", ""), work, []) == command.EXIT_STOPPED
        os.kill(os.getpid(), number)  # once more, at the end
    finally:
        for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(one, before)
    assert "Run the same command again to continue" in capsys.readouterr().err
