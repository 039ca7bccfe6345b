"""Kills a controller right after its n-th system call, for every n.

The controller is a Python function in a forked child (no new interpreter); we trace the child
with our own few ptrace calls, count its system calls between two marks, and send SIGKILL at the
exit stop of the n-th. The controller may itself trace a target: tracing nests. One run costs
two stops per system call beyond the controller's own work.

    for death in points(trace_and_detach, target.pid, account=account):
        assert target.bad == 0, death            # after each one: look at the target
        account.run(detach, target.pid)
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.syscalls import name_of
from tests.support.unprivileged import Account

PTRACE_TRACEME, PTRACE_SYSCALL = 0, 24
PTRACE_SETOPTIONS, PTRACE_GET_SYSCALL_INFO = 0x4200, 0x420E
PTRACE_O_TRACESYSGOOD, PTRACE_O_EXITKILL = 1, 1 << 20
SYSCALL_STOP = signal.SIGTRAP | 0x80
ENTRY, EXIT = 1, 2  # op of struct ptrace_syscall_info (linux/ptrace.h)
SYS_PRCTL, MARK, COUNT, DONE = 157, 0x66656E74, 1, 2  # an option that prctl does not know
FAILED = 113  # exit code of a controller that raised

_libc = ctypes.CDLL(None, use_errno=True)


class ControllerFailed(AssertionError):
    """The controller raised or died by itself; its traceback is on stderr."""


@dataclass(frozen=True, slots=True)
class Death:
    """The controller was killed when its n-th call (from 1) had been made, with this result."""

    n: int
    number: int
    arguments: tuple[int, ...]
    result: int

    def __str__(self) -> str:
        shown = ", ".join(f"{argument:#x}" for argument in self.arguments)
        return f"killed after call {self.n}: {name_of(self.number)}({shown}) = {self.result}"


def start_counting() -> None:
    """Called by the controller: calls after this one count (else all of its calls count)."""
    _libc.syscall(SYS_PRCTL, MARK, COUNT, 0, 0, 0)


def stop_counting() -> None:
    """Called by the controller: calls from here on count no more."""
    _libc.syscall(SYS_PRCTL, MARK, DONE, 0, 0, 0)


def points(
    controller: Callable[..., object],
    *arguments: Any,
    account: Account | None = None,
    first: int = 1,
    stride: int = 1,
    marked: bool = False,
) -> Iterator[Death]:
    """A Death for n = first, first + stride, ... until a run ends before its n-th call.

    The last, undisturbed run is awaited before the iteration ends. With `marked`, only the
    calls between start_counting() and stop_counting() of the controller count.
    Raises ControllerFailed.
    """
    n = first
    while (
        death := kill_after(n, controller, *arguments, account=account, marked=marked)
    ) is not None:
        yield death
        n += stride


def count(
    controller: Callable[..., object],
    *arguments: Any,
    account: Account | None = None,
    marked: bool = False,
) -> int:
    """How many system calls an undisturbed run makes."""
    calls = _Calls(limit=sys.maxsize)
    _run(controller, arguments, account, marked, calls)
    return calls.n


def kill_after(
    n: int,
    controller: Callable[..., object],
    *arguments: Any,
    account: Account | None = None,
    marked: bool = False,
) -> Death | None:
    """Run the controller once and kill it after its n-th call; None if it made fewer."""
    calls = _Calls(limit=n)
    return _run(controller, arguments, account, marked, calls)


class _Calls:
    """Follows entry and exit stops; knows when the limit is reached."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n = 0
        self.counting = False
        self.number = 0
        self.arguments: tuple[int, ...] = ()

    def at_stop(self, pid: int) -> Death | None:
        info = ctypes.create_string_buffer(88)
        _ptrace(PTRACE_GET_SYSCALL_INFO, pid, len(info), ctypes.addressof(info))
        if info.raw[0] == ENTRY:
            self.number, *rest = struct.unpack_from("<7Q", info.raw, 24)
            self.arguments = tuple(rest)
            return None
        if self.number == SYS_PRCTL and self.arguments[0] == MARK:
            self.counting = self.arguments[1] == COUNT
            return None
        if info.raw[0] != EXIT or not self.counting:
            return None
        self.n += 1
        (result,) = struct.unpack_from("<q", info.raw, 24)
        return Death(self.n, self.number, self.arguments, result) if self.n >= self.limit else None


def _run(
    controller: Callable[..., object],
    arguments: tuple[Any, ...],
    account: Account | None,
    marked: bool,
    calls: _Calls,
) -> Death | None:
    sys.stdout.flush()
    sys.stderr.flush()
    allowed = os.sched_getaffinity(0)
    # We and the controller never run at once: on one CPU a stop wakes no sleeping other one. The
    # CPU changes from run to run; the target is on all.
    os.sched_setaffinity(0, {sorted(allowed)[calls.limit % len(allowed)]})
    try:
        child = os.fork()
        if child == 0:
            _be_controller(controller, arguments, account, marked)
        try:
            death, status = _follow(child, calls)
        except BaseException:  # a KeyboardInterrupt, for instance: no tracee may stay behind
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
    finally:
        os.sched_setaffinity(0, allowed)
    if death is None and status:
        end = os.waitstatus_to_exitcode(status)
        raise ControllerFailed(f"it ended with {end} after {calls.n} system calls")
    return death


def _follow(child: int, calls: _Calls) -> tuple[Death | None, int]:
    """Lets the child run from call to call; its death by us or None, and its wait status."""
    _, status = os.waitpid(child, 0)  # the stop of its own SIGSTOP
    if os.WIFSTOPPED(status):
        _ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)
        _ptrace(PTRACE_SYSCALL, child, 0, 0)
        _, status = os.waitpid(child, 0)
    while os.WIFSTOPPED(status):
        number = os.WSTOPSIG(status)
        if number == SYSCALL_STOP:
            number = 0
            if death := calls.at_stop(child):
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                return death, status
        _ptrace(PTRACE_SYSCALL, child, 0, number)
        _, status = os.waitpid(child, 0)
    return None, status


def _be_controller(
    controller: Callable[..., object],
    arguments: tuple[Any, ...],
    account: Account | None,
    marked: bool,
) -> None:
    code = FAILED
    try:
        if account is not None:
            account.become()
        _ptrace(PTRACE_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        if not marked:
            start_counting()
        controller(*arguments)
        stop_counting()
        code = 0
    except BaseException:  # the child must never return into the test
        stop_counting()
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    # libc's ptrace, through ctypes with all arguments as wide as a pointer
    result = _libc.ptrace(
        ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), ctypes.c_void_p(data)
    )
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace request {request:#x} on {pid}: {os.strerror(error)}")
