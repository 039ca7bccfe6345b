"""Several processes at once: a controller for each, and all end together."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from types import FrameType
from typing import Any

import click

from fentry.errors import BadInput, FentryError, TargetGone
from fentry.process.proc import all_pids, command_of, read_stat, thread_name

Handler = Callable[[int, FrameType | None], Any] | int | None

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def named(name: str) -> list[int]:
    """The processes that run a program of this name: a glob, of the name of the process or of the
    file that it runs, as pgrep and pidof look. Not this one and those that wait for it.

    Raises BadInput when there is none.
    """
    own = _ancestors(os.getpid())
    found = [pid for pid in all_pids() if pid not in own and _is_named(pid, name)]
    if not found:
        raise BadInput(f"no process is called {name!r}", remedy="ps -e shows their names")
    return found


def _is_named(pid: int, name: str) -> bool:
    try:
        if read_stat(pid).is_kernel_thread or read_stat(pid).is_dead:
            return False
        names = {thread_name(pid, pid), os.path.basename(os.readlink(f"/proc/{pid}/exe"))}
    except TargetGone:
        return False
    except OSError:  # another's: its name is for everybody to see
        names = {thread_name(pid, pid)}
    return any(fnmatchcase(one.removesuffix(" (deleted)"), name) for one in names if one)


def _ancestors(pid: int) -> set[int]:
    found = set()
    while pid > 1 and pid not in found:
        found.add(pid)
        with suppress(TargetGone):
            pid = read_stat(pid).parent_pid
    return found


def output_of(output: str, pid: int) -> str:
    """Where the trace of one of several goes: trace.fentry becomes trace.PID.fentry."""
    folder, name = os.path.split(output)
    stem, suffix = os.path.splitext(name)
    return os.path.join(folder, f"{stem}.{pid}{suffix}")


def for_each(pids: Sequence[int], work: Callable[[int], int]) -> int:
    """Do `work`, which gives an exit code, for each process, each in a child of ours, at the same
    time; the first exit code that is not 0.

    SIGINT, SIGTERM and SIGHUP go on to all of them, who end as each would alone.
    """
    children: list[int] = []
    received: list[int] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        for child in children:
            os.kill(child, number)

    before = {number: signal.signal(number, pass_on) for number in _ENDING}
    try:
        for pid in pids:
            if not received:  # else it is to end before it has begun
                children.append(_begin(work, pid, before))
        codes = [_reap(children, child) for child in list(children)]
    except BaseException:
        pass_on(signal.SIGTERM, None)
        for child in list(children):
            _reap(children, child)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return next((code for code in codes if code), 0)


def _begin(work: Callable[[int], int], pid: int, handlers: Mapping[signal.Signals, Handler]) -> int:
    # A child that is at work. What is sent to it before its handlers are its own waits for them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        child = os.fork()
        if not child:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _work(work, pid)
        return child
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _reap(children: list[int], child: int) -> int:
    # Its exit code as a shell says it. Nobody signals it any more once its pid may be another's.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    children.remove(child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - code if code < 0 else code


def _work(work: Callable[[int], int], pid: int) -> None:
    # In the child, which never comes back.
    code = 1
    try:
        code = work(pid)
    except FentryError as error:
        click.echo(f"fentry: {pid} ({command_of(pid)}): {error}", err=True)
        code = error.exit_code
    except ProcessLookupError:
        click.echo(f"fentry: process {pid} is gone\n  cause: it ended in the middle", err=True)
        code = TargetGone.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
