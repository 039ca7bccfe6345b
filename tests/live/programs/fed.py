"""Ordinary programs as the tests hold them: fed with lines, asked for answers, quiet between."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import Target, start
from tests.support.state import State, read_maps, snapshot
from tests.support.unprivileged import Account


@contextmanager
def folder(account: Account) -> Iterator[Path]:
    """A folder that belongs to the account, and is removed."""
    path = Path(tempfile.mkdtemp(prefix="fentry-program-"))
    try:
        os.chown(path, account.uid, account.uid)
        yield path
    finally:
        shutil.rmtree(path)


class Fed:
    """A program that reads lines from a pipe and answers each with lines on its output."""

    def __init__(self, target: Target, pipe: int) -> None:
        self.target = target
        self._pipe = pipe
        self._answered = 0

    @property
    def pid(self) -> int:
        return self.target.pid

    def tell(self, text: str) -> None:
        """Give it a line, or several, and go on."""
        os.write(self._pipe, text.encode() + b"\n")

    def lines(self) -> list[str]:
        """The complete lines it has written so far."""
        return self.target.out.split("\n")[:-1]

    def ask(self, text: str, seconds: float = 20) -> str:
        """Give it a line and wait for the one line it answers."""
        known = len(self.lines())
        self.tell(text)
        self.target.await_condition(lambda: len(self.lines()) > known, "an answer", seconds)
        return self.lines()[known]

    def quiet(self) -> State:
        """Its state when it waits in read(0, ...) again."""
        path = Path(f"/proc/{self.pid}/syscall")
        self.target.await_condition(lambda: path.read_text().startswith("0 0x0 "), "it reads")
        return snapshot(self.pid)

    @contextmanager
    def fed_on(self, line: str) -> Iterator[None]:
        """Inside, it is given a line again and again."""
        command = ["sh", "-c", 'while echo "$0"; do sleep 0.01; done', line]
        with subprocess.Popen(command, stdout=self._pipe) as feeder:
            try:
                yield
            finally:
                feeder.kill()

    def close(self) -> None:
        """End its input."""
        os.close(self._pipe)


@contextmanager
def fed(*command: str | Path, account: Account, first: str = "READY") -> Iterator[Fed]:
    """`command` with a pipe as its standard input, run by `account`; its first line is `first`."""
    with folder(account) as place:
        path = place / "input"
        os.mkfifo(path, 0o600)
        os.chown(path, account.uid, account.uid)
        pipe = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # to read, too: else it waits for a reader
        words = ["-c", 'exec "${@:1}" < "$0"', path, *command]
        try:
            with start("/bin/bash", *words, account=account, control=False) as target:
                # With its end, which Python may write by a second system call.
                line = first and f"{first}\n"
                target.await_condition(lambda: target.out.startswith(line), first or "running")
                yield Fed(target, pipe)
        finally:
            os.close(pipe)


def guests(pid: int) -> list[str]:
    """What of fentry can be seen in the mappings of a process; nothing after detach."""
    return [
        f"{m.start:x} {m.perms} {m.path}"
        for m in read_maps(pid)
        if ("fentry-" in m.path.rpartition("/")[2] and "memfd" in m.path)
        or ("x" in m.perms and not m.path)
    ]
