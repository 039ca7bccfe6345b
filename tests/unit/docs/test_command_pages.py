"""docs/commands: a page for each command, with its options and a session of it."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from fentry.cli.__main__ import COMMANDS, words

CHECKOUT = Path(__file__).resolve().parents[3]
PAGES = CHECKOUT / "docs" / "commands"


def options_of(word: str) -> list[list[str]]:
    """The spellings of each option of a command: -p and --pid."""
    command = words.get_command(click.Context(words), word)
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    return [option.opts for option in options if not option.hidden]


def names(page: str, option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", page) is not None


@pytest.mark.parametrize("word", COMMANDS)
def test_a_page_names_every_option(word: str) -> None:
    page = (PAGES / f"{word}.md").read_text()
    assert [
        spellings
        for spellings in options_of(word)
        if not any(names(page, spelling) for spelling in spellings)
    ] == []


@pytest.mark.parametrize("word", COMMANDS)
def test_a_page_shows_a_session(word: str) -> None:
    page = (PAGES / f"{word}.md").read_text()
    assert re.search(rf"^    \$ (.*[ (])?fentry {word}\b", page, re.MULTILINE) is not None


def test_no_page_is_of_a_command_that_is_gone() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(COMMANDS)


def test_an_option_is_not_named_by_a_longer_one() -> None:
    assert names("`--pid PID`, `--tid`", "--pid") and not names("`--not-tid`", "--tid")
    assert not names("`--pidfile`", "--pid")
