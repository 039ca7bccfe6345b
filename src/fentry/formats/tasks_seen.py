"""Names of threads as a recording meets them: what its file does not have yet, and what a next
file has to say again."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fentry.errors import TargetGone
from fentry.formats.tracefile_payloads import Task
from fentry.process.proc import list_tids, read_status, thread_name
from fentry.ring.layout import TID_MASK


class TasksSeen:
    """The last name of each thread that was seen.

    With `by_records` also threads are named that lived too shortly to be seen: forked children,
    by the tids in their records.
    """

    def __init__(self, *, by_records: bool) -> None:
        self._seen: dict[int, Task] = {}
        self._gone: dict[int, int] = {}  # those that have ended: in which move it was noticed
        self._moves = 0
        self._named: set[int] = set()  # in the present file
        self._comm = b""
        self._tids = np.zeros(TID_MASK + 1, np.bool_) if by_records else None

    def look(self, pid: int) -> list[Task]:
        """Threads of a process that are new or have another name."""
        return self._news(pid, list_tids(pid))

    def look_at_all(self, pids: Iterable[int]) -> list[Task]:
        """The same for all processes; threads that are of none of them have ended."""
        fresh, living = [], set()
        for pid in pids:
            tids = list_tids(pid)
            living.update(tids)
            fresh += self._news(pid, tids)
        for tid in self._seen.keys() - living:
            self._gone.setdefault(tid, self._moves)
        return fresh

    def note(self, words: NDArray[np.uint32]) -> None:
        """That there were records with these words."""
        if self._tids is not None:
            self._tids[words & np.uint32(TID_MASK)] = True

    def moved(self) -> None:
        """That what was in the ring has been read."""
        self._moves += 1

    def unseen(self) -> list[Task]:
        """Threads with records in the present file that nobody has looked at."""
        return [] if self._tids is None else self.of_children(np.flatnonzero(self._tids).tolist())

    def of_children(self, tids: Iterable[int]) -> list[Task]:
        """Those of some threads that nobody has looked at, as forked children: a fork keeps the
        name."""
        unseen = set(tids) - self._named - {0}
        if not unseen or not self._comm:
            return []
        now = time.monotonic_ns()
        return [Task(tid, self._comm, now) for tid in sorted(unseen)]

    def again(self) -> list[Task]:
        """What a next file begins with: threads that live or may still have records in the ring."""
        # Read since a thread was found ended: once from before that on, once from after it.
        for tid, move in list(self._gone.items()):
            if self._moves >= move + 2:
                del self._gone[tid], self._seen[tid]
        tasks = list(self._seen.values())
        self._named = {task.tid for task in tasks}
        if self._tids is not None:
            self._tids[:] = False
        return tasks

    def _news(self, pid: int, tids: Iterable[int]) -> list[Task]:
        now = time.monotonic_ns()
        fresh = []
        for tid in tids:
            self._gone.pop(tid, None)
            name = thread_name(pid, tid).encode()
            known = self._seen.get(tid)
            if name and (known is None or known.comm != name):
                self._seen[tid] = Task(_own_tid(pid, tid), name, now)
                fresh.append(self._seen[tid])
        if fresh:
            self._comm = self._comm or fresh[0].comm
            self._named.update(task.tid for task in fresh)
        return fresh


def _own_tid(pid: int, tid: int) -> int:
    # As records carry it: in the pid namespace of the target.
    try:
        return read_status(pid, tid).ns_pid
    except TargetGone:
        return tid
