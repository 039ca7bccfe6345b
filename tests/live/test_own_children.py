"""A process that traces its own child: how that ended is for whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from tests.support.build import build
from tests.support.tracing import SMALL, counting
from tests.support.unprivileged import Account

from fentry.errors import TargetGone
from fentry.process.stub import Call
from fentry.session import Session, attach


def started() -> subprocess.Popen[bytes]:
    program = [build("hot.c"), "threads=2", "pause_us=500", "seconds=600"]
    child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # it says that it runs
    return child


def killed_in_a_stop(session: Session, child: int) -> None:
    with session.owned() as halt:
        os.kill(child, signal.SIGKILL)
        halt.remote.run([Call(39)])  # getpid


def killed_between_stops(session: Session, child: int) -> None:
    os.kill(child, signal.SIGKILL)
    for _ in range(100):
        session.enabled = not session.enabled


@pytest.mark.parametrize("kill", [killed_in_a_stop, killed_between_stops])
def test_the_end_of_a_child_is_there_for_who_started_it(
    account: Account, kill: Callable[[Session, int], None]
) -> None:
    def controller() -> list[int]:
        codes = []
        for _ in range(5):
            with started() as child:
                with pytest.raises(TargetGone), attach(child.pid, SMALL) as session:
                    session.register(counting("libc!mem*"))
                    kill(session, child.pid)
                codes.append(child.wait(20))
        return codes

    build("hot.c")  # by who may
    assert account.run(controller) == [-signal.SIGKILL] * 5
