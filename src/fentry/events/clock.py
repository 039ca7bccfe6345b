"""Clock of a trace: raw tsc ticks to CLOCK_MONOTONIC, by pairs that were sampled throughout.

Between two pairs time is linear, so the result is continuous and never runs backwards.  The
arithmetic is integer: the slope is a 64.64 fixed-point number and the product is taken with all
its bits (a double has 53 and would lose nanoseconds after a month of ticks; 32 fractional
bits, as in the kernel's mult/shift, would be off by 0.6 ms after ten days in one segment).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NS_PER_SECOND = 1_000_000_000

LONG_SPAN_NS = NS_PER_SECOND
"""Pairs closer together than this give a worse slope than the kernel's own tsc frequency:
each pair is uncertain by some 50 ns, which over a second is 0.05 ppm."""

KEPT_PAIRS = 64
"""Of a clock that runs: some seconds of them, and records are read within some hundredths."""

_LOW = np.uint64(0xFFFF_FFFF)
_32 = np.uint64(32)


class ClockPair(NamedTuple):
    """One moment on three clocks: tsc ticks, CLOCK_MONOTONIC ns and CLOCK_REALTIME ns."""

    tsc: int
    monotonic_ns: int
    realtime_ns: int


class _Slope(NamedTuple):
    # ns per tick as whole + fraction / 2**64
    whole: int
    fraction: int


class Clock:
    """Converts ticks to nanoseconds through the given pairs.

    Pairs are put in order of tsc; a pair whose monotonic time runs backwards, or that repeats a
    tsc, is left out.  Before the first and after the last pair the slope of the whole span is
    used, or that of `tsc_hz` when the span is below a second.  Raises ValueError when neither
    two pairs nor a pair and a frequency are there.
    """

    def __init__(self, pairs: Iterable[ClockPair], *, tsc_hz: int = 0) -> None:
        kept: list[ClockPair] = []
        for pair in sorted(pairs):
            if not kept or (pair.tsc > kept[-1].tsc and pair.monotonic_ns >= kept[-1].monotonic_ns):
                kept.append(pair)
        if not kept or (len(kept) == 1 and tsc_hz <= 0):
            raise ValueError("a clock needs two pairs, or one pair and the tsc frequency")
        self.pairs = tuple(kept)
        self._tsc = np.array([pair.tsc for pair in kept], np.uint64)
        self._ns = np.array([pair.monotonic_ns for pair in kept], np.int64)
        inner = [
            _slope(b.monotonic_ns - a.monotonic_ns, b.tsc - a.tsc)
            for a, b in itertools.pairwise(kept)
        ]
        outer = self._outer_slope(tsc_hz)
        # index 0: before the first pair; index i: from pair i - 1 on
        slopes = [outer, *inner, outer]
        self._whole = np.array([slope.whole for slope in slopes], np.uint64)
        self._fraction = np.array([slope.fraction for slope in slopes], np.uint64)

    def _outer_slope(self, tsc_hz: int) -> _Slope:
        first, last = self.pairs[0], self.pairs[-1]
        span_ns = last.monotonic_ns - first.monotonic_ns
        if tsc_hz > 0 and span_ns < LONG_SPAN_NS:
            return _slope(NS_PER_SECOND, tsc_hz)
        return _slope(span_ns, last.tsc - first.tsc)

    def monotonic_ns(self, ticks: NDArray[np.uint64]) -> NDArray[np.int64]:
        """CLOCK_MONOTONIC of each tick count, int64[n], rounded down to a nanosecond."""
        if not len(ticks):
            return np.empty(0, np.int64)
        low, high = ticks.min(), ticks.max()
        first = int(np.searchsorted(self._tsc, low, "right"))
        last = int(np.searchsorted(self._tsc, high, "right"))
        if first == last and first > 0:
            delta = ticks - self._tsc[first - 1]
            span = _scaled(delta, self._whole[first], self._fraction[first])
            return np.asarray(span.view(np.int64) + self._ns[first - 1], np.int64)
        return self._across(ticks)

    def _across(self, ticks: NDArray[np.uint64]) -> NDArray[np.int64]:
        segment = np.searchsorted(self._tsc, ticks, "right")
        pair = np.maximum(segment, 1) - 1
        before = segment == 0
        origin = self._tsc[pair]
        delta = np.where(before, origin - ticks, ticks - origin)
        # one tick less than the pair lies in the nanosecond before it: round away, not to, it
        span = _scaled(delta, self._whole[segment], self._fraction[segment]).view(np.int64)
        return np.asarray(self._ns[pair] + np.where(before, -span - 1, span), np.int64)

    def realtime_ns(self, monotonic_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """CLOCK_REALTIME of each CLOCK_MONOTONIC time, by the newest pair not after it."""
        pair = np.maximum(np.searchsorted(self._ns, monotonic_ns, "right"), 1) - 1
        offsets = np.array([p.realtime_ns - p.monotonic_ns for p in self.pairs], np.int64)
        return np.asarray(monotonic_ns + offsets[pair], np.int64)


class RunningClock:
    """A clock whose pairs come while it is read: what it says of a tick does not change later, if
    the tick lies before the newest pair.

    Keeps the newest KEPT_PAIRS pairs; ticks before them are dated by the slope of the whole.
    Raises ValueError when it is read before it has two pairs.
    """

    def __init__(self, pairs: Iterable[ClockPair]) -> None:
        self._pairs = deque(pairs, maxlen=KEPT_PAIRS)
        self._clock: Clock | None = None

    def add(self, pair: ClockPair) -> None:
        """Learn of one more moment, later than all before."""
        self._pairs.append(pair)
        self._clock = None

    def monotonic_ns(self, ticks: NDArray[np.uint64]) -> NDArray[np.int64]:
        """As Clock.monotonic_ns."""
        if self._clock is None:
            self._clock = Clock(self._pairs)
        return self._clock.monotonic_ns(ticks)


def _slope(ns: int, ticks: int) -> _Slope:
    whole, rest = divmod(ns, ticks)
    return _Slope(whole, (rest << 64) // ticks)


def _scaled(
    delta: NDArray[np.uint64],
    whole: np.uint64 | NDArray[np.uint64],
    fraction: np.uint64 | NDArray[np.uint64],
) -> NDArray[np.uint64]:
    # delta * (whole + fraction / 2**64), rounded down: the high half of a 64 x 64 bit product
    delta_low, delta_high = delta & _LOW, delta >> _32
    low, high = fraction & _LOW, fraction >> _32
    middle = delta_low * high + ((delta_low * low) >> _32)
    cross = delta_high * low + (middle & _LOW)
    product = delta_high * high + (middle >> _32) + (cross >> _32)
    if np.any(whole):
        product = product + delta * whole
    return np.asarray(product, np.uint64)
