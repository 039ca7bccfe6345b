"""Other tools that trace a target, attached to it for as long as a test wants."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.machine import need_tool
from tests.support.process import Target
from tests.support.unprivileged import Account

TRACERS = {
    "gdb": ("gdb", "-nx", "-q", "-p", "PID", "-ex", "echo attached\\n"),
    "strace": ("strace", "-f", "-q", "-e", "trace=none", "-p", "PID"),
}


@contextmanager
def traced_by(name: str, target: Target, account: Account) -> Iterator[int]:
    """The pid of another tool that is attached to the target; it has left at the end."""
    command = [str(target.pid) if word == "PID" else word for word in TRACERS[name]]
    tracer = subprocess.Popen(
        [need_tool(command[0]), *command[1:]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        preexec_fn=account.become, cwd="/",
    )  # fmt: skip
    try:
        for tid in target.tids():
            target.await_condition(
                lambda tid=tid: tracer_of(target.pid, tid) == tracer.pid,  # type: ignore[misc]
                f"attached to by {name}",
            )
        assert tracer.stdin is not None and tracer.stdout is not None
        while name == "gdb" and (said := tracer.stdout.readline()) != b"attached\n":
            assert said, "gdb has ended"  # it still reads symbols and plants its own breakpoints
        yield tracer.pid
    finally:
        if name == "strace":
            tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=20)  # gdb leaves at the end of its input


def tracer_of(pid: int, tid: int) -> int:
    """TracerPid of a thread."""
    with open(f"/proc/{pid}/task/{tid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("TracerPid"))
