"""Events and losses in order of time while they are still coming in.

The CPUs are read one after the other, so a call on one may be read before an earlier one on
another: events stay here until they are so old that nothing before them can come.  What comes later
than that is given out late and counted, never dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fentry.events.columns import Events, concatenate


@dataclass(frozen=True, slots=True)
class Lost:
    """`count` calls of a CPU that are not in the ring; at `time_ns`, CLOCK_MONOTONIC, or later."""

    cpu: int
    count: int
    time_ns: int


class Stream(Protocol):
    """Takes events as they are read, and gives them out in the order in which they are shown."""

    late: int

    def __len__(self) -> int:
        """Events that are still here."""
        ...

    def add(self, events: Events) -> None:
        """Take these too."""
        ...

    def add_lost(self, lost: Lost) -> None:
        """Take note of a loss, after the last event of its CPU before it."""
        ...

    def release(self, until_ns: int | None) -> list[Events | Lost]:
        """Give out what lies up to this time; None for all."""
        ...


class TimedStream:
    """In order of time across CPUs; a loss stands behind events of its time.

    late  events that came after a later one had been given out
    """

    def __init__(self) -> None:
        self.late = 0
        self._parts: list[Events] = []
        self._losses: list[Lost] = []
        self._newest_ns = int(np.iinfo(np.int64).min)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, events: Events) -> None:
        """Take these too."""
        if len(events):
            self._parts.append(events)

    def add_lost(self, lost: Lost) -> None:
        """Take note of a loss."""
        self._losses.append(lost)

    def release(self, until_ns: int | None) -> list[Events | Lost]:
        """Give out what lies up to CLOCK_MONOTONIC `until_ns`; None for all."""
        until_ns = int(np.iinfo(np.int64).max) if until_ns is None else until_ns
        events = concatenate(self._parts).sorted_by_time()
        count = int(np.searchsorted(events.time_ns, until_ns, "right"))
        self._parts = [events.take(slice(count, None))] if count < len(events) else []
        self._losses.sort(key=lambda lost: lost.time_ns)
        due = [lost for lost in self._losses if lost.time_ns <= until_ns]
        del self._losses[: len(due)]
        return list(self._mixed(events.take(slice(0, count)), due))

    def _mixed(self, events: Events, losses: list[Lost]) -> Iterator[Events | Lost]:
        if len(events):
            self.late += int(np.searchsorted(events.time_ns, self._newest_ns, "left"))
            self._newest_ns = max(self._newest_ns, int(events.time_ns[-1]))
        start = 0
        for lost in losses:
            end = int(np.searchsorted(events.time_ns, lost.time_ns, "right"))
            if end > start:
                yield events.take(slice(start, end))
                start = end
            yield lost
        if start < len(events):
            yield events.take(slice(start, None))


class UntimedStream:
    """As they come: where records have no time there is no order across CPUs."""

    def __init__(self) -> None:
        self.late = 0
        self._parts: list[Events | Lost] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts if isinstance(part, Events))

    def add(self, events: Events) -> None:
        """Take these too."""
        if len(events):
            self._parts.append(events)

    def add_lost(self, lost: Lost) -> None:
        """Take note of a loss."""
        self._parts.append(lost)

    def release(self, until_ns: int | None) -> list[Events | Lost]:
        """Give out all, whatever the time."""
        parts, self._parts = self._parts, []
        return parts
