"""Recording a session into a trace file until something ends it."""

from __future__ import annotations

import os
import platform
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from fentry import __version__
from fentry.dispatch.ops import Ops
from fentry.errors import FentryError, TargetGone
from fentry.events.clock import ClockPair
from fentry.formats.tracefile import CpuLosses, Symbol, Task, TraceMeta, TraceWriter
from fentry.formats.tracefile import Module as TraceModule
from fentry.process.proc import list_tids, thread_name
from fentry.ring.clock import sample
from fentry.session import Options, Session

_BUSY_FILL = 0.10
_SHORT_S = 0.002
_LONG_S = 0.02
_HOUSEKEEPING_S = 0.5


@dataclass(slots=True)
class Summary:
    """What a recording came to; times in ns."""

    events: int = 0
    dropped: int = 0
    overrun: int = 0
    incomplete: int = 0
    functions: int = 0
    refused: int = 0
    stops_ns: list[int] = field(default_factory=list)
    why_ended: str = ""
    parked_bytes: int = 0

    @property
    def calls(self) -> int:
        """All calls that were made and seen: nothing is lost uncounted."""
        return self.events + self.dropped + self.overrun + self.incomplete


def meta_of(session: Session, ops: Ops, options: Options, capacity: int) -> TraceMeta:
    """The META of a trace file of this session."""
    try:
        exe = os.readlink(f"/proc/{session.pid}/exe")
    except OSError:
        exe = session.functions.modules[0].path if session.functions.modules else ""
    uname = platform.uname()
    return TraceMeta(
        record_bytes=options.record_bytes,
        capacity=capacity,
        nr_cpus=session.nr_cpus,
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
    """

    def __init__(self, session: Session, ops: Ops, path: str, options: Options) -> None:
        self.session = session
        self.summary = Summary()
        self._overwrites = options.mode != 0
        capacity = session.ring_capacity
        self._writer = TraceWriter(path, meta_of(session, ops, options, capacity))
        self._pidfd = session.pidfd
        self._seen: set[tuple[int, str]] = set()
        self._keys_written = 0
        self._next_chores = 0.0
        table = session.functions.table
        chosen = ops.members
        self.summary.functions = int((chosen & table.traceable).sum())
        self.summary.refused = int((chosen & ~table.traceable).sum())

    def __enter__(self) -> Recording:
        self._write_names()
        self._chores()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._finish()
        finally:
            self._writer.close()

    def run(self, until: float | None, stopped: Callable[[], str], wakeup: int = -1) -> None:
        """Record until CLOCK_MONOTONIC `until`, until `stopped()` names a reason, or the end.

        `wakeup` is a descriptor that becomes readable when `stopped` may have changed.
        """
        waiting = [fd for fd in (self._pidfd, wakeup) if fd >= 0]
        while True:
            moved = 0 if self._overwrites else self._move()
            now = time.monotonic()
            if now >= self._next_chores:
                self._chores()
            self.summary.why_ended = self._why_end(until, now, stopped)
            if self.summary.why_ended:
                return
            if not self._overwrites and self.session.fill > _BUSY_FILL:
                continue
            pause_s = _SHORT_S if moved else _LONG_S
            if until is not None:
                pause_s = min(pause_s, max(0.0, until - now))
            select.select(waiting, [], [], pause_s)

    def _why_end(self, until: float | None, now: float, stopped: Callable[[], str]) -> str:
        if reason := stopped():
            return reason
        if until is not None and now >= until:
            return "time is up"
        if select.select([self._pidfd], [], [], 0)[0]:
            return "the process ended"
        if not self.session.target.is_alive():
            return "the process replaced itself by exec"
        if self.session.was_detached():
            return "another controller detached it"
        return ""

    def _move(self, *, final: bool = False) -> int:
        count = 0
        for batch in self.session.consume(final=final):
            records = np.ascontiguousarray(batch.records)
            self._writer.write_records(batch.cpu, batch.first, records.view(np.uint8).data)
            count += len(records)
        return count

    def _chores(self) -> None:
        self._next_chores = time.monotonic() + _HOUSEKEEPING_S
        self._writer.write_clock([ClockPair(*sample())])
        self._write_keys()
        self._write_tasks()
        self._write_losses()

    def _write_keys(self) -> None:
        keys, ips = self.session.keys()
        if len(keys) != self._keys_written:
            self._writer.write_sites(keys, ips)
            self._keys_written = len(keys)

    def _write_tasks(self) -> None:
        now = time.monotonic_ns()
        fresh = []
        for tid in list_tids(self.session.pid):
            name = thread_name(self.session.pid, tid)
            if name and (tid, name) not in self._seen:
                self._seen.add((tid, name))
                fresh.append(Task(tid, name.encode(), now))
        if fresh:
            self._writer.write_tasks(fresh)

    def _write_losses(self) -> None:
        stats = self.session.stats
        if stats is None:
            return
        columns = (stats.recorded, stats.dropped_events, stats.overrun, stats.incomplete)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        self._writer.write_losses([CpuLosses(cpu, *row) for cpu, row in enumerate(rows)])

    def _write_names(self) -> None:
        modules = self.session.functions.modules
        self._writer.write_modules(
            [TraceModule(m.path, m.image.build_id, m.base, m.text_high) for m in modules]
        )
        symbols: list[Symbol] = []
        for number, module in enumerate(modules):
            functions = module.image.functions
            rows = zip(
                functions.rows["vaddr"].tolist(), functions.rows["size"].tolist(),
                functions.names, strict=True,
            )  # fmt: skip
            symbols += [
                Symbol(vaddr + module.bias, size, name, number, vaddr) for vaddr, size, name in rows
            ]
        symbols.sort()
        self._writer.write_symbols(symbols)

    def _finish(self) -> None:
        problem: FentryError | None = None
        try:
            self.session.detach()
        except TargetGone:
            self.summary.why_ended = self.summary.why_ended or "the process ended"
        except FentryError as error:
            problem = error
        self._move(final=True)
        self._chores()
        summary, stats = self.summary, self.session.stats
        if stats is not None:
            summary.events = int(stats.recorded.sum())
            summary.dropped = int(stats.dropped_events.sum())
            summary.overrun = int(stats.overrun.sum())
            summary.incomplete = int(stats.incomplete.sum())
        summary.stops_ns = list(self.session.target.stop_durations_ns)
        summary.parked_bytes = self.session.parked_bytes
        for duration in summary.stops_ns:
            self._writer.write_event("stop", time.monotonic_ns(), duration_ns=duration)
        if problem is not None:
            raise problem


def final_line(summary: Summary, path: str) -> str:
    """The one line a recording ends with: events, drops, time stopped, next command."""
    stops = summary.stops_ns
    return (
        f"{summary.events} events, {summary.dropped} dropped"
        + (f", {summary.overrun} overwritten" if summary.overrun else "")
        + (f", {summary.incomplete} incomplete" if summary.incomplete else "")
        + f"; {summary.functions} functions traced, {summary.refused} refused"
        + f"; {len(stops)} stops, {sum(stops) / 1e6:.1f} ms"
        + f", longest {max(stops, default=0) / 1e6:.1f} ms"
        + (f"; {summary.why_ended}" if summary.why_ended else "")
        + f"\nnext: fentry report -i {path}"
    )


def patterns(values: Sequence[str]) -> tuple[str, ...]:
    """Patterns from options: each value may hold several, separated by commas."""
    return tuple(part for value in values for part in value.split(",") if part)
