"""Events as rows of fixed size for the Common Trace Format, and the labels that stand for numbers.

A row is the header, the stream's context and the payload of an event (CTF 1.8.2, section 6), packed
to bytes (4.1.2) and little-endian.  Names are labels of enumerations (4.1.8): they stand in the
metadata, once.

    offset  size  name
    0       8     timestamp  CLOCK_MONOTONIC ns; without times the records of its CPU before it
    8       4     tid
    12      4     comm       value of the enumeration `comm`
    16      8     ip
    24      4     function   value of the enumeration `function`
    28      4     parent     value of the enumeration `parent`; from here on only with parents
    32      8     parent_ip
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events
from fentry.formats.exports import Source
from fentry.formats.id_cache import IdCache, Ids, Values
from fentry.formats.task_names import UNKNOWN, TaskNames

_ALONE = [
    ("timestamp", "<u8"),
    ("tid", "<u4"),
    ("comm", "<u4"),
    ("ip", "<u8"),
    ("function", "<u4"),
]
EVENT = np.dtype([*_ALONE, ("parent", "<u4"), ("parent_ip", "<u8")])
EVENT_ALONE = np.dtype(_ALONE)

NO_NAME = b"[unknown]"
"""The label of an address that lies in no known function."""

Rows = NDArray[np.void]


class Label(NamedTuple):
    """A name of an enumeration and the number that stands for it."""

    value: int
    name: bytes


Labels = Mapping[str, Sequence[Label]]


class EventRows:
    """Turns Events into rows, and remembers which labels they need."""

    def __init__(self, source: Source) -> None:
        self._has_parents = source.trace.meta.record_bytes == 24
        self._symbols = source.symbols
        names = source.symbols.names[: source.symbols.nr_symbols]
        self._functions, self._parents = _Functions(names), _Functions(names)
        self._comms = _Comms(source.tasks)

    def of(self, events: Events) -> Rows:
        """EVENT[n], or EVENT_ALONE[n] where records have no parents; times are not negative."""
        self._symbols.forget_unknown()
        rows = np.empty(len(events), EVENT if self._has_parents else EVENT_ALONE)
        rows["timestamp"] = np.maximum(events.time_ns, 0)
        rows["tid"] = events.tid
        rows["comm"] = self._comms.values(events)
        rows["ip"] = events.ip
        rows["function"] = self._functions.values(self._symbols.of_ips(events.ip))
        if self._has_parents:
            parents = events.parent_ip
            if parents is None:
                parents = np.zeros(len(events), np.uint64)
            rows["parent"] = self._parents.values(self._symbols.of_returns(parents))
            rows["parent_ip"] = parents
        return rows

    def labels(self) -> Labels:
        """What the rows so far need, by enumeration: one or more of each, as 4.1.8 asks for."""
        parents = {"parent": self._parents.labels()} if self._has_parents else {}
        return {
            "comm": self._comms.labels(), "function": self._functions.labels(), **parents,
        }  # fmt: skip


class _Functions:
    # Functions of equal names have one value: the ip tells them apart.

    def __init__(self, names: Iterable[bytes]) -> None:
        values = {NO_NAME: 0}
        numbers = [values.setdefault(name, len(values)) for name in names]
        self._names = list(values)
        self._value_of = np.array([*numbers, 0], np.uint32)  # ids beyond: addresses alone
        self._used = np.zeros(len(values), np.bool_)
        self._used[0] = True

    def values(self, ids: Ids) -> NDArray[np.uint32]:
        values = self._value_of[np.minimum(ids, len(self._value_of) - 1)]
        self._used[values] = True
        return values

    def labels(self) -> list[Label]:
        return [Label(value, self._names[value]) for value in np.flatnonzero(self._used).tolist()]


class _Comms:
    def __init__(self, tasks: TaskNames) -> None:
        self._tasks = tasks
        self._value_of = {UNKNOWN: 0}
        self._cache = IdCache(self._search)

    def values(self, events: Events) -> Ids:
        return self._cache.of(self._tasks.keys(events))

    def labels(self) -> list[Label]:
        return [Label(value, name) for name, value in self._value_of.items()]

    def _search(self, keys: Values) -> Ids:
        comms = [self._tasks.unpack(key)[0] for key in keys.tolist()]
        return np.array(
            [self._value_of.setdefault(comm, len(self._value_of)) for comm in comms], np.intp
        )
