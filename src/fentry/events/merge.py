"""Merging per-CPU streams of events into one stream in order of time, in bounded memory.

A CPU's records are almost in order: a thread can be preempted between reading the clock and
reserving its place.  So each stream is sorted over a window: its newest `hold_back` events stay
until later ones have been seen.  An event displaced by more than that comes out late and is
counted, never dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fentry.events.columns import Events, concatenate, no_events

HOLD_BACK = 32768
"""Events of a CPU kept for sorting: 3 ms at ten million calls a second on one CPU."""


class Merge:
    """Iterates over Events in order of time across `streams`; equal times keep stream order.

    late  events that came out after a later one, because they were displaced by more than
          `hold_back` records in their stream
    """

    def __init__(self, streams: Sequence[Iterator[Events]], *, hold_back: int = HOLD_BACK) -> None:
        self.late = 0
        self._streams = [_Stream(stream, hold_back) for stream in streams]
        self._newest_ns = np.iinfo(np.int64).min

    def __iter__(self) -> Iterator[Events]:
        while True:
            for stream in self._streams:
                stream.fill()
            bounds = [bound for s in self._streams if (bound := s.bound_ns()) is not None]
            safe_ns = min(bounds, default=None)
            events = concatenate([s.release(safe_ns) for s in self._streams]).sorted_by_time()
            if len(events):
                self._count_late(events)
                yield events
            if safe_ns is None:
                return

    def _count_late(self, events: Events) -> None:
        self.late += int(np.searchsorted(events.time_ns, self._newest_ns, "left"))
        self._newest_ns = max(self._newest_ns, int(events.time_ns[-1]))


class _Stream:
    # One CPU's events read so far and not released, always sorted.

    def __init__(self, source: Iterator[Events], hold_back: int) -> None:
        self._source = source
        self._hold_back = hold_back
        self._pending = no_events()
        self._ended = False

    def fill(self) -> None:
        parts = [self._pending]
        length = len(self._pending)
        while length <= self._hold_back and not self._ended:
            part = next(self._source, None)
            if part is None:
                self._ended = True
            else:
                parts.append(part)
                length += len(part)
        if len(parts) > 1:
            self._pending = concatenate(parts).sorted_by_time()

    def bound_ns(self) -> int | None:
        # events up to this time can no longer be preceded by unread ones; None: no bound
        if self._ended:
            return None
        return int(self._pending.time_ns[-1 - self._hold_back])

    def release(self, safe_ns: int | None) -> Events:
        events = self._pending
        if safe_ns is None:
            self._pending = no_events()
            return events
        count = int(np.searchsorted(events.time_ns, safe_ns, "right"))
        self._pending = events.take(slice(count, None))
        return events.take(slice(0, count))
