"""Waits for dead tracees while the tracer itself cannot: during PTRACE_SEIZE.

PTRACE_SEIZE takes the target's cred_guard_mutex (ptrace_attach(), kernel/ptrace.c). An execve by
one of its threads holds that mutex until all other threads are gone (de_thread(), fs/exec.c), and
those that are our tracees are gone when we have waited for them. Any thread of the tracer may
wait: a second one does, while a seizing lasts longer than it ever should.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fentry.process import ptrace
from fentry.process.proc import is_dead, list_tids

_PATIENCE_S = 0.02


class _Undertaker:
    # One thread for all seizings of this process; it sleeps unless one lasts.
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._changed = threading.Condition()
        self._pid = 0
        threading.Thread(target=self._run, name="undertaker", daemon=True).start()

    def watch(self, pid: int) -> None:
        with self._changed:
            self._pid = pid
            self._changed.notify()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pid)
                if self._changed.wait_for(lambda: not self._pid, timeout=_PATIENCE_S):
                    continue
                pid = self._pid
            _bury(pid)


_undertakers: dict[int, _Undertaker] = {}  # by process: a forked child has no threads


@contextmanager
def watching(pid: int) -> Iterator[None]:
    """Inside, dead threads of `pid` that are tracees of this process are waited for."""
    owner = os.getpid()
    undertaker = _undertakers.get(owner)
    if undertaker is None:
        _undertakers.clear()
        undertaker = _undertakers[owner] = _Undertaker()
    undertaker.watch(pid)
    try:
        yield
    finally:
        undertaker.watch(0)


def _bury(pid: int) -> None:
    # Not the leader: an exec takes its tid over, and as our child it has a status to be read.
    for tid in list_tids(pid):
        if tid != pid and is_dead(pid, tid):
            with suppress(ChildProcessError):
                os.waitpid(tid, ptrace.WALL | os.WNOHANG)
