import re
from pathlib import Path

import pytest

from longflow import __version__
from longflow.cli.overview import COMMANDS, main

SETUP = Path(__file__).parents[2] / "setup.py"


def test_every_command_that_is_installed_is_shown(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    installed = re.findall(r'^    "(longflow_\w+)": "', SETUP.read_text(), flags=re.MULTILINE)
    assert len(installed) > 10
    assert {name.strip() for name, _ in COMMANDS} == set(installed)
    positions = [shown.index(f"{name}  ") for name, _ in COMMANDS]
    assert positions == sorted(positions)


def test_it_fits_a_narrow_screen():
    assert all(len(name) < 32 and len(summary) <= 46 for name, summary in COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0 and capsys.readouterr().out.strip() == f"longflow {__version__}"
