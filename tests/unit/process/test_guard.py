"""The guard beside a command: what it must never do is stand in the way."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from fentry.process.guard import Guard


def in_child(run: Callable[[], None]) -> int:
    """The exit code of a child that does `run`, with nobody else's guard."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def the_guard_of(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        (only,) = file.read().split()
    return int(only)


def test_stops_go_on_when_somebody_has_killed_it() -> None:
    def run() -> None:
        guard = Guard()
        guard.start()
        os.kill(child := the_guard_of(os.getpid()), signal.SIGKILL)
        os.waitpid(child, 0)
        for _ in range(3):
            with guard.holding():
                pass

    assert in_child(run) == 0


def test_stops_go_on_when_somebody_has_stopped_it() -> None:
    def run() -> None:
        guard = Guard()
        guard.start()
        os.kill(child := the_guard_of(os.getpid()), signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        for _ in range(70_000):  # more than a pipe holds
            with guard.holding():
                pass
        os.kill(child, signal.SIGKILL)

    assert in_child(run) == 0


def test_it_ends_with_its_process() -> None:
    reader, writer = os.pipe()

    def run() -> None:
        Guard().start()
        os.write(writer, b"%d" % the_guard_of(os.getpid()))

    assert in_child(run) == 0
    guard = int(os.read(reader, 16))
    try:
        pidfd = os.pidfd_open(guard)
    except ProcessLookupError:
        return  # it has ended already
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


def test_a_child_of_its_process_has_none() -> None:
    def run() -> None:
        guard = Guard()
        guard.start()

        def in_grandchild() -> None:
            with guard.holding():
                assert guard._depth == 0

        assert in_child(in_grandchild) == 0

    assert in_child(run) == 0
