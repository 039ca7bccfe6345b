"""Function events as columns: what the ring's records become once clock and sites are known.

Not the records themselves (fentry.ring.layout) and not text (fentry.formats.text).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TimesNs = NDArray[np.int64]
Addresses = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Calls of traced functions, one element of every column for each call.

    time_ns    int64[n], CLOCK_MONOTONIC; with the per-CPU counter for a clock the number of records
               before on the same CPU
    cpu        uint16[n], the CPU whose ring held the record
    tid        uint32[n], thread id in the target's pid namespace as the writer saw it
    ip         uint64[n], function entry in the target; 0 where the site key is not known
    parent_ip  uint64[n], return address in the target, or None when records have no parent
    key        uint32[n], site key
    """

    time_ns: TimesNs
    cpu: NDArray[np.uint16]
    tid: NDArray[np.uint32]
    ip: Addresses
    parent_ip: Addresses | None
    key: NDArray[np.uint32]

    def __post_init__(self) -> None:
        length = len(self.time_ns)
        for column in (self.cpu, self.tid, self.ip, self.parent_ip, self.key):
            if column is not None and len(column) != length:
                raise ValueError(f"columns differ in length: {len(column)} and {length}")

    def __len__(self) -> int:
        return len(self.time_ns)

    def take(self, which: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Events:
        """The events of a slice, a mask or an index array, in that order."""
        return Events(
            time_ns=self.time_ns[which],
            cpu=self.cpu[which],
            tid=self.tid[which],
            ip=self.ip[which],
            parent_ip=None if self.parent_ip is None else self.parent_ip[which],
            key=self.key[which],
        )

    def sorted_by_time(self) -> Events:
        """These events by time; events of equal time keep their order."""
        if len(self) < 2 or bool(np.all(self.time_ns[1:] >= self.time_ns[:-1])):
            return self
        return self.take(np.argsort(self.time_ns, kind="stable"))


def no_events() -> Events:
    """Columns of length 0."""
    return Events(
        time_ns=np.empty(0, np.int64),
        cpu=np.empty(0, np.uint16),
        tid=np.empty(0, np.uint32),
        ip=np.empty(0, np.uint64),
        parent_ip=None,
        key=np.empty(0, np.uint32),
    )


def concatenate(parts: Sequence[Events]) -> Events:
    """All parts, one after the other.

    Where only some parts have parents the others get parent_ip 0, which is no return address.
    """
    parts = [part for part in parts if len(part)]
    if not parts:
        return no_events()
    if len(parts) == 1:
        return parts[0]
    return Events(
        time_ns=np.concatenate([part.time_ns for part in parts]),
        cpu=np.concatenate([part.cpu for part in parts]),
        tid=np.concatenate([part.tid for part in parts]),
        ip=np.concatenate([part.ip for part in parts]),
        parent_ip=_parents(parts),
        key=np.concatenate([part.key for part in parts]),
    )


def _parents(parts: Sequence[Events]) -> Addresses | None:
    if all(part.parent_ip is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(len(p), np.uint64) if p.parent_ip is None else p.parent_ip for p in parts]
    )
