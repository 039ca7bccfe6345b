"""Accounts: who runs the target and the controller. Every live test runs as each of them.

As root the suite runs as root and as a uid that owns nothing and needs no passwd entry, no
home and no login; nothing of the machine is changed for it. Otherwise it runs as who we are.
"""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PATIENCE_S = 600  # whoever does not answer for so long hangs, on however busy a machine

UNPRIVILEGED_UID = 64531
PR_SET_DUMPABLE = 4
PR_SET_PTRACER = 0x59616D61  # Yama's; PR_SET_PTRACER_ANY is -1
T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


class ChildFailed(AssertionError):
    """The function run by an account raised; the text is its traceback."""


class ChildTimeout(AssertionError):
    """The function run by an account did not end in time, and was killed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command printed, and how it ended (negative: the signal, as in subprocess)."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Account:
    """A user id to run as; `name` is "root" or "unprivileged"."""

    name: str
    uid: int

    @property
    def is_current(self) -> bool:
        return self.uid == os.getuid()

    def become(self) -> None:
        """Turn this (child) process into the account, for good and without any capability."""
        os.environ["FENTRY_CACHE"] = str(cache_of(self.uid))
        if self.is_current:
            return
        os.setgroups([])
        os.setresgid(self.uid, self.uid, self.uid)
        os.setresuid(self.uid, self.uid, self.uid)
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root
        os.environ["HOME"] = "/nonexistent"

    def run(self, function: Callable[..., T], *arguments: Any, seconds: float = PATIENCE_S) -> T:
        """What `function(*arguments)` returns in a forked child that is this account.

        The result must pickle. The exception of the child is raised here again if it pickles
        (with the child's traceback as a note), else as ChildFailed. Raises ChildTimeout.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._in_child(writing, function, arguments)
        os.close(writing)
        try:
            answer = _read_all(reading, time.monotonic() + seconds)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise ChildTimeout(f"{function} still ran after {seconds} s") from None
        finally:
            os.close(reading)
        _, status = os.waitpid(child, 0)
        if not answer:
            raise ChildFailed(f"{function} ended without an answer: {_describe(status)}")
        kind, value, text = pickle.loads(answer)
        if kind == "returned":
            return value  # type: ignore[no-any-return]  # what the child returned
        if isinstance(value, BaseException):
            value.add_note(text)
            raise value
        raise ChildFailed(text)

    def call_main(
        self, main: Callable[[], Any], arguments: Sequence[str], *, seconds: float = PATIENCE_S
    ) -> Completed:
        """What the command `main`, with sys.argv = arguments, prints when this account runs it.

        No new interpreter starts, so that it costs milliseconds and needs no readable venv.
        """
        return self.run(_captured_main, main, list(arguments), seconds=seconds)

    def can_execute(self, path: str | Path) -> bool:
        """True if the account can reach and execute the file (an interpreter, for instance)."""
        return self.run(os.access, str(path), os.X_OK)

    def _in_child(
        self, writing: int, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        code = 0
        try:
            self.become()
            answer = ("returned", function(*arguments), "")
            packed = pickle.dumps(answer)
        except BaseException as error:  # the child must never return into the test
            code = 1
            packed = _packed_error(error)
        with suppress(BrokenPipeError), open(writing, "wb") as pipe:
            pipe.write(packed)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def cache_of(uid: int) -> Path:
    """Where this run of the suite keeps what an account has analysed; gone at its end."""
    return Path(tempfile.gettempdir()) / f"fentry-test-cache-{os.getsid(0)}-{uid}"


def accounts() -> tuple[Account, ...]:
    """All accounts the suite can run as, here and now."""
    if os.getuid():
        return (Account("unprivileged", os.getuid()),)
    return (Account("root", 0), Account("unprivileged", UNPRIVILEGED_UID))


def allow_any_tracer() -> None:
    """Let any process of the same user trace this one where Yama would only let parents do it.

    It survives exec; without Yama the call fails with EINVAL and is not needed.
    """
    _libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


def _captured_main(main: Callable[[], Any], arguments: list[str]) -> Completed:
    streams = []
    for fd in (1, 2):
        copy = os.memfd_create(f"captured-{fd}")
        os.dup2(copy, fd)
        streams.append(copy)
    sys.stdout = _unbuffered(1)
    sys.stderr = _unbuffered(2)
    sys.argv = arguments
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = (os.pread(fd, os.fstat(fd).st_size, 0).decode() for fd in streams)
    return Completed(code, out, err)


def _unbuffered(fd: int) -> io.TextIOWrapper:
    # raw, so that what is written past Python (os.write, a child) keeps its place
    raw = open(fd, "wb", buffering=0, closefd=False)
    return io.TextIOWrapper(raw, write_through=True)


def _packed_error(error: BaseException) -> bytes:
    text = "".join(traceback.format_exception(error))
    try:
        packed = pickle.dumps(("raised", error, text))
        pickle.loads(packed)
    except Exception:  # any class may fail to pickle, in any way
        return pickle.dumps(("raised", None, text))
    return packed


def _read_all(fd: int, deadline: float) -> bytes:
    parts: list[bytes] = []
    while True:
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        if not (part := os.read(fd, 1 << 20)):
            return b"".join(parts)
        parts.append(part)


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"
