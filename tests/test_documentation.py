"""The documentation: links, pictures, and the flags of every command that a page shows."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from longflow.paths import VARIABLES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "plans" / "README.md", *sorted((ROOT / "documentation").rglob("*.md"))]

#: commands whose module has another name
MODULES = {"longflow_import": "import_dataset"}
COMMAND = re.compile(r"(?<![\w./])longflow_[a-z_]+(?![\w./*=])")
#: words that begin like commands
NO_COMMANDS = {*VARIABLES, "longflow_demo_forecast", "longflow_demo_segment", "longflow_demo_translate"}


@pytest.fixture(params=PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def page(request) -> Path:
    return request.param


def shown_commands(text: str) -> list[tuple[str, str]]:
    """List the commands in code blocks and code spans with what follows them, without comments."""
    joined = text.replace("\\\n", " ")
    blocks = [re.sub(r"\s#.*", "", line) for line in joined.splitlines() if line.startswith("    ")]
    shown = []
    for code in (*blocks, *re.findall(r"`([^`\n]+)`", joined)):
        found = [*COMMAND.finditer(code)]
        ends = [*(match.start() for match in found[1:]), len(code)]
        shown += [(match[0], code[match.end() : end]) for match, end in zip(found, ends, strict=False)]
    return shown


def flags_of(command: str) -> set[str]:
    module = import_module(f"longflow.cli.{MODULES.get(command, command.removeprefix('longflow_'))}")
    return set(module.parser()._option_string_actions)


def anchors_of(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_and_pictures_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link
    assert re.search(r"!\[[^\]]+\]\([^)]+\.png\)", text), "every page has a picture with a description"


def test_every_shown_flag_exists(page):
    for command, rest in shown_commands(page.read_text(encoding="utf-8")):
        if command in NO_COMMANDS:
            continue
        flags = flags_of(command)
        for flag in re.findall(r"(?<=\s)--?[A-Za-z][\w-]*", rest):
            assert flag in flags, f"{command} {flag}"


def test_commands_are_found_with_their_flags():
    text = "`longflow_train 101 2d 0 -m x`\n    longflow_results=a longflow_predict \\\n    -i longflow_demo/in  # -q"
    (predict, flags), train = shown_commands(text)
    assert (predict, flags.split()) == ("longflow_predict", ["-i", "longflow_demo/in"])
    assert train == ("longflow_train", " 101 2d 0 -m x")
