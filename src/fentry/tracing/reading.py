"""What is read of a ring while its functions are traced: records, moments of the clock, and names
of threads, by a thread that touches nothing but shared memory and /proc."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from fentry.errors import FentryError
from fentry.events.clock import Clock, ClockPair
from fentry.formats.task_names import TaskNames
from fentry.formats.tasks_seen import TasksSeen
from fentry.formats.tracefile import Task
from fentry.instance import Instance
from fentry.ring.clock import sample
from fentry.ring.layout import CLOCK_TSC, MODE_DISCARD, record_dtype
from fentry.tracing.blocks import Blocks
from fentry.tracing.table import Lost

# How often the ring is looked at: the more often the faster it fills.
_SHORTEST_LOOK_S = 0.0002
_LONGEST_LOOK_S = 0.01
_BUSY_FILL, _CALM_FILL = 0.25, 0.06
# Moments of the clock and new threads: soon after the start, then more and more rarely.
_FIRST_CHORES_S, _CHORES_S = 0.02, 0.5
_MOST_THREADS = 1 << 16
_LATEST_PAIRS = 64  # moments of the clock that the newest records lie between


class Reading:
    """Empties the ring of an instance into `blocks` from start() to stop().

    When `most` records are kept it stops to do so: the full ring then refuses calls, and counts
    them. A ring that overwrites is not emptied but by drain(). Nothing here stops the target, and
    everything may be called from any thread.
    """

    def __init__(self, instance: Instance, pid: int, most: int) -> None:
        self.blocks = Blocks(record_dtype(instance.geometry.record_bytes))
        self.instance = instance
        self.has_time = instance.geometry.clock == CLOCK_TSC
        self._pid = pid
        self._most = most
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fentry reading", daemon=True)
        self._problem: FentryError | None = None
        self._pairs: list[ClockPair] = []
        self._tasks: list[Task] = []
        self._threads = TasksSeen(by_records=False)
        self._names: tuple[int, TaskNames] | None = None

    def start(self) -> None:
        """Begin to read. To be called when the ring is there."""
        self.look_around()
        if self.instance.ring.mode == MODE_DISCARD:
            self._thread.start()

    def stop(self) -> None:
        """Read no more but by drain()."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def drain(self, *, final: bool = False) -> None:
        """Take out what is there; all of it, and what nobody will complete, if it is `final`.

        Raises RegionError, also for what the thread met, when the target has damaged the ring.
        """
        with self._lock:
            if self._problem is not None:
                raise self._problem
            self._drain(final=final)

    def settle(self) -> None:
        """As Instance.settle(): may stop the target, so it is for the thread that does that."""
        with self._lock:
            self.instance.settle()

    def mark(self) -> None:
        """Note a moment of the clock."""
        if self.has_time:
            with self._lock:
                self._pairs.append(ClockPair(*sample()))

    def look_around(self) -> None:
        """Note a moment of the clock, and new names of threads."""
        self.mark()
        with self._lock:
            self._tasks += self._threads.look(self._pid)

    def forget(self, until: Mapping[int, int]) -> None:
        """Let go of the first so many records of each CPU."""
        with self._lock:
            self.blocks.forget(until)
            del self._pairs[:-_LATEST_PAIRS]
            if len(self._tasks) > _MOST_THREADS:  # most have ended: the next look names the others
                self._tasks.clear()
                self._names, self._threads = None, TasksSeen(by_records=False)

    @property
    def is_full(self) -> bool:
        """Whether as many records are kept as may be."""
        return self.blocks.kept >= self._most

    @property
    def awaited_cpus(self) -> list[int]:
        """The CPUs whose next record has its place and is not there yet."""
        with self._lock:
            return self.instance.awaited_cpus

    @property
    def lost(self) -> Lost:
        """What was lost up to now."""
        stats = self.instance.stats
        if stats is None:
            return Lost()
        columns = (stats.dropped_events, stats.overrun, stats.incomplete)
        return Lost(*(int(column.sum()) for column in columns))

    def clock(self, *, latest: bool = False) -> Clock | None:
        """Converts the ticks of all records that were taken out before mark() was called, or of
        the `latest` of them; None when they have no time."""
        with self._lock:
            pairs = self._pairs[-_LATEST_PAIRS:] if latest else self._pairs
            return Clock(pairs) if self.has_time else None

    @property
    def tasks(self) -> TaskNames:
        """The names of threads as far as they were seen."""
        with self._lock:
            if self._names is None or self._names[0] != len(self._tasks):
                self._names = len(self._tasks), TaskNames(self._tasks)
            return self._names[1]

    def _run(self) -> None:
        pause_s, chores_s = _SHORTEST_LOOK_S, _FIRST_CHORES_S
        next_chores = time.monotonic() + chores_s
        while not self._stopping.wait(pause_s):
            try:
                with self._lock:
                    fill = self.instance.fill
                    self._drain()
            except FentryError as error:
                self._problem = error
                return
            if fill > _BUSY_FILL:
                pause_s = max(pause_s / 2, _SHORTEST_LOOK_S)
            elif fill < _CALM_FILL:
                pause_s = min(pause_s * 1.5, _LONGEST_LOOK_S)
            if time.monotonic() >= next_chores:
                with suppress(OSError):  # no descriptor is left to look by: later, perhaps
                    self.look_around()
                chores_s = min(2 * chores_s, _CHORES_S)
                next_chores = time.monotonic() + chores_s

    def _drain(self, *, final: bool = False) -> None:
        if self.is_full and not final:
            return
        for batch in self.instance.read(final=final):
            self.blocks.add(batch.cpu, np.asarray(batch.records))
