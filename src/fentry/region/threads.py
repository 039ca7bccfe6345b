"""The table of the threads that one ops sees, in memory that the target reads at each call.

Two sets lie in it, a nibble each; the word in its header says which is in force.  A set is written
whole while the other is in force, and comes into force by one store: whenever the controller
dies, the old one or the new one is there (docs/design/threads.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fentry.errors import RegionError
from fentry.process.memory import PAGE_BYTES, Memory
from fentry.process.shared import SharedMemory
from fentry.region.layout import (
    MAX_TIDS,
    THREAD_BYTES_OFFSET,
    THREAD_SET_DTYPE,
    THREAD_SETS_OFFSET,
    THREADS_BYTES,
    THREADS_WORD_OFFSET,
    ThreadBit,
    ThreadSetFlag,
)
from fentry.region.region import Segment

LONGEST_NAMES = 1007  # bytes
_MOST_LISTED = 1 << 18  # more threads has no process: /proc/sys/kernel/threads-max of 32 GB
_NIBBLE_BITS = 4


@dataclass(frozen=True, slots=True)
class StoredSet:
    """What a table says: `bits` by tid, as the target knows its threads.

    `wanted` is how a thread without DIFFERS is treated; `start_time` is when the set was written,
    in clock ticks since boot, as start times of threads are.
    """

    bits: Mapping[int, ThreadBit] = field(default_factory=dict)
    wanted: bool = True
    flags: ThreadSetFlag = ThreadSetFlag.NONE
    names: str = ""
    start_time: int = 0

    def sees(self, tid: int) -> bool:
        """Whether calls of a thread are recorded."""
        return self.wanted != bool(self.bits.get(tid, 0) & ThreadBit.DIFFERS)


class ThreadTable:
    """A table that is mapped here as well. Nobody else writes it."""

    def __init__(self, segment: Segment, memory: SharedMemory, found: bytes = b"") -> None:
        """`found` is what an adopted table holds; a fresh one is all zeros."""
        self.segment = segment
        self._memory = memory
        content = np.frombuffer(found, np.uint8)[THREAD_BYTES_OFFSET:]
        # Which bytes are not zero: to look for them in the table would make all of its pages.
        self._used: NDArray[np.intp] = np.flatnonzero(content)

    @property
    def address(self) -> int:
        """Where it lies in the target."""
        return self.segment.address

    def write(self, new: StoredSet) -> None:
        """Put `new` in force, for every call that begins from now on."""
        word = self._word
        number = 1 - _in_force(int(word[0]))
        shift = number * _NIBBLE_BITS
        rows = self._memory.bytes[THREAD_SETS_OFFSET:][: 2 * THREAD_SET_DTYPE.itemsize]
        names = new.names.encode(errors="surrogateescape")
        rows.view(THREAD_SET_DTYPE)[number] = (new.start_time, int(new.flags), 0, names)
        other = np.uint8(0xF0 >> shift)
        table = self._memory.bytes[THREAD_BYTES_OFFSET:]
        table[self._used] &= other
        self._used = self._used[table[self._used] != 0]
        tids = np.fromiter(new.bits, np.intp, len(new.bits))
        values = np.fromiter((int(b) << shift for b in new.bits.values()), np.uint8, len(new.bits))
        table[tids] |= values
        self._used = np.union1d(self._used, tids)
        mask = ThreadBit.DIFFERS << shift
        word[0] = mask << 8 | (mask if new.wanted else 0)  # the store that counts

    def clear(self) -> None:
        """See no thread, as a fresh table does."""
        self._word[0] = 0
        self._memory.bytes[THREAD_BYTES_OFFSET:][self._used] = 0
        self._used = self._used[:0]

    @property
    def _word(self) -> NDArray[np.uint16]:
        place = self._memory.bytes[THREADS_WORD_OFFSET : THREADS_WORD_OFFSET + 2]
        return place.view(np.dtype("<u2"))


def read_whole(memory: Memory, segment: Segment) -> bytes:
    """All bytes of a table in the target. Raises RegionError when it is not one.

    Every page of it exists afterwards, unless the mapping is replaced.
    """
    if segment.bytes != THREADS_BYTES:
        raise RegionError(f"the table of threads at {segment.address:#x} is damaged")
    return memory.read(segment.address, segment.bytes)


def stored_in(found: bytes) -> StoredSet:
    """The set in force in a whole table. Raises RegionError when the target wrote over it."""
    head, number = _head(found[:THREAD_BYTES_OFFSET])
    content = np.frombuffer(found, np.uint8)[THREAD_BYTES_OFFSET:]
    used = np.flatnonzero(content)
    if len(used) > _MOST_LISTED:
        raise RegionError(
            f"a table of threads lists {len(used)} of them", cause="the target wrote over it"
        )
    return _with_bits(head, number, zip(used.tolist(), content[used].tolist(), strict=True))


def stored_of(memory: Memory, address: int, tids: Iterable[int]) -> StoredSet:
    """The set in force in the target's table at `address`, of these tids only."""
    head, number = _head(memory.read(address, PAGE_BYTES))
    places = ((tid, memory.read(address + THREAD_BYTES_OFFSET + tid, 1)[0]) for tid in tids)
    return _with_bits(head, number, places)


def _head(page: bytes) -> tuple[StoredSet, int]:
    word = int.from_bytes(page[THREADS_WORD_OFFSET : THREADS_WORD_OFFSET + 2], "little")
    number = _in_force(word)
    row = np.frombuffer(page, THREAD_SET_DTYPE, 2, THREAD_SETS_OFFSET)[number]
    known = ThreadSetFlag.ONLY | ThreadSetFlag.FOLLOW
    head = StoredSet(
        wanted=bool(word & word >> 8 & 0xFF),
        flags=ThreadSetFlag(int(row["flags"])) & known,
        names=bytes(row["names"]).decode(errors="replace"),
        start_time=int(row["start_time"]),
    )
    return head, number


def _with_bits(head: StoredSet, number: int, places: Iterable[tuple[int, int]]) -> StoredSet:
    bits = {tid: ThreadBit(value >> number * _NIBBLE_BITS & 0xF) for tid, value in places}
    kept = {tid: bit for tid, bit in bits.items() if bit and tid < MAX_TIDS}
    return StoredSet(kept, head.wanted, head.flags, head.names, head.start_time)


def _in_force(word: int) -> int:
    # Which of the two sets the word names; 0 in a fresh table, which sees nobody.
    return int(bool(word >> 8 & ThreadBit.DIFFERS << _NIBBLE_BITS))
