"""TraceFile: what `fentry record` wrote, asked as a live trace is."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Literal, Self, overload

import numpy as np

from fentry.errors import BadInput
from fentry.events.columns import Addresses, Events, concatenate
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.task_names import TaskNames
from fentry.formats.tracefile import Damage, TraceMeta, TraceReader
from fentry.symbols.demangle import demangle_all
from fentry.symbols.patterns import parse
from fentry.tracing.counts import Counts
from fentry.tracing.functions import Function, FunctionIds
from fentry.tracing.stream import Stream, unfold_events, unfold_table
from fentry.tracing.table import NOTHING_LOST, Event, Lost, Table, make_table, words_of
from fentry.tracing.trace import MOST_EVENTS

_MOST_NAMES = 1 << 20  # of a stream; then those that were met are forgotten


class TraceFile:
    """An open trace file; a context manager. What a live Trace tells this tells as well.

        with fentry.open("trace.fentry") as trace:
            print(trace.counts())
            table = trace.table("libc!mem*")
            for event in trace.stream(): ...

    Nothing is read before it is asked for, and counts() and stream() read a part at a time:
    memory is bounded whatever the size of the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._trace = TraceReader(path)
        self._symbols = SymbolNames.of_trace(self._trace)
        self._tasks = TaskNames(self._trace.tasks)
        self._ids = FunctionIds(self._containing)

    @property
    def meta(self) -> TraceMeta:
        """What was traced: pid, exe, command_line, filters, clock and more."""
        return self._trace.meta

    @property
    def damage(self) -> list[Damage]:
        """What of the file is not whole, and is left out. Found, in part, while it is read."""
        return self._trace.damage

    @property
    def lost(self) -> Lost:
        """Calls that were made and are no events."""
        losses = self._trace.losses
        return Lost(
            sum(cpu.dropped_events for cpu in losses),
            sum(cpu.overrun for cpu in losses),
            sum(cpu.incomplete for cpu in losses),
        )

    def __len__(self) -> int:
        """Calls that were recorded."""
        return self._trace.records

    @property
    def calls(self) -> int:
        """Calls that were made: events and lost ones."""
        return len(self) + self.lost.total

    def table(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
        max_events: int = MOST_EVENTS,
    ) -> Table:
        """The calls of `functions` but for `exclude`, words of filters; since_ns <= time_ns <
        until_ns of CLOCK_MONOTONIC; in order of time.

        Raises SymbolNotFound with near names, BadInput when there are more than `max_events`, or
        for times where records have none.
        """
        every: list[Events] = []
        count = 0
        for table in self._tables(functions, exclude, since_ns, until_ns, in_time=False):
            every.append(table.events)
            count += len(table)
            if count > max_events:
                raise BadInput(
                    f"more than {max_events} events would be one table",
                    cause="tables are in memory",
                    remedy="stream(batches=True), fewer functions, a part of the time, max_events",
                )
        events = concatenate(every)
        if self._trace.has_time:
            events = events.sorted_by_time()
        return self._table_of(events, self.lost)

    def counts(self) -> Counts:
        """How often each function was called that was traced."""
        calls: dict[Function, int] = dict.fromkeys(self._containing(self._trace.site_ips), 0)
        for events in self._trace.batches():
            ids = self._ids.of_ips(events.ip)
            totals = np.bincount(ids)
            for number in np.flatnonzero(totals).tolist():
                function = self._ids.functions[number]
                calls[function] = calls.get(function, 0) + int(totals[number])
        return Counts(list(calls), list(calls.values()))

    @overload
    def stream(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
        batches: Literal[False] = False,
    ) -> Stream[Event]: ...
    @overload
    def stream(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
        batches: Literal[True],
    ) -> Stream[Table]: ...

    def stream(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
        batches: bool = False,
    ) -> Stream[Event] | Stream[Table]:
        """The calls that table() would have, one after the other or a table at a time."""
        tables = self._told(self._tables(functions, exclude, since_ns, until_ns, in_time=True))
        return Stream(tables, unfold_table) if batches else Stream(tables, unfold_events)

    def close(self) -> None:
        """Unmap the file; tables that were made stay valid."""
        self._trace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        whose = f"{self.meta.exe or 'a process'}, pid {self.meta.pid}"
        events = f"{len(self)} events, {self.lost.total} lost"
        return f"<TraceFile {str(self._trace.path)!r}: {whose}, {events}>"

    def _told(self, tables: Iterable[Table]) -> Generator[Table, None, str]:
        # The last table, which may be empty, tells what was lost.
        yield from tables
        yield self._table_of(concatenate([]), self.lost)
        return "the trace is over"

    def _tables(
        self,
        functions: Sequence[str],
        exclude: Sequence[str] | str,
        since_ns: int | None,
        until_ns: int | None,
        *,
        in_time: bool,
    ) -> Iterator[Table]:
        for word in (*functions, *words_of(exclude)):
            parse(word)
        for word in functions:
            self._symbols.require(word)
        read = self._trace.merged if in_time else self._trace.batches
        for events in read(start_ns=since_ns, end_ns=until_ns):
            if len(self._ids.functions) > _MOST_NAMES:
                self._ids = FunctionIds(self._containing)
            table = self._table_of(events, NOTHING_LOST)
            yield table.filter(*functions, exclude=exclude) if functions or exclude else table

    def _table_of(self, events: Events, lost: Lost) -> Table:
        has_time = self._trace.has_time
        return make_table(events, self._ids, self._tasks, lost=lost, has_time=has_time)

    def _containing(self, addresses: Addresses) -> list[Function]:
        symbols = self._symbols
        symbols.forget_unknown()
        ids = symbols.of_ips(addresses).tolist()
        names = demangle_all(symbols.names[one].decode("utf-8", "replace") for one in ids)
        ips = [
            int(symbols.starts[one]) if one < symbols.nr_symbols else address
            for one, address in zip(ids, addresses.tolist(), strict=True)
        ]
        files = [symbols.modules[one].rpartition(b"/")[2].decode("utf-8", "replace") for one in ids]
        return [Function(*parts) for parts in zip(names, files, ips, strict=True)]


def open(path: str | os.PathLike[str]) -> TraceFile:
    """A trace file that `fentry record` wrote, or writes. Raises TraceFileError when nothing of it
    can be read."""
    return TraceFile(path)
