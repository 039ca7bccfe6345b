"""Events of several CPUs in order of time, while more of them come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fentry.events.columns import Events, concatenate, no_events

SLACK_NS = 2_000_000
"""For so long an event is kept back: between reading its clock and taking its place in the ring a
thread may be preempted."""

LONGEST_HOLD_NS = 500_000_000
"""For so long, at most, a record that has its place and is not written keeps back later ones."""


class Ordering:
    """Events that were added and not taken. Unless `in_time` they leave as they came."""

    def __init__(self, *, in_time: bool) -> None:
        self._in_time = in_time
        self._pending = no_events()
        self._newest_ns: dict[int, int] = {}

    def add(self, events: Events) -> None:
        """Events of any CPUs; each CPU's in the order of its ring, nearly that of time."""
        if not len(events):
            return
        for cpu in np.unique(events.cpu).tolist():
            newest_ns = int(events.time_ns[events.cpu == cpu].max())
            self._newest_ns[cpu] = max(newest_ns, self._newest_ns.get(cpu, newest_ns))
        self._pending = concatenate([self._pending, events])
        if self._in_time:
            self._pending = self._pending.sorted_by_time()

    def take_before(self, now_ns: int, awaited_cpus: Sequence[int]) -> Events:
        """Those that nothing can come before any more: all that was recorded up to `now_ns` had
        been added but for what `awaited_cpus` have begun to write."""
        if not self._in_time:
            return self.take()
        bound_ns = now_ns - SLACK_NS
        for cpu in awaited_cpus:
            bound_ns = min(bound_ns, self._newest_ns.get(cpu, bound_ns))
        bound_ns = max(bound_ns, now_ns - LONGEST_HOLD_NS)
        count = int(np.searchsorted(self._pending.time_ns, bound_ns, "right"))
        taken = self._pending.take(slice(0, count))
        self._pending = self._pending.take(slice(count, None))
        return taken

    def take(self) -> Events:
        """All of them."""
        taken, self._pending = self._pending, no_events()
        return taken
