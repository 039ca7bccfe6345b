"""The table of threads: what it says is what was written, and a change is one store."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fentry.errors import RegionError
from fentry.region.layout import (
    MAX_TIDS,
    THREAD_BYTES_OFFSET,
    THREADS_BYTES,
    Kind,
    ThreadBit,
    ThreadSetFlag,
)
from fentry.region.region import Segment
from fentry.region.threads import StoredSet, ThreadTable, stored_in, stored_of

ADDRESS = 0x7F0000000000
TIDS = st.sampled_from([0, 1, 2, 4095, 4096, 77_777, MAX_TIDS - 1])
SETS = st.builds(
    StoredSet,
    st.dictionaries(TIDS, st.integers(1, 15).map(ThreadBit)),
    st.booleans(),
    st.sampled_from([ThreadSetFlag.NONE, ThreadSetFlag.ONLY | ThreadSetFlag.FOLLOW]),
    st.sampled_from(["", "w* 'a b'"]),
    st.integers(0, (1 << 64) - 1),
)


few = settings(max_examples=30, deadline=None)  # a table is 4 MiB


class OwnMemory:
    """Memory like SharedMemory, and like that of a target, of this process alone."""

    def __init__(self) -> None:
        self.bytes = np.zeros(THREADS_BYTES, np.uint8)

    def read(self, address: int, count: int) -> bytes:
        return self.bytes[address - ADDRESS :][:count].tobytes()


def table_in(memory: OwnMemory, found: bytes = b"") -> ThreadTable:
    segment = Segment(0, Kind.THREADS, ADDRESS, THREADS_BYTES)
    return ThreadTable(segment, memory, found)  # type: ignore[arg-type]


def is_wanted(memory: OwnMemory, tid: int) -> bool:
    """What the trampoline does: mov ax, word; xor al, byte; test al, ah."""
    low, high = memory.bytes[0], memory.bytes[1]
    return bool((memory.bytes[THREAD_BYTES_OFFSET + tid] ^ low) & high)


@few
@given(st.lists(SETS, min_size=1, max_size=5))
def test_the_last_set_is_in_force_and_read_back(sets: list[StoredSet]) -> None:
    memory = OwnMemory()
    table = table_in(memory)

    for new in sets:
        table.write(new)

    last = sets[-1]
    assert stored_in(memory.read(ADDRESS, THREADS_BYTES)) == last
    assert stored_of(memory, ADDRESS, [*last.bits, 5]) == last  # type: ignore[arg-type]
    for tid in (0, 1, 2, 3, 4095, 4096, 77_777, MAX_TIDS - 1):
        assert is_wanted(memory, tid) is last.sees(tid)


@few
@given(SETS, SETS, SETS)
def test_a_table_goes_on_where_another_controller_left_it(
    first: StoredSet, second: StoredSet, third: StoredSet
) -> None:
    memory = OwnMemory()
    table = table_in(memory)
    table.write(first)
    table.write(second)

    table_in(memory, memory.read(ADDRESS, THREADS_BYTES)).write(third)

    assert stored_in(memory.read(ADDRESS, THREADS_BYTES)) == third


@few
@given(SETS, SETS)
def test_the_old_set_stays_in_force_until_the_last_store(old: StoredSet, new: StoredSet) -> None:
    memory = OwnMemory()
    table = table_in(memory)
    table.write(old)
    word = memory.bytes[:2].copy()

    table.write(new)
    memory.bytes[:2] = word  # as if the controller had died before its last store

    assert stored_in(memory.read(ADDRESS, THREADS_BYTES)) == old


def test_nobody_is_seen_in_a_fresh_table_and_in_one_that_was_cleared() -> None:
    memory = OwnMemory()
    assert not is_wanted(memory, 1)

    table = table_in(memory)
    table.write(StoredSet({7: ThreadBit.DIFFERS}))
    assert (is_wanted(memory, 1), is_wanted(memory, 7)) == (True, False)
    table.clear()

    assert not memory.bytes[:2].any()
    assert not memory.bytes[THREAD_BYTES_OFFSET:].any()


@pytest.mark.parametrize("content", [b"\xff", b"\x01", b"\x10"])
def test_a_table_that_the_target_has_written_over_is_bounded(content: bytes) -> None:
    damaged = content * THREAD_BYTES_OFFSET + content * 1000 + bytes(MAX_TIDS - 1000)
    found = stored_in(damaged)

    assert set(found.bits) <= set(range(1000))
    assert found.flags in [ThreadSetFlag(n) for n in range(4)]
    with pytest.raises(RegionError, match="lists 4194304 of them"):
        stored_in(content * THREADS_BYTES)
