"""A word of the command line while it runs: output through a pipe or a terminal, and signals."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fentry.cli.__main__ import main
from tests.support.unprivileged import PATIENCE_S, Account

SIZE = struct.Struct("HHHH")  # struct winsize, ioctl_tty(2): rows, columns, pixels


class Running:
    """A command in a child process; `out` is read by take() and rest(), `err` after wait().

    In a terminal (`size` is rows, columns) all its streams are that terminal.
    """

    def __init__(
        self, account: Account, *arguments: object, size: tuple[int, int] | None = None
    ) -> None:
        self._errors = os.memfd_create("errors")
        self.terminal = -1
        if size is None:
            self.out, ours = os.pipe()
        else:
            self.out, ours = os.openpty()
            self.terminal = self.out
            self.resize(*size)
        self.pid = os.fork()
        if not self.pid:
            self._become(account, ours, ["fentry", *map(str, arguments)], size is not None)
        if self.terminal < 0:
            os.close(ours)
        self._ours = ours
        self._pidfd = os.pidfd_open(self.pid)
        self._code: int | None = None
        self._said = ""
        self.read = b""

    def _become(self, account: Account, ours: int, words: list[str], terminal: bool) -> None:
        code = 70
        try:
            os.setsid()
            if terminal:
                fcntl.ioctl(ours, termios.TIOCSCTTY, 0)
                os.environ["TERM"] = "xterm"
            for fd in (0, 1) if terminal else (1,):
                os.dup2(ours, fd)
            os.dup2(ours if terminal else self._errors, 2)
            os.close(self.out)
            os.environ.pop("COLUMNS", None)
            os.environ.pop("LINES", None)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python starts
            account.become()
            sys.stdin = open(0, closefd=False)
            sys.stdout = open(1, "w", closefd=False)
            sys.stderr = open(2, "w", closefd=False, buffering=1)
            sys.argv = words
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size; the kernel sends SIGWINCH."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, SIZE.pack(rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type on its terminal."""
        os.write(self.terminal, keys.encode())

    def modes(self) -> list[int | list[bytes | int]]:
        """The modes of its terminal, as termios.tcgetattr() gives them."""
        return termios.tcgetattr(self._ours)

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill_until_ended(self, number: signal.Signals) -> None:
        """Send it a signal every 50 ms: it ends at the first that it is ready for."""
        deadline = time.monotonic() + PATIENCE_S
        while not select.select([self._pidfd], [], [], 0.05)[0]:
            assert time.monotonic() < deadline, "still runs"
            self.kill(number)

    def await_text(self, holds: Callable[[bytes], bool], what: str) -> bytes:
        """Read on until `holds()` of all that it has printed; that."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds(self.read):
            assert time.monotonic() < deadline, f"not {what}: {self.read[-2000:]!r}"
            if not self._read_some():
                raise AssertionError(f"ended before {what}: {self.read[-2000:]!r} {self.err}")
        return self.read

    def rest(self) -> bytes:
        """All that it prints until it has closed its output."""
        while self._read_some():
            continue
        return self.read

    def _read_some(self) -> bool:
        # False at the end; a pty reports the end of its last user as EIO, and lines end in CR LF.
        waiting = [self.out, self._pidfd]
        ready = select.select(waiting, [], [], PATIENCE_S)[0]
        assert ready, f"prints nothing: {self.read[-2000:]!r}"
        if self.out not in ready:
            return bool(select.select([self.out], [], [], 0)[0]) and self._read_some()
        try:
            some = os.read(self.out, 1 << 20)
        except OSError:
            return False
        self.read += some
        return bool(some)

    def close_reader(self) -> None:
        """Nobody reads its output any more."""
        os.close(self.out)
        self.out = -1

    def wait(self) -> int:
        """Its exit code (negative: a signal); it must end."""
        if self._code is None:
            ended = select.select([self._pidfd], [], [], PATIENCE_S)[0]
            assert ended, f"still runs: {self.read[-2000:]!r}"
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    @property
    def err(self) -> str:
        """What it wrote to standard error; also when it is closed."""
        if self._errors >= 0:
            self._said = os.pread(self._errors, 1 << 20, 0).decode()
        return self._said

    def close(self) -> None:
        """End it if it runs."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self._said, self._errors, errors = self.err, -1, self._errors
        for fd in (self.out, errors, self._pidfd, self._ours if self.terminal >= 0 else -1):
            if fd >= 0:
                os.close(fd)


@contextmanager
def running(
    account: Account, *arguments: object, size: tuple[int, int] | None = None
) -> Iterator[Running]:
    """`fentry ARGUMENTS`, run by `account`; killed on leaving."""
    command = Running(account, *arguments, size=size)
    try:
        yield command
    finally:
        command.close()
