"""Trace: the calls of some functions of a live process, from entering a block to leaving it."""

from __future__ import annotations

import select
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self, overload

import numpy as np

from fentry.dispatch.ops import Ops
from fentry.errors import BadInput, FentryError, LockError, PatchError, StopTimeout, TargetGone
from fentry.events.columns import Addresses, Events
from fentry.instance import Instance
from fentry.ring.clock import check_clock
from fentry.ring.layout import CLOCK_NAMES, CLOCK_TSC
from fentry.session import Options, Session
from fentry.tracing.blocks import Part
from fentry.tracing.counts import Counts
from fentry.tracing.decoding import Sites, decode
from fentry.tracing.functions import Function, FunctionIds
from fentry.tracing.live import (
    follow,
    functions_containing,
    is_over,
    let_go,
    traced_functions,
    wait,
)
from fentry.tracing.ordering import Ordering
from fentry.tracing.reading import Reading
from fentry.tracing.stream import Stream, unfold_events, unfold_table
from fentry.tracing.table import Event, Lost, Table, make_table

MOST_EVENTS = 10_000_000
"""Records kept in memory unless a trace is told otherwise: 240 MB of them."""

_LOOK_S = 0.01  # how often a stream looks
_SITES_S = 0.1  # how often it asks for all functions that may have been called
_GIVE_BACK_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05


class Trace:
    """Made by Session.trace(); traces while its block runs, and leaving the block restores.

        with session.trace("libc!mem*", exclude="*_avx*") as trace:
            ...
        trace.table()       # numpy columns; to_pandas(), to_arrow()
        trace.counts()      # function -> calls
        assert not trace.lost

    Everything may be asked while it runs as well. It has a ring of its own, which a thread of this
    process empties meanwhile: that thread only reads shared memory. Whatever stops the target (the
    beginning, the end, a library that was loaded) is done by the thread that calls. So functions
    of libraries that are loaded later are traced from the next call of anything here on, or
    throughout `trace.wait(seconds)`.

    Once `max_events` are kept the ring is not emptied any more: when it is full, further calls are
    counted as dropped. In any case: calls = events + lost.
    """

    def __init__(self, session: Session, ops: Ops, options: Options, max_events: int) -> None:
        self.session = session
        self.ops = ops
        self.max_events = max_events
        self._options = options
        self._instance: Instance | None = None
        self._reading: Reading | None = None
        self._is_running = False
        self._traced: list[Function] = []
        self._sites: Sites | None = None
        self._sites_at = 0.0
        self._table: Table | None = None
        self._ids: FunctionIds | None = None
        self._ids_of: object = None

    # 1. Beginning and end

    def start(self) -> Self:
        """Trace from now on; what entering the block does. Raises BadInput if it did already, and
        as Session.register(); then nothing changed."""
        if self._reading is not None:
            raise BadInput("this trace has been started already", remedy="session.trace() again")
        if self._options.clock == CLOCK_NAMES[CLOCK_TSC]:
            check_clock()
        instance = self.session.instance(f"trace {time.monotonic_ns():x}", self._options)
        try:
            instance.register(self.ops)
            self._reading = Reading(instance, self.session.pid, self.max_events)
            self._reading.start()
        except BaseException:
            with suppress(FentryError):
                self.session.remove_instance(instance)
            self._reading = None
            raise
        self._instance = instance
        self._is_running = True
        return self

    def stop(self) -> None:
        """Restore what only this trace needed, and read the rest; what leaving the block does.

        Safe to call again. Raises as Session.unregister(); then it goes on, and it may be tried
        again.
        """
        if not self._is_running:
            return
        reading = self._begun
        self._traced = self._functions()
        nobody_writes = self._restore()
        self._is_running = False
        self._sites = Sites(*self.session.keys())
        reading.stop()
        try:
            reading.drain(final=nobody_writes)
        finally:
            reading.look_around()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except FentryError as problem:
            if error is None:
                raise
            error.add_note(f"fentry: {problem}")

    def wait(self, seconds: float | None = None) -> str:
        """Let the target run for so long, or until it ends; why it is over, in words.

        time.sleep() does as well, but for libraries that are loaded, and threads of filters.
        """
        return wait(self.session, seconds)

    @property
    def is_running(self) -> bool:
        """Whether its functions are traced now."""
        return self._is_running

    @property
    def has_ended(self) -> bool:
        """Whether it ran and runs no more."""
        return self._reading is not None and not self._is_running

    def _restore(self) -> bool:
        # Whether nobody is left who may record: of a target that is gone nothing is restored.
        session, instance = self.session, self._instance
        assert instance is not None
        try:
            if session.ops.get(self.ops.id) is self.ops:
                session.unregister(self.ops)
        except FentryError as error:
            if not isinstance(error, TargetGone) and not is_over(session):
                raise
        return self._give_back(instance)

    def _give_back(self, instance: Instance) -> bool:
        # Once no thread is in its trampolines: then the ring holds all there will ever be. What
        # cannot be given back is unmapped when the session leaves.
        deadline, pause_s = time.monotonic() + _GIVE_BACK_S, _FIRST_PAUSE_S
        while not is_over(self.session):
            if self.session.instances.get(instance.number) is not instance:
                return True  # it had been when somebody interrupted the last time
            try:
                self.session.remove_instance(instance)
                return True
            except TargetGone:
                return True
            except (PatchError, LockError, StopTimeout):
                if time.monotonic() > deadline:
                    return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return True

    # 2. What it has seen

    def table(self) -> Table:
        """All calls up to now, in order of time."""
        reading = self._look()
        if self._table is not None:
            return self._table
        lost = reading.lost
        table = self._table_of(self._decoded(reading.blocks.parts()), lost)
        if not self._is_running:
            self._table = table
        return table

    def counts(self) -> Counts:
        """How often each function was called, of those that are events."""
        reading = self._look()
        ips, calls = self._sites_now().calls(reading.blocks.parts())
        functions = dict.fromkeys(self._traced if not self._is_running else self._functions(), 0)
        known = {function.ip: function for function in functions}
        missing = [ip for ip in ips.tolist() if ip not in known]
        found = self._containing(np.array(missing, np.uint64))
        known.update(zip(missing, found, strict=True))
        for ip, count in zip(ips.tolist(), calls.tolist(), strict=True):
            functions[known[ip]] = functions.get(known[ip], 0) + count
        return Counts(list(functions), list(functions.values()))

    def __len__(self) -> int:
        """Calls recorded up to now."""
        if self._is_running:
            self._begun.drain()
        return self._begun.blocks.count

    @property
    def lost(self) -> Lost:
        """Calls that were made and are no events."""
        return self._begun.lost

    @property
    def calls(self) -> int:
        """Calls that were made: events and lost ones."""
        return len(self) + self.lost.total

    @overload
    def stream(
        self, duration: float | None = None, *, batches: Literal[False] = False
    ) -> Stream[Event]: ...
    @overload
    def stream(self, duration: float | None = None, *, batches: Literal[True]) -> Stream[Table]: ...

    def stream(
        self, duration: float | None = None, *, batches: bool = False
    ) -> Stream[Event] | Stream[Table]:
        """The calls from its beginning on, as they happen, in order of time: events, or tables.
        Ends after `duration` seconds, with the trace, or with the target."""
        tables = self.tables(duration)
        return Stream(tables, unfold_table) if batches else Stream(tables, unfold_events)

    def tables(
        self, duration: float | None = None, *, keep: bool = True
    ) -> Generator[Table, None, str]:
        """What stream() is made of: tables, one after the other, and why there are no more.

        Unless `keep`, calls are forgotten once they were given, and the end is the trace's."""
        let_go(self.session)
        reading, until = self._begun, None if duration is None else time.monotonic() + duration
        order, sent, told = Ordering(in_time=reading.has_time), dict[int, int](), Lost()
        while True:
            now_ns = time.monotonic_ns()
            why = self._why_over(until)
            if why and not keep:
                self.stop()
            self._look()
            if why and self._is_running and is_over(self.session):
                reading.drain(final=True)  # nobody is left who would complete a record
            parts = reading.blocks.parts(sent)
            for part in parts:
                sent[part.cpu] = sent.get(part.cpu, 0) + len(part.records)
            order.add(self._newly_decoded(parts))
            events = order.take() if why else order.take_before(now_ns, reading.awaited_cpus)
            lost = reading.lost
            if len(events) or lost != told:
                yield self._table_of(events, lost.since(told))
                told = lost
            if not keep:
                reading.forget(sent)
            if why:
                return why
            pause_s = _LOOK_S if until is None else min(_LOOK_S, max(0.0, until - time.monotonic()))
            select.select(self.session.wakeups, [], [], pause_s)

    def __repr__(self) -> str:
        reading = self._reading
        if reading is None:
            return f"<Trace of {self.ops.text!r}: not started>"
        state = "running" if self._is_running else "over"
        full = ", full" if reading.is_full else ""
        events = f"{reading.blocks.count} events{full}, {reading.lost.total} lost"
        return f"<Trace of {self.ops.text!r}: {state}, {events}>"

    def _repr_html_(self) -> str:
        return "" if self._reading is None else self.counts()._repr_html_()

    # 3. How

    @property
    def _begun(self) -> Reading:
        if self._reading is None:
            raise BadInput("this trace has not been started", remedy="with session.trace(...)")
        return self._reading

    def _look(self) -> Reading:
        # What is there now is in the blocks, and a moment of the clock comes after it.
        reading = self._begun
        if self._is_running:
            follow(self.session)
            reading.settle()
            reading.drain()
            reading.mark()
        return reading

    def _why_over(self, until: float | None) -> str:
        if not self._is_running:
            return "the trace is over"
        if why := self.session.why_over():
            return why
        return "time is up" if until is not None and time.monotonic() >= until else ""

    def _functions(self) -> list[Function]:
        return traced_functions(self.session, self.ops)

    def _sites_now(self, oldest_s: float = 0.0) -> Sites:
        # Of many functions this takes milliseconds: a stream looks every so often.
        now = time.monotonic()
        if self._sites is None or (self._is_running and now - self._sites_at >= oldest_s):
            self._sites, self._sites_at = Sites(*self.session.keys()), now
        return self._sites

    def _decoded(self, parts: Sequence[Part]) -> Events:
        reading = self._begun
        capacity = reading.instance.geometry.capacity
        events = decode(parts, self._sites_now(), reading.clock(), capacity)
        return events.sorted_by_time() if reading.has_time else events

    def _newly_decoded(self, parts: Sequence[Part]) -> Events:
        # The same for parts that have come since a stream looked last.
        reading = self._begun
        clock, capacity = reading.clock(latest=True), reading.instance.geometry.capacity
        events = decode(parts, self._sites_now(_SITES_S), clock, capacity)
        if not events.ip.all():  # of a function that is traced since
            events = decode(parts, self._sites_now(), clock, capacity)
        return events

    def _table_of(self, events: Events, lost: Lost) -> Table:
        reading = self._begun
        return make_table(
            events, self._ids_now(), reading.tasks, lost=lost, has_time=reading.has_time
        )

    def _containing(self, addresses: Addresses) -> list[Function]:
        return functions_containing(self.session, addresses)

    def _ids_now(self) -> FunctionIds:
        # Names are of what is loaded: others once something else is.
        if self._ids is None or self._ids_of is not self.session.functions:
            self._ids, self._ids_of = FunctionIds(self._containing), self.session.functions
        return self._ids
