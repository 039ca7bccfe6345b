"""A process beside ours that wakes us when we are stopped (SIGSTOP, Ctrl-Z) while we hold a target.

A stopped process runs nothing, no handler and no timer: without another one the target would stand
still until somebody continues us.  Once the target runs again we stop ourselves: it was wished.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from fentry.errors import TargetGone
from fentry.process.proc import read_stat

_LOOK_S = 0.02
_LONGEST_NS = 50_000_000  # a stop that lasts longer is looked into
_CALM_S = 1.0  # without a stop: then it sleeps until the next one

# Words of the memory that both share.
_SINCE, _AWAKE, _WOKEN = range(3)  # CLOCK_MONOTONIC ns of the stop that lasts, 0 for none; flags


class Guard:
    """The guard of this process; it does nothing before start(), and in processes forked since."""

    def __init__(self) -> None:
        self._pid = 0
        self._depth = 0

    def start(self) -> None:
        """Begin to look after this process, for as long as it lives. To be called by a program of
        one thread that holds nothing yet: it forks. Where that cannot be, there is no guard."""
        if self._pid == os.getpid():
            return
        self._words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        own = os.getpid()
        with suppress(OSError):  # no more processes are allowed
            if not os.fork():
                try:
                    _live(reader, self._words, own)
                finally:
                    os._exit(0)
            self._pid = own
        os.close(reader)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Inside, a target is stopped by us."""
        if self._pid != os.getpid():
            yield
            return
        self._depth += 1
        self._words[_SINCE] = time.monotonic_ns()
        if not self._words[_AWAKE]:
            # Somebody may have killed or stopped the guard: the target matters more.
            with suppress(OSError):
                os.write(self._writer, b"!")
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._words[_SINCE] = 0
                if self._words[_WOKEN]:
                    self._words[_WOKEN] = 0
                    os.kill(os.getpid(), signal.SIGSTOP)


@cache
def guard() -> Guard:
    """The one of this process."""
    return Guard()


def _live(reader: int, words: memoryview, pid: int) -> None:
    # In the child. A group of its own: who stops all of ours must not stop it.
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(reader, 0)
    os.closerange(1, os.sysconf("SC_OPEN_MAX"))
    while os.read(0, 4096):  # its end is that of our process
        words[_AWAKE] = 1
        if not _look_after(words, pid):
            return
        words[_AWAKE] = 0
        if words[_SINCE] and not _look_after(words, pid):  # it began just now
            return


def _look_after(words: memoryview, pid: int) -> bool:
    # Until nothing is held for a while; False when the process is gone.
    calm_s = 0.0
    while calm_s < _CALM_S:
        if select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 4096):
            return False
        since_ns = words[_SINCE]
        calm_s = 0.0 if since_ns else calm_s + _LOOK_S
        late = since_ns and time.monotonic_ns() - since_ns > _LONGEST_NS
        with suppress(TargetGone, ProcessLookupError):
            # Who is stopped changes no word: it is the same stop still.
            if late and read_stat(pid).state == "T" and words[_SINCE] == since_ns:
                words[_WOKEN] = 1
                os.kill(pid, signal.SIGCONT)
    return True
