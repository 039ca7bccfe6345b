"""Recording a session into a trace file until something ends it."""

from __future__ import annotations

import os
import platform
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fentry import __version__
from fentry.dispatch.followed import FORK
from fentry.dispatch.ops import Ops
from fentry.errors import (
    FentryError,
    LockError,
    RegionError,
    StopTimeout,
    TargetGone,
    TraceFileError,
)
from fentry.events.clock import ClockPair
from fentry.formats.tasks_seen import TasksSeen
from fentry.formats.tracefile import CpuLosses, Symbol, TraceMeta, TraceWriter
from fentry.formats.tracefile import Module as TraceModule
from fentry.formats.tracefile_files import ONE_FILE, Storage, TraceFiles
from fentry.ring.buffer import Geometry
from fentry.ring.clock import sample
from fentry.ring.layout import CLOCK_NAMES, CLOCK_TSC, MODE_DISCARD, RECORD24
from fentry.ring.reader import Batch, Stats
from fentry.session import Session
from fentry.symbols.module import Module
from fentry.watching import LONGEST_LOOK_S, Loading, Pace, processes_of

# Clock pairs, new threads, losses: soon after the start, so that also a short or cut trace has a
# clock, then more and more rarely.
_FIRST_CHORES_S = 0.02
_CHORES_S = 0.5
_MODULES_S = 0.01  # how often it is looked whether modules were loaded or unloaded
_NAMES_AT_ONCE = 2048  # some milliseconds of work between two looks at the ring


@dataclass(slots=True)
class Summary:
    """What a recording came to; times in ns. `events` are those that were written, `unwritten`
    those that were read and could not be. Of `files`, `removed_files` were too many, with
    `removed_events`."""

    events: int = 0
    dropped: int = 0
    overrun: int = 0
    incomplete: int = 0
    unwritten: int = 0
    files: int = 1
    removed_files: int = 0
    removed_events: int = 0
    functions: int = 0
    refused: int = 0
    stops_ns: list[int] = field(default_factory=list)
    why_ended: str = ""
    parked_bytes: int = 0
    foreign: tuple[int, ...] = ()
    unmatched: tuple[str, ...] = ()
    never_loaded: tuple[str, ...] = ()
    goes_on: bool = False

    @property
    def calls(self) -> int:
        """All calls that were made and seen: nothing is lost uncounted."""
        return self.events + self.dropped + self.overrun + self.incomplete + self.unwritten


def meta_of(session: Session, ops: Ops, ring: Geometry) -> TraceMeta:
    """The META of a trace file of this session."""
    try:
        exe = os.readlink(f"/proc/{session.pid}/exe")
    except OSError:
        exe = session.functions.modules[0].path if session.functions.modules else ""
    uname = platform.uname()
    return TraceMeta(
        clock=CLOCK_NAMES[ring.clock],
        record_bytes=ring.record_bytes,
        capacity=ring.capacity,
        nr_cpus=session.nr_cpus,
        stray_cpu=ring.stray_cpu,
        fentry_version=__version__,
        command_line=tuple(session.command.split()),
        pid=session.pid,
        exe=exe,
        host=uname.node,
        kernel=uname.release,
        filters=ops.filter,
        notrace=ops.notrace,
    )


class Recording:
    """Moves what a session records into a trace file.

    Use as a context manager; leaving it detaches, reads the rest and completes the file.
    `clock` are moments before: a trace that is cut off soon has a clock by them. None are sampled
    where records have no time.
    """

    def __init__(
        self,
        session: Session,
        ops: Ops,
        path: str,
        clock: Sequence[ClockPair] = (),
        storage: Storage = ONE_FILE,
    ) -> None:
        self.session = session
        self.summary = Summary()
        ring = session.ring
        self._overwrites = ring.mode != MODE_DISCARD
        self._has_parents = ring.record_bytes == RECORD24.itemsize
        self._files = TraceFiles(path, meta_of(session, ops, ring), storage)
        self._is_full = False
        # What the present file does not state: it was lost before it began.
        self._before = _no_losses(ring.nr_cpus)
        self._written = np.zeros(ring.nr_cpus, np.uint64)  # records in it, by CPU
        self._has_time = ring.clock == CLOCK_TSC
        self._clock = list(clock)
        self._last_pair: ClockPair | None = None
        self._tasks = TasksSeen(by_records=session.followed is not None)
        self._keys_written = 0
        self._next_chores = 0.0
        self._chores_s = _FIRST_CHORES_S
        self._pace = Pace()
        self._next_modules = 0.0
        self._ops = ops
        self._loading = Loading(session, ops)
        self._names: Iterator[None] | None = self._write_names(session.functions.modules, 0)
        self.summary.functions = len(self._loading.traced)
        self.summary.refused = int(ops.members.sum()) - len(self._loading.traced)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        problems = [leave(self.session, self.summary)]
        try:
            if not isinstance(error, TraceFileError):
                problems.append(attempt(self._write_rest))
            problems.append(attempt(self._count_unwritten))
            self._complete_summary()
        finally:
            problems.append(attempt(self._writer.close))
        first = next((problem for problem in problems if problem is not None), None)
        if error is None and first is not None:
            raise first

    @property
    def _writer(self) -> TraceWriter:
        return self._files.writer

    # 1. While it runs

    def run(self, until: float | None, stopped: Callable[[], str], wakeup: int = -1) -> None:
        """Record until CLOCK_MONOTONIC `until`, until `stopped()` names a reason, or the end.

        `wakeup` is a descriptor that becomes readable when `stopped` may have changed.
        """
        self._chores()
        while True:
            now = time.monotonic()
            if not self._overwrites and self._pace.is_due(self.session.fill, now):
                self._move()
            if now >= self._next_chores:
                self._chores()
            if now >= self._next_modules:
                self._follow_modules()
            self.session.follow_threads()
            self._follow_forks()
            self.summary.why_ended = self._why_end(until, now, stopped)
            if self.summary.why_ended:
                return
            if self._name_some():
                continue
            pause_s = LONGEST_LOOK_S if self._overwrites else self._pace.look_s
            if until is not None:
                pause_s = min(pause_s, max(0.0, until - now))
            waiting = [fd for fd in (*self.session.wakeups, wakeup) if fd >= 0]
            select.select(waiting, [], [], pause_s)

    def _why_end(self, until: float | None, now: float, stopped: Callable[[], str]) -> str:
        if reason := stopped():
            return reason
        if self._is_full:
            return "the file is as large as it may become"
        if until is not None and now >= until:
            return "time is up"
        return self.session.why_over()

    def _move(self) -> None:
        # It may be impossible to stop the target to see whether a record that is never completed
        # may be skipped: it has ended, or another controller has it. The next look will tell.
        with suppress(TargetGone, LockError, StopTimeout):
            for batch in self.session.consume():
                self._write_batch(batch)
            self._tasks.moved()
        self._pace.was_read()

    def _write_batch(self, batch: Batch) -> None:
        if self._is_full or not self._files.has_room(len(batch.records)):
            if not self._files.storage.rotates:
                self._is_full = True
                self.summary.unwritten += len(batch.records)
                return
            if self._written.any():
                self._rotate()
        records = np.ascontiguousarray(batch.records)
        self._writer.write_records(batch.cpu, batch.first, records.view(np.uint8).data)
        self._written[batch.cpu] += np.uint64(len(records))
        self._tasks.note(records["word"])

    def _rotate(self) -> None:
        # Between two batches: a record is in one file, and each loss is stated by one.
        while self._name_some():
            continue
        earlier = self._last_pair
        self._write_clock()
        self._name_unseen()
        stats = self.session.stats
        assert stats is not None
        self._write_losses(stats)
        self._files.rotate()
        self._before = stats
        self._written[:] = 0
        self._keys_written = 0
        # What is in the ring is older than this moment: its times are those of the file before.
        self._clock = [pair for pair in (earlier, self._last_pair) if pair is not None]
        self._write_clock()
        self._write_keys()
        self._writer.write_tasks(self._tasks.again())

    def _follow_forks(self) -> None:
        # Children record by themselves: here is only noted who they are.
        if self.session.followed is None:
            return
        self.session.follow_forks()
        for news in self.session.followed.take_news():
            self._writer.write_event(
                news.kind, news.at_ns, pid=news.pid, parent=news.parent, name=news.name
            )
            if news.kind == FORK and (fresh := self._tasks.look(news.pid)):
                self._writer.write_tasks(fresh)

    def _follow_modules(self) -> None:
        # What was loaded is traced from here on; the event says since when it may have run.
        self._next_modules = time.monotonic() + _MODULES_S
        loaded = self._loading.look()
        if loaded is None:
            return
        self.summary.functions += loaded.functions
        self.summary.refused += loaded.refused
        self._writer.write_event(
            "modules",
            time.monotonic_ns(),
            loaded=[module.path for module in loaded.modules],
            not_before_ns=loaded.not_before_ns,
            functions=loaded.functions,
        )
        self._names = chain(self._names or (), self._write_names(loaded.modules, loaded.first))

    def _chores(self) -> None:
        self._next_chores = time.monotonic() + self._chores_s
        self._chores_s = min(2 * self._chores_s, _CHORES_S)
        self._write_clock()
        self._write_keys()
        self._write_tasks()
        if (stats := self.session.stats) is not None:
            self._write_losses(stats)

    def _write_clock(self) -> None:
        if self._has_time:
            self._last_pair = ClockPair(*sample())
            self._writer.write_clock([*self._clock, self._last_pair])
            self._clock.clear()

    def _write_keys(self) -> None:
        keys, ips = self.session.keys()
        if len(keys) != self._keys_written:
            self._writer.write_sites(keys, ips)
            self._keys_written = len(keys)

    def _write_tasks(self) -> None:
        if fresh := self._tasks.look_at_all(processes_of(self.session)):
            self._writer.write_tasks(fresh)

    def _name_unseen(self) -> None:
        if unseen := self._tasks.unseen():
            self._writer.write_tasks(unseen)

    def _write_losses(self, stats: Stats) -> None:
        now, before = _losses_of(stats), _losses_of(self._before)
        rows = [self._written.tolist(), *(np.subtract(now, before).tolist())]
        self._writer.write_losses(
            [CpuLosses(cpu, *row) for cpu, row in enumerate(zip(*rows, strict=True))]
        )

    # 2. Names: a part between two looks at the ring, traced functions first

    def _name_some(self) -> bool:
        # Whether there may be more to name.
        if self._names is not None and next(self._names, self) is self:
            self._names = None
        return self._names is not None

    def _write_names(self, modules: Sequence[Module], first: int) -> Iterator[None]:
        # `first`: the number of the first of them in the file.
        self._writer.write_modules(
            [TraceModule(m.path, m.image.build_id, m.base, m.text_high) for m in modules]
        )
        for traced in (True, False) if self._has_parents else (True,):
            for number, module in enumerate(modules, first):
                ips = module.image.functions.rows["vaddr"] + np.uint64(module.bias % (1 << 64))
                rows = np.flatnonzero(np.isin(ips, self._loading.traced) == traced)
                for start in range(0, len(rows), _NAMES_AT_ONCE):
                    self._name(number, module, rows[start : start + _NAMES_AT_ONCE])
                    yield

    def _name(self, number: int, module: Module, rows: NDArray[np.intp]) -> None:
        functions = module.image.functions
        symbols = self.session.functions.symbols
        chosen = functions.rows[rows]
        self._writer.write_symbols(
            [
                Symbol(vaddr + module.bias, size, symbols.name_of(module, row), number, vaddr)
                for row, vaddr, size in zip(
                    rows.tolist(), chosen["vaddr"].tolist(), chosen["size"].tolist(), strict=True
                )
            ]
        )

    # 3. The end

    def _write_rest(self) -> None:
        damage: RegionError | None = None
        try:
            for batch in self.session.consume(final=not self.session.goes_on):
                self._write_batch(batch)
        except RegionError as error:  # of one CPU: the others have names all the same
            damage = error
        while self._name_some():
            continue
        self._chores()
        self._follow_forks()
        self._name_unseen()
        if self._is_full:
            self._writer.write_event(
                "full", time.monotonic_ns(), unwritten_records=self.summary.unwritten
            )
        for duration in self.session.target.stop_durations_ns:
            self._writer.write_event("stop", time.monotonic_ns(), duration_ns=duration)
        if damage is not None:
            raise damage

    def _count_unwritten(self) -> None:
        # What is left in the ring when the file could not take it.
        for batch in self.session.consume(final=not self.session.goes_on):
            self.summary.unwritten += len(batch.records)

    def _complete_summary(self) -> None:
        summary, files = self.summary, self._files
        summary.events = files.records_written
        summary.files = files.nr_files
        summary.removed_files = files.removed
        summary.removed_events = files.removed_records
        complete(summary, self.session, self._ops)


def _losses_of(stats: Stats) -> NDArray[np.uint64]:
    # Lost, by reason and CPU.
    return np.array([stats.dropped_events, stats.overrun, stats.incomplete])


def _no_losses(nr_cpus: int) -> Stats:
    zeros = np.zeros(nr_cpus, np.uint64)
    return Stats(zeros, zeros, zeros, zeros)


def leave(session: Session, summary: Summary) -> FentryError | None:
    """Detach at the end of a recording; what went wrong, with the remedy."""
    try:
        session.leave()
    except TargetGone:
        summary.why_ended = summary.why_ended or "the process ended"
    except FentryError as error:
        error.remedy = f"fentry detach -p {session.pid}: it is still traced"
        return error
    except OSError as error:  # whatever it is: what was recorded is written first
        return FentryError(f"cannot detach from {session.pid}: {error.strerror}")
    return None


def attempt(step: Callable[[], None]) -> FentryError | None:
    """Do one step of an end whose other steps follow; what went wrong."""
    try:
        step()
    except FentryError as error:
        return error
    return None


def complete(summary: Summary, session: Session, ops: Ops) -> None:
    """Note what a session that was left tells of its calls, its stops, and what was not found."""
    stats = session.stats
    if stats is not None:
        summary.dropped = int(stats.dropped_events.sum())
        summary.overrun = int(stats.overrun.sum())
        summary.incomplete = int(stats.incomplete.sum())
    summary.stops_ns = list(session.target.stop_durations_ns)
    summary.goes_on = session.goes_on
    summary.parked_bytes = session.parked_bytes
    summary.foreign = session.foreign
    summary.unmatched = tuple(session.unmatched_names(ops))
    summary.never_loaded = tuple(session.not_loaded(ops, ever=True))
