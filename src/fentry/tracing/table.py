"""Table: calls of traced functions as columns, with the names of functions and threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput
from fentry.events.columns import Addresses, Events, TimesNs
from fentry.formats.task_names import TaskNames
from fentry.tracing import frames
from fentry.tracing.counts import Counts
from fentry.tracing.frames import Numbers
from fentry.tracing.functions import Function, FunctionIds, chosen
from fentry.tracing.html import html_table

if TYPE_CHECKING:
    import pandas
    import pyarrow

Names = NDArray[np.object_]
Mask = NDArray[np.bool_]

COLUMNS = (
    "time_ns", "cpu", "tid", "comm", "function", "module", "ip", "parent", "parent_ip",
)  # fmt: skip
_AT_ONCE = 8192
_SHOWN = 5  # events at either end


class Event(NamedTuple):
    """One call. `time_ns` is CLOCK_MONOTONIC, what `time.monotonic_ns()` gives; `parent` is the
    function that called, `parent_ip` where it goes on: "" and 0 where records have no parent."""

    time_ns: int
    cpu: int
    tid: int
    comm: str
    function: str
    module: str
    ip: int
    parent: str
    parent_ip: int


class Lost(NamedTuple):
    """Calls that were made and are no events: `dropped` found the ring full, `overrun` were
    overwritten before they were read, `incomplete` left the trampoline by longjmp or death.

    It is true when anything was lost: `assert not trace.lost`.
    """

    dropped: int = 0
    overrun: int = 0
    incomplete: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.dropped + self.overrun + self.incomplete

    def __bool__(self) -> bool:
        return self.total > 0

    def plus(self, other: Lost) -> Lost:
        """Both."""
        return Lost(*(one + more for one, more in zip(self, other, strict=True)))

    def since(self, before: Lost) -> Lost:
        """What is in this and was not in `before`."""
        return Lost(*(one - less for one, less in zip(self, before, strict=True)))


NOTHING_LOST = Lost()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Table:
    """Calls in order of time, one element of every column for each:

    time_ns    int64[n], CLOCK_MONOTONIC; without `has_time` the number of records before on its CPU
    cpu        uint16[n]
    tid        uint32[n], as the target knows its threads
    ip         uint64[n], where the function begins in the target
    parent_ip  uint64[n], where the caller goes on, or None when records have no parent
    function, module, parent, comm    object[n] of str, made when asked for

    `function_id` and `parent_id` (int32[n]) are places in `functions`, and cost nothing. `lost`
    are calls that are missing here. `table["tid"]` is a column, `table[5]` an Event,
    `table[10:20]` and `table[table.tid == 7]` are tables; iterating gives Events.
    """

    events: Events
    functions: tuple[Function, ...]
    function_id: Numbers
    parent_id: Numbers | None
    tasks: TaskNames
    lost: Lost
    has_time: bool

    # 1. Columns

    @property
    def time_ns(self) -> TimesNs:
        """When each call was made."""
        return self.events.time_ns

    @property
    def cpu(self) -> NDArray[np.uint16]:
        """The CPU that each call was made on."""
        return self.events.cpu

    @property
    def tid(self) -> NDArray[np.uint32]:
        """The thread that made each call."""
        return self.events.tid

    @property
    def ip(self) -> Addresses:
        """Where each function begins."""
        return self.events.ip

    @property
    def parent_ip(self) -> Addresses | None:
        """Where each caller goes on."""
        return self.events.parent_ip

    @property
    def function(self) -> Names:
        """The name of each function."""
        return self._named([function.name for function in self.functions], self.function_id)

    @property
    def module(self) -> Names:
        """The file that each function is in."""
        return self._named([function.module for function in self.functions], self.function_id)

    @property
    def parent(self) -> Names:
        """The name of each caller, "" where records have no parent."""
        if self.parent_id is None:
            return np.full(len(self), "", np.object_)
        return self._named([function.name for function in self.functions], self.parent_id)

    @property
    def comm(self) -> Names:
        """The name of each thread at that time."""
        labels, ids = self.comm_labels()
        return self._named(labels, ids)

    def comm_labels(self) -> tuple[list[str], Numbers]:
        """The names of threads, and for each call the place of its own among them: int32[n]."""
        keys, ids = np.unique(self.tasks.keys(self.events), return_inverse=True)
        names = [self.tasks.unpack(key)[0].decode("utf-8", "replace") for key in keys.tolist()]
        return names, ids.astype(np.int32)

    @staticmethod
    def _named(labels: Sequence[str], ids: Numbers) -> Names:
        every = np.empty(len(labels), np.object_)
        every[:] = labels
        return np.asarray(every[ids], np.object_)

    # 2. As a sequence

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self[start : start + _AT_ONCE]._events()

    def _events(self) -> Iterator[Event]:
        parent_ip = self.parent_ip if self.parent_ip is not None else np.zeros(len(self), np.uint64)
        columns = (
            self.time_ns, self.cpu, self.tid, self.comm, self.function, self.module, self.ip,
            self.parent, parent_ip,
        )  # fmt: skip
        return map(Event._make, zip(*(column.tolist() for column in columns), strict=True))

    @overload
    def __getitem__(self, which: int) -> Event: ...
    @overload
    def __getitem__(self, which: slice | Mask | NDArray[np.intp]) -> Table: ...
    @overload
    def __getitem__(self, which: str) -> NDArray[np.generic]: ...

    def __getitem__(
        self, which: int | slice | Mask | NDArray[np.intp] | str
    ) -> Event | Table | NDArray[np.generic]:
        if isinstance(which, str):
            return self._column(which)
        if isinstance(which, int | np.integer):
            place = range(len(self))[which]  # IndexError, and from the end
            return next(self[place : place + 1]._events())
        return replace(
            self,
            events=self.events.take(which),
            function_id=self.function_id[which],
            parent_id=None if self.parent_id is None else self.parent_id[which],
        )

    def _column(self, name: str) -> NDArray[np.generic]:
        column = getattr(self, name) if name in COLUMNS else None
        if column is None:
            raise KeyError(name)
        return np.asarray(column)

    def filter(
        self,
        *functions: str,
        exclude: Sequence[str] | str = (),
        tid: int | None = None,
        comm: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Table:
        """The calls of `functions` but for `exclude`, words of filters ("libc!mem*"); of one
        thread; of threads of such a name, a glob; with since_ns <= time_ns < until_ns.

        Raises BadInput for malformed words, and for bounds where there are no times.
        """
        if not self.has_time and (since_ns, until_ns) != (None, None):
            raise BadInput("these records have no times", remedy='clock="tsc"')
        wanted = chosen(functions, self.functions)
        for word in words_of(exclude):
            wanted &= ~chosen([word], self.functions)
        mask = wanted[self.function_id]
        if tid is not None:
            mask &= self.tid == tid
        if comm is not None:
            names, ids = self.comm_labels()
            mask &= np.array([fnmatchcase(name, comm) for name in names], np.bool_)[ids]
        if since_ns is not None:
            mask &= self.time_ns >= since_ns
        if until_ns is not None:
            mask &= self.time_ns < until_ns
        return self[mask]

    def counts(self) -> Counts:
        """How often each function of the table was called."""
        calls = np.bincount(self.function_id, minlength=len(self.functions))
        called = np.flatnonzero(calls).tolist()
        return Counts([self.functions[i] for i in called], calls[called].tolist())

    # 3. For other tools

    def to_arrow(self) -> pyarrow.Table:
        """A pyarrow.Table of the columns in COLUMNS, names as dictionaries; without parents, if
        there are none. What was lost is in the schema's metadata.

        Needs pyarrow: pip install fentry[analysis]. Raises FentryError without it.
        """
        clock = "CLOCK_MONOTONIC" if self.has_time else "records before on the CPU"
        lost = {name: str(count) for name, count in self.lost._asdict().items()}
        return frames.to_arrow(self._columns(), {"clock": clock, **lost})

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas.DataFrame of the same columns, names as categories. What was lost is in
        `attrs`.

        Needs pandas: pip install fentry[analysis]. Raises FentryError without it.
        """
        return frames.to_pandas(self._columns(), self.lost._asdict())

    def _columns(self) -> frames.Columns:
        names = [function.name for function in self.functions]
        modules = [function.module for function in self.functions]
        columns: dict[str, NDArray[np.generic] | frames.Labels] = {
            "time_ns": self.time_ns,
            "cpu": self.cpu,
            "tid": self.tid,
            "comm": frames.distinct(*self.comm_labels()),
            "function": frames.distinct(names, self.function_id),
            "module": frames.distinct(modules, self.function_id),
            "ip": self.ip,
        }
        if self.parent_id is not None and self.parent_ip is not None:
            columns["parent"] = frames.distinct(names, self.parent_id)
            columns["parent_ip"] = self.parent_ip
        return columns

    # 4. To look at

    @property
    def _summary(self) -> str:
        parts = [f"{len(self)} events", f"{self.lost.total} lost"]
        if len(self):
            parts.append(f"{len(np.unique(self.function_id))} functions")
            parts.append(f"{len(np.unique(self.tid))} threads")
            if self.has_time:
                span_ns = int(self.time_ns.max()) - int(self.time_ns.min())
                parts.append(f"{span_ns / 1e9:.6f} s")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"<Table: {self._summary}>"

    def __str__(self) -> str:
        head = f"{'TIME':>15} {'CPU':>3} {'TID':>7} {'COMM':<15} FUNCTION"
        return "\n".join([self._summary, head, *map(self._line, self._ends())])

    def _line(self, event: Event | None) -> str:
        if event is None:
            return f"{'...':>15}"
        time = f"{event.time_ns / 1e9:.6f}" if self.has_time else str(event.time_ns)
        caller = f" <-{event.parent}" if event.parent else ""
        who = f"{event.cpu:>3} {event.tid:>7} {event.comm:<15}"
        return f"{time:>15} {who} {event.function}{caller}"

    def _ends(self) -> list[Event | None]:
        # The first and the last events, with None for what is between them.
        if len(self) <= 2 * _SHOWN + 1:
            return list(self)
        return [*self[:_SHOWN], None, *self[-_SHOWN:]]

    def _repr_html_(self) -> str:
        rows = [("...",) * len(COLUMNS) if event is None else event for event in self._ends()]
        return html_table(self._summary, COLUMNS, rows)


def make_table(
    events: Events,
    ids: FunctionIds,
    tasks: TaskNames,
    *,
    lost: Lost = NOTHING_LOST,
    has_time: bool = True,
) -> Table:
    """The table of some events; of the functions that `ids` knows it has those that it needs."""
    function = ids.of_ips(events.ip)
    parent = None if events.parent_ip is None else ids.of_returns(events.parent_ip)
    is_used = np.zeros(len(ids.functions), np.bool_)
    is_used[function] = True
    if parent is not None:
        is_used[parent] = True
    place = (np.cumsum(is_used) - 1).astype(np.int32)
    return Table(
        events=events,
        functions=tuple(ids.functions[i] for i in np.flatnonzero(is_used).tolist()),
        function_id=place[function],
        parent_id=None if parent is None else place[parent],
        tasks=tasks,
        lost=lost,
        has_time=has_time,
    )


def words_of(words: Sequence[str] | str) -> tuple[str, ...]:
    """One word, or several, as a tuple."""
    return (words,) if isinstance(words, str) else tuple(words)
