"""How often functions were called between looks at their counters."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Addresses

_T = TypeVar("_T", np.uint64, np.float64)

HISTORY = 16
"""Intervals that are remembered."""


class FunctionRate(NamedTuple):
    """One function: calls in the last interval and in all, and calls per second in up to HISTORY
    intervals, oldest first."""

    ip: int
    calls: int
    total: int
    history: tuple[float, ...]


class Rates:
    """Calls by function between looks at counters that began at 0 at `begun_ns`, CLOCK_MONOTONIC.

    seconds  how long the last interval was
    """

    def __init__(self, begun_ns: int) -> None:
        self.seconds = 0.0
        self._at_ns = begun_ns
        self._ips: Addresses = np.empty(0, np.uint64)
        self._totals: Addresses = np.empty(0, np.uint64)
        self._last: Addresses = np.empty(0, np.uint64)
        self._history: deque[NDArray[np.float64]] = deque(maxlen=HISTORY)

    def look(self, ips: Addresses, calls: NDArray[np.uint64], at_ns: int) -> None:
        """The counters at a later moment, of functions that may be others by now.

        ips    uint64[n], calls  uint64[n] since each was first counted, at_ns  CLOCK_MONOTONIC
        """
        order = np.argsort(ips)
        ips, calls = ips[order], calls[order]
        if not np.array_equal(ips, self._ips):
            history = [_at(ips, self._ips, column) for column in self._history]
            self._history = deque(history, maxlen=HISTORY)
            self._totals = _at(ips, self._ips, self._totals)
            self._ips = ips
        # Fewer than before: another function lies there by now.
        self._last = np.where(calls < self._totals, calls, calls - self._totals)
        self._totals = calls
        self.seconds = max(at_ns - self._at_ns, 1) / 1e9
        self._at_ns = at_ns
        self._history.append(self._last / self.seconds)

    @property
    def calls(self) -> int:
        """All calls in the last interval."""
        return int(self._last.sum())

    @property
    def total(self) -> int:
        """All calls from the beginning, of functions that are still there."""
        return int(self._totals.sum())

    def rows(
        self, *, by_total: bool = False, limit: int | None = None, all_of_them: bool = False
    ) -> list[FunctionRate]:
        """Functions by calls in the last interval, or by total, the most first: those with any,
        unless `all_of_them`; at most `limit`."""
        key = self._totals if by_total else self._last
        chosen = np.arange(len(key)) if all_of_them else np.flatnonzero(key)
        if limit and len(chosen) > 4 * limit:
            least = np.partition(key[chosen], len(chosen) - limit)[-limit]
            chosen = chosen[key[chosen] >= least]
        # Equals by address: lines that do not jump about.
        order = chosen[np.lexsort((self._ips[chosen], ~key[chosen]))][:limit]
        history = np.stack(self._history, axis=1)[order] if self._history else np.empty((0, 0))
        columns = (self._ips[order], self._last[order], self._totals[order], history)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [FunctionRate(ip, last, total, tuple(past)) for ip, last, total, past in rows]


def _at(ips: Addresses, known: Addresses, column: NDArray[_T]) -> NDArray[_T]:
    # The column, which belongs to the functions `known`, for others: 0 where it says nothing.
    found = np.zeros(len(ips), column.dtype)
    if len(known):
        place = np.minimum(np.searchsorted(known, ips), len(known) - 1)
        same = known[place] == ips
        found[same] = column[place[same]]
    return found
