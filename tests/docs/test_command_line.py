"""Commands: pages name every command, and only commands, options and make targets that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.docs.pages import PAGES, REFERENCE, ROOT, lines_of_code, name
from training.cli import app

UsageError: Any = typer.BadParameter.__bases__[0]  # typer has a copy of click, which it does not export
DUET: Any = typer.main.get_command(app)
DUET_LINE = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:\S+/)?duet( .*)?$")
MAKE_LINE = re.compile(r"^make( .*)?$")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
CHECKED = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it names what there was


def words(line: str) -> list[str]:
    """The words of a command line up to a comment, a pipe or a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>&;")
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if word[0] in "|>&;":
            break
        found.append(word)
    return found


def names() -> list[str]:
    """Every command, `duet models list` for a command of a group."""
    found = []
    for first, command in DUET.commands.items():
        inner = getattr(command, "commands", None)
        found += [f"duet {first} {second}" for second in inner] if inner else [f"duet {first}"]
    return found


def wrong(line: str) -> str | None:
    """What is wrong with a line that begins with `duet`."""
    arguments = words(line)
    while arguments and not arguments[0].endswith("duet"):
        arguments.pop(0)
    command, rest = DUET, arguments[1:]
    while rest and not rest[0].startswith("-") and hasattr(command, "commands"):
        first = rest.pop(0)
        if first.isupper():  # stands for any command
            return None
        if first not in command.commands:
            return f"{line}: there is no command {first}"
        command = command.commands[first]
    try:
        context = type(command).context_class(command, info_name="duet")
        command.make_parser(context).parse_args(rest)
    except UsageError as error:
        return f"{line}: {error.format_message()}"
    return None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("duet models list", None),
        ("DUET_REDIS_URL=redis://host duet cache stats --json | head", None),
        (".venv/bin/duet train --dataset folder:photos # comment", None),
        ("duet paint", "no command paint"),
        ("duet models sell", "no command sell"),
        ("duet train --speed 3", "--speed"),
        ("duet serve --port", "--port"),
    ],
)
def test_a_wrong_line_is_found(line: str, message: str | None) -> None:
    found = wrong(line)
    assert found is None if message is None else found is not None and message in found


@pytest.mark.parametrize("page", CHECKED, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    lines = [line for line in lines_of_code(page.read_text()) if DUET_LINE.match(line)]
    assert [problem for problem in map(wrong, lines) if problem] == []


@pytest.mark.parametrize("page", CHECKED, ids=name)
def test_make_targets_exist(page: Path) -> None:
    lines = [words(line)[1:] for line in lines_of_code(page.read_text()) if MAKE_LINE.match(line)]
    targets = {word for line in lines for word in line if re.fullmatch(r"[a-z-]+", word)}
    assert targets <= TARGETS


def test_every_command_is_named() -> None:
    page = (REFERENCE / "command-line.md").read_text()
    assert [command for command in names() if command not in page] == []
