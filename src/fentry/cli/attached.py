"""What record, live and stat share: a session on a process or a command, signals that end it, and
what is said at its beginning and end."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

import click

from fentry.cli.options import left_alone, unloaded, unnamed
from fentry.dispatch.ops import Ops
from fentry.errors import BadInput
from fentry.process.guard import guard
from fentry.process.proc import is_dead, list_tids
from fentry.process.start import end, start
from fentry.recording import Summary
from fentry.ring.layout import CLOCK_TSC
from fentry.session import Options, Session, adopt, attach


class Interruption:
    """Ctrl-C, SIGTERM and SIGHUP as a reason to end, and a descriptor that wakes a select();
    `count` is how many have come."""

    def __init__(self) -> None:
        self.reason = ""
        self.received: list[int] = []
        self.count = 0
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)

    def fileno(self) -> int:
        """Readable after a signal."""
        return self.reader.fileno()

    def __call__(self) -> str:
        """Why to end, "" to go on."""
        return self.reason

    def on_signal(self, number: int, frame: object) -> None:
        """Note the signal; a second one changes nothing: restoring comes first."""
        self.received.append(number)
        self.count += 1
        self.reason = self.reason or ("interrupted" if number == signal.SIGINT else "terminated")

    def calm(self) -> None:
        """Not readable until the next signal, of whatever number has a handler."""
        with suppress(BlockingIOError):
            self.reader.recv(4096)

    def take(self) -> list[int]:
        """The signals since the last time this was asked."""
        self.calm()
        taken, self.received = self.received, []
        return taken

    def close(self) -> None:
        """Give the descriptors back."""
        self.reader.close()
        self.writer.close()


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, SIGINT, SIGTERM and SIGHUP only set a reason to end, and a process that is stopped by
    us does not stand still when we are (process/guard.py).

    SIGHUP stays ignored where it was (nohup).
    """
    guard().start()
    interruption = Interruption()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interruption.on_signal) for number in numbers}
    wakeup = signal.set_wakeup_fd(interruption.writer.fileno(), warn_on_full_buffer=False)
    try:
        yield interruption
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():  # a second Ctrl-C must not disturb the end
            signal.signal(number, signal.SIG_IGN if interruption.reason else handler)
        interruption.close()


def check_choice(pid: int | None, command: Sequence[str], word: str) -> None:
    """Raise BadInput unless there is either a process or a command."""
    if (pid is None) == (not command):
        raise BadInput(
            f"say what to {word}: either -p PID or -- CMD",
            cause="both were given" if command else "neither was given",
            remedy=f"fentry {word} -h",
        )


class Attached:
    """A session on process `pid`, or on `command`, which is held until let_go().

    Use as a context manager; leaving it detaches. A command that was not let go is killed.
    """

    def __init__(
        self, pid: int | None, command: Sequence[str], options: Options, *, adopting: bool = False
    ) -> None:
        self.child = 0
        self._begun = False
        if pid is not None:
            self.session = (adopt if adopting else attach)(pid, options)
            return
        self.child = start(command)
        try:
            self.session = Session(self.child, options, held=self.child)
        except BaseException:
            end(self.child)
            raise

    def let_go(self) -> None:
        """Let a command run."""
        self._begun = True
        if self.child:
            self.session.release()

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.child and not self._begun:
            end(self.child)  # before detaching: it must not run untraced for a moment
        self.session.close()

    def exit_code(self, interruption: Interruption) -> int:
        """Wait for the command, 0 if there is none: its exit code, 128 + n for signal n.

        Signals that reach only us are passed on to it.
        """
        if not self.child:
            return 0
        if self.session.has_ended:  # and been waited for: no pidfd of it can be had
            return self.session.exit_code()
        pidfd = os.pidfd_open(self.child)
        try:
            while True:
                for number in interruption.take():
                    if number != signal.SIGINT or not _is_foreground():
                        signal.pidfd_send_signal(pidfd, number)
                if pidfd in select.select([pidfd, interruption.fileno()], [], [])[0]:
                    return self.session.exit_code()
        finally:
            os.close(pidfd)


def _is_foreground() -> bool:
    # Then Ctrl-C reaches the command without us.
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def announce(attached: Attached, ops: Ops, verb: str) -> None:
    """Say on a terminal what has begun."""
    if not sys.stderr or not sys.stderr.isatty():
        return
    session = attached.session
    table = session.functions.table
    traced = int((ops.members & table.traceable).sum())
    how = "ends with it, or with Ctrl-C" if attached.child else "Ctrl-C ends it"
    click.echo(
        f"{verb} {traced} functions of {session.pid} ({session.command}), "
        f"{int(ops.members.sum()) - traced} refused; {how}",
        err=True,
    )


def announce_missing(session: Session, ops: Ops) -> None:
    """Say of libraries that the filter names and that are not loaded what becomes of them."""
    for name, near in session.not_loaded(ops).items():
        click.echo(
            f"{name} is not loaded: its functions are traced when it is loaded"
            + (f" (loaded: {', '.join(near)})" if near else ""),
            err=True,
        )


def announce_locks(session: Session) -> None:
    """Say of a process that has per-CPU counters and no rseq what that costs."""
    if session.ring.clock != CLOCK_TSC and not session.ring.has_strays:
        click.echo(
            f"process {session.pid} has no rseq: its per-CPU counters are incremented "
            "with a lock prefix, which costs more",
            err=True,
        )


def announce_attaching(pid: int | None, command: Sequence[str]) -> None:
    """Say on a terminal that the functions are being looked at: at first that takes seconds."""
    if sys.stderr and sys.stderr.isatty():
        whom = f"process {pid}" if pid is not None else command[0]
        click.echo(f"looking at the functions of {whom} ...", err=True)


def totals(summary: Summary, children: str = "", files: str = "") -> str:
    """What a recording came to, in one line: events, drops, time stopped; `children` and `files`
    are what else there is to say."""
    stops = summary.stops_ns
    return (
        f"{summary.events} events, {summary.dropped} dropped"
        + (f", {summary.overrun} overwritten" if summary.overrun else "")
        + (f", {summary.incomplete} incomplete" if summary.incomplete else "")
        + (f", {summary.unwritten} not written" if summary.unwritten else "")
        + files
        + f"; {summary.functions} functions traced, {summary.refused} refused"
        + f"; stopped {len(stops)} times, {sum(stops) / 1e6:.1f} ms"
        + f", longest {max(stops, default=0) / 1e6:.1f} ms"
        + (f"; {summary.why_ended}" if summary.why_ended else "")
        + children
        + unnamed(summary.unmatched)
        + unloaded(summary.never_loaded)
        + left_alone(summary.foreign)
        + ("; its PERMANENT ops go on" if summary.goes_on else "")
        + (f"; {summary.parked_bytes} bytes parked" if summary.parked_bytes else "")
    )


def next_target(session: Session) -> str:
    """How the next command is told what this session was of: -p PID while that lives."""
    pid = session.pid  # a command that has ended is still there, as our child
    return "..." if all(is_dead(pid, tid) for tid in list_tids(pid)) else f"-p {pid}"
