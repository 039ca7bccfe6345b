"""What can be typed next on the command line: the answer to a shell that completes it.

The shell gives the words before the cursor's, one a line, and what is typed of that one; the answer
is a line for each candidate, KIND, VALUE and MEANING with tabs between. KIND is `word`, or `file`
or `command` where the shell knows better. Commands and options are what the click objects say;
values of options that no click type knows are told here by the option's name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import click
from click.shell_completion import ShellComplete

from fentry.errors import TargetGone
from fentry.process.proc import (
    all_pids,
    command_of,
    has_command,
    list_tids,
    read_status,
    thread_name,
)

WORDS, TYPED = "_FENTRY_WORDS", "_FENTRY_TYPED"
_LONGEST = 72


class Candidate(NamedTuple):
    """Something that can be typed."""

    value: str
    meaning: str = ""
    kind: str = "word"


FILE = Candidate("", kind="file")
COMMAND = Candidate("", kind="command")


def answer(cli: click.Group) -> None:
    """Print the candidates for what the environment says."""
    words = os.environ[WORDS].split("\n")[1:]
    for one in candidates(cli, words, os.environ.get(TYPED, "")):
        click.echo(f"{one.kind}\t{one.value}\t{_shortened(one.meaning)}")


def candidates(cli: click.Group, words: list[str], typed: str) -> list[Candidate]:
    """What can follow `words` (without the program's name) and begins with `typed`."""
    if "--" in words:  # a command of its own
        return [COMMAND if words[-1] == "--" else FILE]
    # bash makes words of `--pid`, `=` and `12`
    words, typed = [word for word in words if word != "="], "" if typed == "=" else typed
    last = words[-1] if words else ""
    if last in _VALUES:  # before the command is imported
        return list(_VALUES[last](words, typed))
    asked = ShellComplete(cli, {}, "fentry", WORDS)
    found = [
        FILE if item.type != "plain" else Candidate(item.value, item.help or "")
        for item in asked.get_completions(words, typed)
    ]
    if found or not words or typed.startswith("-"):
        return found
    option = _option_of(cli, words)
    return [FILE] if option is None or "FILE" in (option.metavar or "") else []


def _option_of(cli: click.Group, words: list[str]) -> click.Option | None:
    # the option whose value comes next, if one does
    command = cli.get_command(click.Context(cli), words[0])
    for param in command.params if command is not None else ():
        if isinstance(param, click.Option) and not param.is_flag and words[-1] in param.opts:
            return param
    return None


def _processes(words: list[str], typed: str) -> Iterator[Candidate]:
    # those that may be traced, the latest first; by number or name
    user = os.getuid()
    for pid in sorted(all_pids(), reverse=True):
        try:
            status = read_status(pid)
            if user not in (0, status.uids[0]) or pid == os.getpid() or not has_command(pid):
                continue
        except (TargetGone, PermissionError):
            continue
        if str(pid).startswith(typed) or status.name.startswith(typed):
            yield Candidate(str(pid), command_of(pid))


def _threads(words: list[str], typed: str) -> Iterator[Candidate]:
    for option, pid in pairwise(words):
        if option in ("-p", "--pid") and pid.isdecimal():
            for tid in list_tids(int(pid)):
                if str(tid).startswith(typed):
                    yield Candidate(str(tid), thread_name(int(pid), tid))


def _files(words: list[str], typed: str) -> Iterator[Candidate]:
    yield FILE


_VALUES: dict[str, Callable[[list[str], str], Iterator[Candidate]]] = {
    "-p": _processes,
    "--pid": _processes,
    "--tid": _threads,
    "--not-tid": _threads,
    "-i": _files,
    "--input": _files,
    "-o": _files,
    "--output": _files,
}


def _shortened(meaning: str) -> str:
    line = " ".join(meaning.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
