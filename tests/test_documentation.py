"""Pages name commands, flags, files and pictures that exist."""

import re
import shlex
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from longflow.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "documentation").rglob("*.md")), *sorted((ROOT / "plans").glob("*.md"))]
MODULES = {name: module for name, module, _ in COMMANDS}
#: fenced or indented code blocks, and code within a line
BLOCK = re.compile(r"^```(?s:.*?)^```|(?<=\n\n)(?:^(?: {4}|\t).*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href|srcset)=\"([^\"]+)\"")


@cache
def parser_of(command: str) -> ArgumentParser:
    return import_module(f"longflow.cli.{MODULES[command]}").parser()


def flags_of(command: str) -> set[str]:
    """Return every flag of a command and of its subcommands."""
    parsers, found = [parser_of(command)], set()
    while parsers:
        for action in parsers.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action, BooleanOptionalAction):
                found.update(flag.replace("--", "--no-", 1) for flag in action.option_strings)
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
    return found


def typed_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Find the commands of longflow in code; yield name and flags of each."""
    code = [match.group() for match in BLOCK.finditer(text)]
    code += INLINE.findall(BLOCK.sub("", text))
    for block in code:
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            line = line.split(" #")[0]  # a comment of the shell
            for part in re.split(r"\||&&|;|\$\(", line):
                words = part.replace("`", " ").split()
                starts = [index for index, word in enumerate(words) if re.fullmatch(r"longflow(_\w+)?", word)]
                if starts and (starts[0] == 0 or words[0] in ("$", ">", "time", "nohup") or "=" in words[0]):
                    flags = [re.split(r"[=,]", word)[0] for word in words[starts[0] + 1 :] if is_flag(word)]
                    yield words[starts[0]], flags


def is_flag(word: str) -> bool:
    """``-d`` and ``--seed``; a negative number is none."""
    return re.match(r"--?[A-Za-z]", word) is not None


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def problems_of_commands(text: str) -> list[str]:
    found = []
    for command, flags in typed_commands(text):
        if command not in MODULES:
            if command != "longflow_data" and not re.fullmatch(
                r"longflow_(raw|preprocessed|results|demo_\w+)", command
            ):
                found.append(f"no command {command}")
            continue
        found += [f"{command} has no flag {flag}" for flag in flags if flag not in flags_of(command)]
    return found


def problems_of_links(page: Path, text: str) -> list[str]:
    found = []
    text = BLOCK.sub("", text)
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:|//", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            found.append(f"no file {target}")
        elif anchor and file.suffix == ".md":
            headings = re.findall(r"^#+\s+(.*)$", BLOCK.sub("", file.read_text()), re.MULTILINE)
            if anchor not in {slug(heading) for heading in headings}:
                found.append(f"no heading {target}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_flags_exist(page):
    assert not problems_of_commands(page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page):
    assert not problems_of_links(page, page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "plans"], ids=lambda page: page.name)
def test_a_page_has_a_picture(page):
    assert re.search(r"!\[[^\]]+\]\([^)]+\.png\)", page.read_text())


#: words that our readers stumble over, and the field's own for each
AVOIDED = {
    r"wanted": "requested",
    r"beside": "next to, compared with",
    r"anew": "from scratch",
    r"to the bit": "bit-identical",
    r"fellow": "counterpart",
    r"lies? on each other": "aligned",
    r"left out": "excluded",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_the_words_of_the_field(page):
    text = page.read_text()
    assert not {word: better for word, better in AVOIDED.items() if re.search(rf"\b{word}\b", text)}


def test_the_commands_of_the_readme_are_found():
    found = list(typed_commands((ROOT / "README.md").read_text()))
    assert {"longflow_run", "longflow_predict", "longflow_evaluate"} <= {command for command, _ in found}
    assert any("-d" in flags for _, flags in found)


def test_every_command_is_documented():
    text = "\n".join(page.read_text() for page in PAGES)
    assert not [command for command in MODULES if not re.search(rf"\b{command}\b", text)]


def test_the_examples_of_every_help_are_understood():
    """The examples in ``--help`` are parsed with the command's own parser."""
    for command in MODULES:
        for line in parser_of(command).epilog.splitlines()[1:]:
            words = shlex.split(line, comments=True)
            if words and words[0] == command and "--help" not in words:
                parser_of(command).parse_args(words[1:])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```\nlongflow_train 101 3d_fullres 0 --epoch 3\n```", "longflow_train has no flag --epoch"),
        ("so type `longflow_trane 101`.", "no command longflow_trane"),
        ("\n\n    $ longflow_train 101 \\\n        3d_fullres 0 --nonsense\n", "longflow_train has no flag --nonsense"),
        ("```\nOMP_NUM_THREADS=1 longflow_predict -x in\n```", "longflow_predict has no flag -x"),
    ],
)
def test_the_check_of_commands_finds(text, problem):
    assert problems_of_commands(text) == [problem]


def test_the_check_of_commands_accepts_what_exists():
    text = "`longflow_predict -i in --no-mirror`, `longflow_train 101 3d_fullres 0 --set=x=1`, `longflow_raw`\n"
    assert problems_of_commands(text) == []


def test_the_check_of_links_finds(tmp_path):
    (tmp_path / "other.md").write_text("# A heading: with `code`\n")
    text = '[a](other.md#a-heading-with-code) [b](other.md#no) ![c](gone.png) [d](https://x.org) <img src="no.png">'
    assert problems_of_links(tmp_path / "page.md", text) == [
        "no heading other.md#no",
        "no file gone.png",
        "no file no.png",
    ]
