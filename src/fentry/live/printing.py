"""Printing what a session records while it happens, in order of time.

Nothing here waits for whoever reads the lines: while he takes none the ring fills, drops and
counts, as it does when this process itself does not run.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fentry.dispatch.followed import FORK
from fentry.dispatch.ops import Ops
from fentry.errors import LockError, StopTimeout, TargetGone
from fentry.events.clock import ClockPair, RunningClock
from fentry.events.columns import Events
from fentry.events.stream import Lost, Stream, TimedStream, UntimedStream
from fentry.formats.tasks_seen import TasksSeen
from fentry.formats.text import LINES_AT_ONCE, FunctionText, JsonLines
from fentry.formats.tracefile_payloads import Task
from fentry.live.names import LiveNames, LiveSites, LiveTasks
from fentry.recording import Summary, attempt, complete, leave
from fentry.ring.clock import sample
from fentry.ring.layout import CLOCK_TSC, TID_MASK
from fentry.session import Session
from fentry.watching import LONGEST_LOOK_S, Loading, Pace, processes_of

# How old an event is when it is printed, so that those read after it can take their places: what
# it takes to read all CPUs, and (without rseq) to go on between reading the clock and recording.
_ORDER_NS = 50_000_000
_RELEASE_S = 0.01
_MOST_HELD = 1 << 19  # events; what is more stays in the ring
_NAMES_S = 0.2  # how often it is looked whether threads were renamed
_MODULES_S = 0.01
_MOST_THREADS = 1 << 16
_LOST = b"CPU:%d [LOST %d EVENTS]\n"  # print_trace_line(), kernel/trace/trace.c
_LOST_JSON = b'{"cpu":%d,"lost":%d}\n'


class Output(Protocol):
    """Takes lines, and has them written by somebody else."""

    def has_room(self) -> bool:
        """Whether it takes lines now."""
        ...

    def put(self, text: memoryview, *, events: int) -> None:
        """Take these lines; so many of them (all, or none) are events."""
        ...

    def await_room(self) -> bool:
        """Wait until it takes lines; False when it never will again."""
        ...

    def finish(self) -> int:
        """Wait until all lines are written, or never will be; how many events are."""
        ...


class Live:
    """Prints the calls of a session that records `ops`.

    Use as a context manager; leaving it detaches, prints the rest and completes `summary`, in
    which `unwritten` are events that were read and that the output did not take. `clock` are
    moments before the recording began, at least one where records have a time.

    late  events that came out after a later one
    """

    def __init__(
        self,
        session: Session,
        ops: Ops,
        output: Output,
        *,
        as_json: bool = False,
        clock: Sequence[ClockPair] = (),
    ) -> None:
        self.session = session
        self.summary = Summary()
        self._ops = ops
        self._output = output
        self._has_time = session.ring.clock == CLOCK_TSC
        self._clock = RunningClock(clock)
        self._stream: Stream = TimedStream() if self._has_time else UntimedStream()
        self._ready: deque[Events | Lost] = deque()
        self._nr_read = 0
        self._lost = np.zeros(session.ring.nr_cpus, np.int64)
        self._sites = LiveSites(session.keys)
        self._names = LiveNames(lambda: session.functions.symbols)
        self._tasks = LiveTasks()
        self._threads = TasksSeen(by_records=False)
        self._loading = Loading(session, ops)
        form = JsonLines if as_json else FunctionText
        self._lines = form(self._names, self._tasks, has_time=self._has_time)
        self._lost_line = _LOST_JSON if as_json else _LOST
        self._pace = Pace()
        self._next_release = self._next_names = self._next_modules = 0.0
        self.summary.functions = len(self._loading.traced)
        self.summary.refused = int(ops.members.sum()) - len(self._loading.traced)

    @property
    def late(self) -> int:
        """Events that came out after a later one."""
        return self._stream.late

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        problems = [leave(self.session, self.summary), attempt(self._print_rest)]
        self.summary.events = self._output.finish()
        self.summary.unwritten = self._nr_read - self.summary.events
        complete(self.summary, self.session, self._ops)
        first = next((problem for problem in problems if problem is not None), None)
        if error is None and first is not None:
            raise first

    # 1. While it runs

    def run(self, until: float | None, stopped: Callable[[], str], wakeup: int = -1) -> None:
        """Print until CLOCK_MONOTONIC `until`, until `stopped()` names a reason, or the end.

        `wakeup` is a descriptor that becomes readable when `stopped` may have changed.
        """
        while True:
            now = time.monotonic()
            if self._has_place() and self._pace.is_due(self.session.fill, now):
                self._read()
            self._release(now)
            self._print()
            self._look_around(now)
            self.summary.why_ended = self._why_end(until, now, stopped)
            if self.summary.why_ended:
                return
            pause_s = self._pace.look_s if self._has_place() else LONGEST_LOOK_S
            if until is not None:
                pause_s = min(pause_s, max(0.0, until - now))
            waiting = [fd for fd in (*self.session.wakeups, wakeup) if fd >= 0]
            select.select(waiting, [], [], pause_s)

    def _has_place(self) -> bool:
        return len(self._stream) + sum(_count(part) for part in self._ready) < _MOST_HELD

    def _look_around(self, now: float) -> None:
        # Threads and children that come and go, libraries that are loaded, names.
        if now >= self._next_names:
            self._next_names = now + _NAMES_S
            self._name(self._threads.look_at_all(processes_of(self.session)))
        if now >= self._next_modules:
            self._next_modules = now + _MODULES_S
            self._follow_modules()
        self.session.follow_threads()
        self._follow_forks()

    def _follow_modules(self) -> None:
        loaded = self._loading.look()
        if loaded is not None:
            self.summary.functions += loaded.functions
            self.summary.refused += loaded.refused
            self._names.renew()

    def _follow_forks(self) -> None:
        if self.session.followed is None:
            return
        self.session.follow_forks()
        for news in self.session.followed.take_news():
            if news.kind == FORK:
                self._name(self._threads.look(news.pid))

    def _why_end(self, until: float | None, now: float, stopped: Callable[[], str]) -> str:
        if reason := stopped():
            return reason
        if until is not None and now >= until:
            return "time is up"
        return self.session.why_over()

    # 2. From the ring to events

    def _read(self, *, final: bool = False) -> None:
        before_ns = time.monotonic_ns()
        dropped = self._dropped()
        parts: list[tuple[int, NDArray[np.void]]] = []
        # It may be impossible to stop the target to see whether a record that is never completed
        # may be skipped: it has ended, or another controller has it. The next look will tell.
        try:
            with suppress(TargetGone, LockError, StopTimeout):
                for batch in self.session.consume(final=final):
                    parts.append((batch.cpu, batch.records.copy()))
        finally:  # a damaged ring is no reason not to print what was read of it
            self._pace.was_read()
            self._take(parts, dropped, before_ns)

    def _take(
        self, parts: list[tuple[int, NDArray[np.void]]], dropped: NDArray[np.int64], before_ns: int
    ) -> None:
        # `dropped`, by CPU, and the time are of the moment before the first of these was read.
        if self._has_time:
            self._clock.add(ClockPair(*sample()))  # later than all that was read
        newest_ns: dict[int, int] = {}
        for cpu, records in parts:
            events = self._events(cpu, records)
            newest_ns[cpu] = int(events.time_ns.max())
            self._nr_read += len(events)
            self._stream.add(events)
        self._note_losses(dropped, newest_ns, before_ns)
        self._next_release = 0.0

    def _events(self, cpu: int, records: NDArray[np.void]) -> Events:
        ticks, key = np.array(records["time"]), np.array(records["key"])
        tid = records["word"] & np.uint32(TID_MASK)
        self._name_unknown(tid)
        if self._has_time:
            times = self._clock.monotonic_ns(ticks)
        else:
            times = ticks.astype(np.int64) - self.session.ring.capacity  # positions begin there
        has_parents = "parent_ip" in (records.dtype.names or ())
        return Events(
            time_ns=times,
            cpu=np.full(len(records), cpu, np.uint16),
            tid=tid,
            ip=self._sites.ips(key),
            parent_ip=np.array(records["parent_ip"]) if has_parents else None,
            key=key,
        )

    def _name_unknown(self, tids: NDArray[np.uint32]) -> None:
        unknown = self._tasks.unknown(tids)
        if not unknown:
            return
        self._name(self._threads.look_at_all(processes_of(self.session)))
        if self.session.followed is not None:
            self._name(self._threads.of_children(unknown))
        self._tasks.give_up(unknown)

    def _name(self, tasks: Sequence[Task]) -> None:
        self._tasks.update(tasks)
        if len(self._tasks) > _MOST_THREADS:  # most have ended: the next look names the others
            self._tasks.clear()
            self._threads = TasksSeen(by_records=False)

    def _dropped(self) -> NDArray[np.int64]:
        stats = self.session.stats
        assert stats is not None  # there is a ring
        return stats.dropped_events.astype(np.int64)

    def _note_losses(
        self, dropped: NDArray[np.int64], newest_ns: dict[int, int], before_ns: int
    ) -> None:
        # What was dropped before a CPU was read came after what was read of it: its part was full.
        stats = self.session.stats
        assert stats is not None
        lost = dropped + (stats.overrun + stats.incomplete).astype(np.int64)
        for cpu in np.flatnonzero(lost > self._lost).tolist():
            count = int(lost[cpu] - self._lost[cpu])
            self._stream.add_lost(Lost(cpu, count, newest_ns.get(cpu, before_ns)))
        self._lost = np.maximum(lost, self._lost)

    # 3. From events to lines

    def _release(self, now: float) -> None:
        if now >= self._next_release:
            self._next_release = now + _RELEASE_S
            # Spoilt records may lie in the future, and must not fill the place for others.
            until_ns = None if len(self._stream) >= _MOST_HELD else int(now * 1e9) - _ORDER_NS
            self._ready.extend(self._stream.release(until_ns))

    def _print(self) -> None:
        while self._ready and self._output.has_room():
            self._print_next()

    def _print_next(self) -> None:
        part = self._ready.popleft()
        if isinstance(part, Lost):
            self._output.put(memoryview(self._lost_line % (part.cpu, part.count)), events=0)
            return
        if len(part) > LINES_AT_ONCE:
            self._ready.appendleft(part.take(slice(LINES_AT_ONCE, None)))
            part = part.take(slice(0, LINES_AT_ONCE))
        self._output.put(self._lines.lines(part), events=len(part))

    def _print_rest(self) -> None:
        self._read(final=not self.session.goes_on)
        self._ready.extend(self._stream.release(None))
        while self._ready and self._output.await_room():
            self._print_next()


def _count(part: Events | Lost) -> int:
    return len(part) if isinstance(part, Events) else 0
