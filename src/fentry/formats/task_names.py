"""Names of threads at a time: the comm of a tid, which may change or be used again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events
from fentry.formats.symbol_names import printable
from fentry.formats.tracefile_payloads import Task
from fentry.ring.layout import TID_BITS

UNKNOWN = b"<...>"
"""What the kernel prints for a pid whose comm was not saved (kernel/trace/trace.c)."""

_CPU_BITS = 16


class TaskNames:
    """The comm of each thread, by epochs: an epoch ends where any known thread is renamed."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._named: dict[int, list[Task]] = {}
        for task in sorted(tasks, key=lambda task: task.seen_ns):
            earlier = self._named.setdefault(task.tid, [])
            if not earlier or earlier[-1].comm != task.comm:
                earlier.append(task)
        renamed = {task.seen_ns for known in self._named.values() for task in known[1:]}
        self._moments = np.array(sorted(renamed), np.int64)

    def keys(self, events: Events) -> NDArray[np.uint64]:
        """uint64[n]: equal for events of the same thread, CPU and epoch; see `unpack`."""
        key = events.tid.astype(np.uint64) | (events.cpu.astype(np.uint64) << np.uint64(TID_BITS))
        if len(self._moments) and len(events):
            epoch = self._epochs(events.time_ns).astype(np.uint64)
            key |= epoch << np.uint64(TID_BITS + _CPU_BITS)
        return key

    def unpack(self, key: int) -> tuple[bytes, int, int]:
        """The comm, tid and cpu that a key stands for."""
        tid = key & ((1 << TID_BITS) - 1)
        cpu = key >> TID_BITS & ((1 << _CPU_BITS) - 1)
        return self._comm(tid, key >> (TID_BITS + _CPU_BITS)), tid, cpu

    def _epochs(self, time_ns: NDArray[np.int64]) -> NDArray[np.intp]:
        first, last = np.searchsorted(
            self._moments, np.array([time_ns.min(), time_ns.max()]), "right"
        )
        if first == last:
            return np.full(len(time_ns), first, np.intp)
        return np.searchsorted(self._moments, time_ns, "right")

    def _comm(self, tid: int, epoch: int) -> bytes:
        known = self._named.get(tid)
        if known is None:
            return UNKNOWN
        start_ns = int(self._moments[epoch - 1]) if epoch else -1
        # before a thread was first looked at it had, for all we know, the name it had then
        before = [task for task in known if task.seen_ns <= start_ns]
        return printable((before or known[:1])[-1].comm)
