import ast
from importlib import import_module
from pathlib import Path

import pytest

from longflow import __version__
from longflow.cli.overview import main, rows
from longflow.commands import COMMANDS, PARTS_OF_PLANNING

CLI = Path(__file__).parents[2] / "longflow" / "cli"


def test_every_command_is_shown_in_the_order_of_use(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert {name.strip() for name, _ in rows()} == {name for name, *_ in COMMANDS} - {"longflow"}
    positions = [shown.index(f"{name}  ") for name, _ in rows()]
    assert positions == sorted(positions)
    assert [name for name, _ in rows() if name.startswith(" ")] == [f"  {name}" for name in PARTS_OF_PLANNING]


def test_every_command_module_is_in_the_table_and_answers_by_its_name():
    """``setup.py`` installs the table; its modules have an entry point and a parser."""
    modules = {path.stem for path in CLI.glob("*.py") if "def main(" in path.read_text()}
    assert {module for _, module, _ in COMMANDS} == modules
    for name, module, _ in COMMANDS:
        assert import_module(f"longflow.cli.{module}").parser().prog == name


def test_the_table_is_a_literal_that_setup_can_read():
    tree = ast.parse((CLI.parent / "commands.py").read_text())
    (value,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "COMMANDS")
    assert ast.literal_eval(value) == COMMANDS


def test_it_fits_a_narrow_screen():
    assert all(len(name) < 32 and len(summary) <= 46 for name, summary in rows())


def test_version(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0 and capsys.readouterr().out.strip() == f"longflow {__version__}"
