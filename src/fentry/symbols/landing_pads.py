"""Landing pads: where the unwinder enters code after a throw or a cancellation.

The tables that compilers write for gcc's personality routines, read as these do (gcc's
unwind-c.c; LSB Core, "Exception Frames"; the "Itanium" C++ ABI's exception handling, level II):

    encoding of LPStart, and LPStart; omitted: pads are relative to the start of the frame
    encoding of the type table, and ULEB128 of its distance; or omitted
    encoding of the call sites, ULEB128 of their bytes
    call sites: start, length, landing pad or 0; ULEB128 of the action

Not here: which calls lead to which pad, and the types.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fentry.symbols.elf_file import ElfFile
from fentry.symbols.frames import NO_LSDA

_OMITTED = 0xFF
_ULEB = 0x01
_PCREL = 0x10
_FIXED = {0x00: "<Q", 0x02: "<H", 0x03: "<I", 0x04: "<Q", 0x0A: "<h", 0x0B: "<i", 0x0C: "<q"}
_FIELDS, _PAD_FIELD = 4, 2  # of a call site
_LONGEST_LEB = 5
_LEB_BITS = 64
_HEADER_BYTES = 3 + 2 * _LONGEST_LEB
_LONGEST_TABLE = 1 << 20
# More than files have: tables that lie over each other can be of any size together.
_MOST_BYTES = 1 << 25
_MOST_BYTES_SLOW = 1 << 21
_BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class LandingPads:
    """`vaddrs` of all pads, uint64[n], sorted, no repeats; `unknown`: there may be others, in a
    table that is not understood."""

    vaddrs: NDArray[np.uint64]
    unknown: bool


def find_landing_pads(image: ElfFile, frames: NDArray[np.void]) -> LandingPads:
    """The landing pads of `frames` (frames.py), all of an image."""
    frames = frames[frames["lsda"] != 0]
    known = frames[frames["lsda"] != NO_LSDA]
    unknown = len(known) < len(frames)
    found = [np.zeros(0, np.uint64)]
    rest = []
    for segment in image.loads:
        low, end = segment.vaddr, segment.vaddr + segment.file_size
        inside = (known["lsda"] >= low) & (known["lsda"] < end)
        data = image.tail(low)
        at = (known["lsda"][inside] - np.uint64(low)).astype(np.int64)
        pads, done = _usual(data, at, known["start"][inside])
        found.append(pads)
        rest += known[inside][~done].tolist()
        known = known[~inside]
    unknown |= bool(len(known))
    slow = []
    left = _MOST_BYTES_SLOW
    for begin, size, *_, lsda in rest:
        if left <= 0:
            unknown = True
            break
        pads_of, read_bytes = _read(image, lsda, begin, size)
        left -= read_bytes
        unknown |= pads_of is None
        slow += pads_of or []
    found.append(np.array([pad % (1 << 64) for pad in slow], np.uint64))
    vaddrs = np.unique(np.concatenate(found))
    in_code = np.zeros(len(vaddrs), np.bool_)
    for segment in image.executable:
        in_code |= (vaddrs >= segment.vaddr) & (vaddrs < segment.vaddr + segment.file_size)
    return LandingPads(vaddrs[in_code], unknown or not in_code.all())


def _usual(
    data: NDArray[np.uint8], at: NDArray[np.int64], starts: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The pads of those tables at data[at] that have no LPStart and ULEB128 call sites, without a
    loop over them; and which those are."""
    if not len(at):
        return np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    data = np.concatenate([data, np.zeros(2 * _HEADER_BYTES, np.uint8)])
    place = at + 2
    _, behind = _uleb(data, place)
    place = np.where(data[at + 1] == _OMITTED, place, behind)
    usual = (data[at] == _OMITTED) & (data[place] == _ULEB)
    size, first = _uleb(data, place + 1)
    usual &= (first + size <= len(data) - 2 * _HEADER_BYTES) & (size <= _LONGEST_TABLE)
    if size[usual].sum() > min(len(data), _MOST_BYTES):  # they would lie over each other
        usual[:] = False
    chosen = np.flatnonzero(usual & (size > 0))
    group = np.cumsum(size[chosen]) // _BYTES_AT_ONCE
    found = [np.zeros(0, np.uint64)]
    for rows in np.split(chosen, np.flatnonzero(np.diff(group)) + 1):
        if len(rows):
            pads, whole = _pads(data, first[rows], size[rows], starts[rows])
            found.append(pads)
            usual[rows[~whole]] = False
    return np.concatenate(found), usual


def _pads(
    data: NDArray[np.uint8],
    first: NDArray[np.int64],
    size: NDArray[np.int64],
    starts: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The pads of call sites of `size` bytes each at data[first], and which tables are whole."""
    # Every byte of all the call sites, and in which table it is.
    table = np.repeat(np.arange(len(first)), size)
    before = np.cumsum(size) - size
    where = np.arange(len(table)) - before[table] + first[table]
    ends = data[where] < 0x80
    number: NDArray[np.int64] = (
        np.cumsum(ends) - ends
    )  # of the value that a byte belongs to, over all tables
    number -= number[before][table]
    behind = before + size - 1
    whole = ends[behind] & (number[behind] % _FIELDS == _FIELDS - 1)
    last = np.flatnonzero(ends & (number % _FIELDS == _PAD_FIELD) & whole[table])
    if not len(last):
        return np.zeros(0, np.uint64), whole
    boundary = np.flatnonzero(ends)
    previous = boundary[np.searchsorted(boundary, last) - 1]  # a pad is never the first value
    value, _ = _uleb(data, where[previous + 1])
    pads = starts[table[last]] + value.astype(np.uint64)
    usable: NDArray[np.uint64] = pads[value != 0]
    return usable, whole


def _uleb(
    data: NDArray[np.uint8], at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ULEB128 of at most 35 bits at each position, and where what follows it begins."""
    at = np.minimum(at, len(data) - _LONGEST_LEB)
    raw = data[at[:, None] + np.arange(_LONGEST_LEB)].astype(np.int64)
    more = np.cumprod(raw >= 0x80, axis=1)
    within = np.concatenate([np.ones((len(at), 1), np.int64), more[:, :-1]], axis=1)
    value = ((raw & 0x7F) * within << 7 * np.arange(_LONGEST_LEB)).sum(axis=1)
    return value, at + within.sum(axis=1)


def _read(image: ElfFile, lsda: int, start: int, size: int) -> tuple[list[int] | None, int]:
    """The pads of one table, of the frame at `start`, None where it makes no sense; and how many
    bytes were read."""
    table = _Table(image.tail(lsda)[:_LONGEST_TABLE].data, lsda)
    try:
        return table.pads(start, size), table.read_bytes
    except (IndexError, ValueError, struct.error):
        return None, table.read_bytes


class _Table:
    # A reader of one table; raises IndexError, struct.error or ValueError where it makes no sense.
    def __init__(self, raw: memoryview, vaddr: int) -> None:
        self._raw = raw
        self._vaddr = vaddr
        self._at = 0

    @property
    def read_bytes(self) -> int:
        return self._at

    def pads(self, start: int, size: int) -> list[int]:
        encoding = self._byte()
        base = start if encoding == _OMITTED else self._value(encoding)
        if self._byte() != _OMITTED:
            self._leb()
        encoding = self._byte()
        end = self._leb() + self._at
        found = []
        while self._at < end:
            begin, length, pad = (self._value(encoding & 0x0F) for _ in range(3))
            self._leb()
            if begin + length > size:
                raise ValueError("a call site outside of its frame")
            if pad:
                found.append(base + pad)
        if self._at != end:
            raise ValueError("the call sites do not end where they should")
        return found

    def _byte(self) -> int:
        self._at += 1
        return self._raw[self._at - 1]

    def _leb(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > _LEB_BITS:
                raise ValueError("a number that does not end")

    def _value(self, encoding: int) -> int:
        if encoding & 0x0F == _ULEB:
            return self._leb()
        if encoding & 0x70 not in (0, _PCREL) or encoding & 0x80:
            raise ValueError("an encoding that these tables do not have")
        form = _FIXED.get(encoding & 0x0F)
        if form is None:
            raise ValueError("an unknown encoding")
        at = self._at
        value: int = struct.unpack_from(form, self._raw, at)[0]
        self._at += struct.calcsize(form)
        return value + (self._vaddr + at if encoding & _PCREL else 0)
