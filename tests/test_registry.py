"""Things are found by name: longflow's own and those of installed packages."""

from pathlib import Path

import pytest

from longflow.errors import ConfigurationError, NotFoundError
from longflow.registry import Registry, modules_of

GROUP = "longflow.test_things"


def registry(**further) -> Registry:
    return Registry("thing", GROUP, lambda: {"pi": "math:pi", "lost": "no.such.module:x"}, **further)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package that announces things; return a function that takes name and target of each."""

    def install(**things: str) -> None:
        information = tmp_path / "toy_things-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-things\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in things.items()]
        (information / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_own_things_are_imported_when_used():
    found = registry()
    assert found.names() == ["lost", "pi"]  # a name does not import its module
    assert found.get("pi") == pytest.approx(3.14159, abs=1e-5)


def test_an_installed_package_adds_things_but_replaces_none(installed):
    installed(e="math:e", pi="math:tau")
    found = registry()
    assert found.names() == ["e", "lost", "pi"]
    assert found.get("e") == pytest.approx(2.71828, abs=1e-5) and found.get("pi") < 4


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(NotFoundError, match=r"no thing 'pie'\. Did you mean 'pi'\?.*Look here"):
        registry().get("pie", hint="Look here.")


@pytest.mark.parametrize(("target", "message"), [("no.module:x", "cannot be loaded"), ("math:sin", "is not a number")])
def test_a_broken_package_is_named(installed, target, message):
    installed(broken=target)
    with pytest.raises(ConfigurationError, match=f"'broken'.*{message}"):
        registry(fits=lambda found: isinstance(found, float), expected="a number").get("broken")


def test_modules_of_a_folder_are_listed_without_import(tmp_path):
    for name in ("one.py", "_private.py", "notes.txt"):
        Path(tmp_path / name).write_text("raise RuntimeError")
    assert modules_of(tmp_path, "package.things", "THING") == {"one": "package.things.one:THING"}
