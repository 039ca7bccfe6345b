"""stat while it counts: tables of intervals, and the screen in a terminal of any size."""

from __future__ import annotations

import json
import os
import re
import signal
import termios
from collections.abc import Callable, Iterator

import pytest
from tests.live.test_hard_threads import untrue_text
from tests.support.build import build
from tests.support.cli import fentry
from tests.support.process import Target, start
from tests.support.running import Running, running
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

ENTER, LEAVE, HOME = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[H"
TOP = ("stat", "--top", "--interval", "50ms", "-F", "f_*", "-p")


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account) as held:
        yield held


def is_restored(target: Target, before: dict[str, str]) -> bool:
    target.hold()
    same = diff(before, snapshot(target.pid)) == []
    target.go()
    return same


def frames(text: bytes) -> list[list[str]]:
    """What was on the screen, one after the other."""
    clean = re.sub(rb"\x1b\[[KJ]", b"", text).replace(b"\r\r\n", b"\n")  # the terminal adds one CR
    return [part.decode(errors="replace").split("\n") for part in clean.split(HOME)[2:]]


def await_frames(command: Running, more: int) -> list[list[str]]:
    """Whole frames that it shows from now on."""
    begun = len(frames(command.read))
    command.await_text(lambda text: len(frames(text)) > begun + more, "frames")
    return frames(command.read)[begun:-1]


@pytest.mark.parametrize("form", ["text", "json"])
def test_intervals_add_up_to_every_call(account: Account, form: str) -> None:
    words = ("stat", "-F", "f_busy", "--interval", "20ms", *(["--json"] * (form == "json")))
    with start(build("overflow.c"), "threads=2", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with running(account, *words, "-p", target.pid) as command:
            target.await_condition(lambda: bool(untrue_text(target.pid)), "counted")
            target.go()
            target.await_calls("f_busy", 100_000)
            command.await_text(lambda text: text.count(b"f_busy") > 2, "intervals")
            made = target.hold()["f_busy"]
            command.kill(signal.SIGINT)
            printed = command.rest().decode()
            assert command.wait() == 0
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    if form == "json":
        intervals = [json.loads(line) for line in printed.splitlines()]
        assert sum(one["calls"] for one in intervals) == made
        assert all(one["seconds"] > 0 for one in intervals)
        assert {row["function"] for one in intervals for row in one["functions"]} == {"f_busy"}
    else:
        heads = re.findall(r"^# \d+\.\d{3} s, (\d+) calls, \d+ calls/s$", printed, re.MULTILINE)
        rows = re.findall(r"^ +(\d+) +\d+  100\.00%  f_busy +overflow-", printed, re.MULTILINE)
        assert sum(map(int, heads)) == sum(map(int, rows)) == made
    assert command.err.startswith(f"{made} calls, 0 dropped; 1 functions counted, 0 refused; ")


def test_intervals_end_quietly_with_their_reader(account: Account, target: Target) -> None:
    before = snapshot(target.pid)
    words = ("stat", "-F", "f_*", "--interval", "20ms", "-p", target.pid)
    with running(account, *words) as command:
        command.await_text(lambda text: b"f_plain" in text, "an interval")
        command.close_reader()
        assert command.wait() == 141
    assert command.err == ""
    assert is_restored(target, before)
    assert target.stop().is_well


def test_without_a_terminal_the_screen_is_intervals(account: Account, target: Target) -> None:
    done = fentry(account, *TOP, target.pid, "-d", "300ms")
    assert done.code == 0, done.err
    assert done.out.startswith("# 0.0") and "CALLS/S" in done.out and "f_plain" in done.out
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize("end", ["q", "Ctrl-C", "target"])
def test_the_screen_is_given_back_however_it_ends(
    account: Account, target: Target, end: str
) -> None:
    before = snapshot(target.pid)
    with running(account, *TOP, target.pid, size=(24, 100)) as command:
        modes = command.modes()
        frame = await_frames(command, 3)[-1]
        assert len(frame) == 24
        assert frame[0].startswith("fentry top  0:00:0")
        assert f"  21 functions counted, 1 refused  {target.pid} " in frame[0]
        assert frame[2].split() == ["CALLS/S", "SHARE", "TOTAL", "HISTORY", "FUNCTION", "MODULE"]
        assert all(" f_" in line for line in frame[3:23])
        local = command.modes()[3]
        assert isinstance(local, int) and not local & (termios.ECHO | termios.ICANON)
        if end == "target":
            assert target.stop().is_well
        else:
            command.press({"q": "xq", "Ctrl-C": "\x03"}[end])
        text = command.rest()
        assert command.wait() == 0
        assert command.modes() == modes
    assert text.count(ENTER) == text.count(LEAVE) == 1
    counts, _, last = text.partition(LEAVE)[2].decode().strip().rpartition("\r\n")
    assert " SHARE  FUNCTION" in counts and " f_plain " in counts
    why = {"q": "quit", "Ctrl-C": "interrupted", "target": "the process ended"}
    assert f"; {why[end]}" in last
    if end != "target":
        assert is_restored(target, before)
        assert target.stop().is_well


def test_the_screen_follows_the_size_of_its_terminal_and_keys(
    account: Account, target: Target
) -> None:
    with running(account, *TOP, target.pid, size=(30, 120)) as command:

        def await_last(holds: Callable[[list[str]], bool], what: str) -> None:
            command.await_text(lambda text: any(map(holds, frames(text)[-2:-1])), what)

        await_last(lambda frame: len(frame) == 30, "a frame")
        for key, by in (("t", "TOTAL"), ("\x1b[A\x1bOPr", "CALLS/S")):
            command.press(key)
            await_last(lambda frame, by=by: frame[-1].endswith(f"now by {by}"), by)
        for rows, columns in ((8, 40), (2, 10), (1, 1), (50, 200)):
            command.resize(rows, columns)
            await_last(
                lambda frame, rows=rows, columns=columns: (
                    len(frame) == rows and max(map(len, frame)) <= columns
                ),
                "the new size",
            )
        command.press("q")
        command.rest()
        assert command.wait() == 0
    assert target.stop().is_well


def test_the_terminal_is_given_back_while_it_is_stopped(account: Account, target: Target) -> None:
    with running(account, *TOP, target.pid, size=(24, 100)) as command:
        modes = command.modes()
        await_frames(command, 1)
        command.kill(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(command.pid, os.WUNTRACED)[1])
        assert command.modes() == modes
        command.await_text(lambda text: text.count(LEAVE) == 1, "left")
        target.await_calls("f_plain", 10)
        command.kill(signal.SIGCONT)
        command.await_text(lambda text: text.count(ENTER) == 2, "entered")
        assert len(await_frames(command, 1)[-1]) == 24
        command.press("q")
        assert command.rest().count(LEAVE) == 2
        assert command.wait() == 0
        assert command.modes() == modes
    assert target.stop().is_well
