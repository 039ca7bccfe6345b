"""Pages of the kernel's ring buffer, made of events: what a CPU's part of a trace.dat consists of.

Source: kernel/trace/ring_buffer.c (buffer_data_page, rb_event_header), include/linux/ring_buffer.h
(enum ring_buffer_type), and the texts events/header_page and events/header_event of tracefs.

A page is PAGE_BYTES long:

    offset  size  name       meaning
    0       8     timestamp  ns of the first event
    8       8     commit     bytes of events in bits 0-26, MISSED, MISSED_STORED
    16      4080  data       events one after the other; after them, with MISSED_STORED, u64 count

An event is u32 {type_len in bits 0-4, time_delta in ns in bits 5-31} and 4 * type_len bytes. Of
type TIME_EXTEND it is a delta alone, whose bits from 27 on are the u32 behind it.
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fentry.events.columns import Events

PAGE_BYTES = 4096
PAGE_HEADER_BYTES = 16
DATA_BYTES = PAGE_BYTES - PAGE_HEADER_BYTES
FUNCTION_ID = 1
"""Number of the event `function`: TRACE_FN in kernel/trace/trace.h."""

MISSED = 1 << 31
MISSED_STORED = 1 << 30
"""Events were lost before this page, and how many is behind its last one (RB_MISSED_EVENTS and
RB_MISSED_STORED)."""

EVENT = np.dtype(
    [
        ("header", "<u4"),
        ("common_type", "<u2"),
        ("common_flags", "u1"),
        ("common_preempt_count", "u1"),
        ("common_pid", "<i4"),
        ("ip", "<u8"),
        ("parent_ip", "<u8"),
    ]
)

_WORD_BYTES = 4
_PAGE_WORDS = PAGE_BYTES // _WORD_BYTES
_HEADER_WORDS = PAGE_HEADER_BYTES // _WORD_BYTES
_EVENT_WORDS = EVENT.itemsize // _WORD_BYTES
_TYPE_LEN = _EVENT_WORDS - 1
_TIME_EXTEND = 30
_EXTEND_BYTES = 8
_COUNT_BYTES = 8
_DELTA_BITS = 27
_MOST_DELTA = 1 << (_DELTA_BITS + 32)
_DELTA_SHIFT = 5
_MOST_MISSED = 0x7FFF_FFFF  # libtraceevent reads the u64 into an int


class Missed(NamedTuple):
    """How many events are missing on a CPU before its first one at or after `time_ns`."""

    time_ns: int
    events: int


class _Pending(NamedTuple):
    # Events that are in no page yet; `missed` counts those lost directly before each.
    rows: NDArray[np.void]
    times: NDArray[np.int64]
    missed: NDArray[np.int64]

    def part(self, start: int, stop: int) -> _Pending:
        return _Pending(self.rows[start:stop], self.times[start:stop], self.missed[start:stop])

    def followed_by(self, other: _Pending) -> _Pending:
        return _Pending(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.times, other.times]),
            np.concatenate([self.missed, other.missed]),
        )


_NOTHING = _Pending(np.empty(0, EVENT), np.empty(0, np.int64), np.empty(0, np.int64))


class CpuPages:
    """Turns the events of one CPU, given in order, into pages at the end of a file.

    At most a page of events is kept between two calls. `missed` is in order of time. An event that
    is earlier than the one before it begins a page, which is the only place for it.
    """

    def __init__(self, file: BinaryIO, missed: list[Missed]) -> None:
        self.file = file
        self._missed = missed[::-1]
        self._pending = _NOTHING

    def add(self, events: Events, parents: NDArray[np.uint64]) -> None:
        """Append events, whose callers are `parents`."""
        rows = np.zeros(len(events), EVENT)
        rows["common_type"] = FUNCTION_ID
        rows["common_pid"] = events.tid
        rows["ip"] = events.ip
        rows["parent_ip"] = parents
        fresh = _Pending(rows, events.time_ns, self._missed_before(events.time_ns))
        self._pending = self._pending.followed_by(fresh)
        self._write(keep_last=True)

    def finish(self) -> None:
        """Write the last page, which need not be full."""
        self._write(keep_last=False)

    def _missed_before(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        missed = np.zeros(len(times), np.int64)
        if not self._missed or not len(times):
            return missed
        latest = np.maximum.accumulate(times)
        while self._missed and self._missed[-1].time_ns <= int(latest[-1]):
            time_ns, events = self._missed.pop()
            missed[np.searchsorted(latest, time_ns)] += min(events, _MOST_MISSED)
        return missed

    def _write(self, *, keep_last: bool) -> None:
        pending, length = self._pending, len(self._pending.rows)
        if not length:
            return
        sizes, breaks = _sizes(pending)
        firsts = _firsts(sizes, breaks, pending.missed)
        last = firsts.pop() if keep_last else length
        self._pending = _NOTHING.followed_by(pending.part(last, length))  # keeps no more alive
        if firsts:
            self.file.write(_pages(pending.part(0, last), sizes[:last], np.array(firsts)))


def _sizes(pending: _Pending) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    # bytes of each event if it does not begin a page, and which have to begin one
    deltas = np.diff(pending.times, prepend=pending.times[:1])
    sizes = np.where(deltas >> _DELTA_BITS != 0, EVENT.itemsize + _EXTEND_BYTES, EVENT.itemsize)
    breaks = (deltas < 0) | (deltas >= _MOST_DELTA) | (pending.missed != 0)
    return sizes, breaks


def _firsts(
    sizes: NDArray[np.int64], breaks: NDArray[np.bool_], missed: NDArray[np.int64]
) -> list[int]:
    # the first event of each page; one step a page, not an event
    ends = np.cumsum(sizes)
    forced = [*(np.flatnonzero(breaks[1:]) + 1).tolist(), len(sizes)]
    firsts, first, turn = [], 0, 0
    while first < len(sizes):
        firsts.append(first)
        while forced[turn] <= first:
            turn += 1
        room = DATA_BYTES - (_COUNT_BYTES if missed[first] else 0)
        # the first event of a page needs no time extend
        limit = ends[first] - EVENT.itemsize + room
        first = min(int(np.searchsorted(ends, limit, "right")), forced[turn])
    return firsts


def _pages(events: _Pending, sizes: NDArray[np.int64], firsts: NDArray[np.int64]) -> bytes:
    deltas = np.diff(events.times, prepend=events.times[:1])
    deltas[firsts] = 0
    sizes = sizes.copy()
    sizes[firsts] = EVENT.itemsize
    extended = np.flatnonzero(sizes > EVENT.itemsize)
    short = deltas.copy()
    short[extended] = 0
    events.rows["header"] = _TYPE_LEN | short << _DELTA_SHIFT

    counts = np.diff(firsts, append=len(sizes))
    ends = np.cumsum(sizes)
    before = np.repeat(ends[firsts] - EVENT.itemsize, counts)
    pages = np.repeat(np.arange(len(firsts)), counts)
    last_words = pages * _PAGE_WORDS + _HEADER_WORDS + (ends - before) // _WORD_BYTES
    words = np.zeros(len(firsts) * _PAGE_WORDS, np.uint32)
    at = last_words - _EVENT_WORDS
    words[at[:, None] + np.arange(_EVENT_WORDS)] = events.rows.view("<u4").reshape(-1, _EVENT_WORDS)
    low = deltas[extended] & ((1 << _DELTA_BITS) - 1)
    words[at[extended] - 2] = _TIME_EXTEND | low << _DELTA_SHIFT
    words[at[extended] - 1] = deltas[extended] >> _DELTA_BITS

    wide = words.view("<u8").reshape(len(firsts), -1)
    used = ends[firsts + counts - 1] - ends[firsts] + EVENT.itemsize
    wide[:, 0] = events.times[firsts].view(np.uint64)
    wide[:, 1] = used
    for page in np.flatnonzero(events.missed[firsts]).tolist():
        wide[page, 1] |= np.uint64(MISSED | MISSED_STORED)
        count = page * _PAGE_WORDS + _HEADER_WORDS + int(used[page]) // _WORD_BYTES
        words[count] = min(int(events.missed[firsts[page]]), _MOST_MISSED)
    return words.tobytes()
