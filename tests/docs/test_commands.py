"""Commands that the papers show exist: those in blocks are parsed as the program would parse them, and not run."""

import re
import shlex
from typing import Any

import pytest
import typer.main

from service.cli.app import app
from tests.docs.pages import PAGES, ROOT, Page

PROGRAM: Any = typer.main.get_command(app)
SHOWN = re.compile(r"(?:^|gateway )mitosis ([^#|>;]*)")
OPTION = re.compile(r"--[a-z][a-z-]+")
MAKE = re.compile(r"\bmake ([a-z-]+)\b")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def found_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words that are left."""
    command = PROGRAM
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options(command: Any) -> set[str]:
    return {name for each in command.params for name in each.opts} | {"--help"}


def all_options(command: Any) -> set[str]:
    return options(command).union(*map(all_options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_are_complete(page: Page) -> None:
    for line in page.command_lines():
        for shown in SHOWN.findall(line):
            command, arguments = found_command(shlex.split(shown))
            command.make_context(command.name, arguments)  # raises for what is unknown, wrong or missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_in_the_prose_exist(page: Page) -> None:
    every = all_options(PROGRAM)
    for words in page.words_of_code():
        if words.startswith("mitosis "):
            command, arguments = found_command(shlex.split(words)[1:])
            assert command is not PROGRAM, words
            assert {each for each in arguments if OPTION.fullmatch(each)} <= options(command), words
            assert not hasattr(command, "commands") or not arguments, words
        elif words.startswith("--"):
            assert words.split()[0] in every, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_exist(page: Page) -> None:
    shown = [*page.command_lines(), *(words for words in page.words_of_code() if words.startswith("make "))]
    assert {name for line in shown for name in MAKE.findall(line)} <= TARGETS
