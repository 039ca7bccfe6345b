"""What the threads of a target offer to generated code, also while some have just been made."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fentry.process.ptrace import RseqConfiguration
from fentry.process.target import _rseq_offset, _tid_offset

ONE, TWO = 0x7F00_0000_1740, 0x7F00_0080_1740
SIGNATURE = 0x5305_3053


class FakeMemory:
    """Words of four bytes at addresses; zeros elsewhere."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def read_some(self, address: int, count: int) -> bytes:
        data = bytearray(count)
        for at, value in self.words.items():
            if 0 <= at - address <= count - 4:
                data[at - address : at - address + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
        return bytes(data)


@pytest.mark.parametrize(
    ("threads", "words", "offset"),
    [
        ([(70, ONE), (71, TWO)], {ONE + 0x2D0: 70, TWO + 0x2D0: 71}, 0x2D0),  # glibc
        ([(70, ONE), (71, TWO)], {ONE + 0x30: 70, TWO + 0x30: 71}, 0x30),  # musl
        ([(70, ONE), (72, ONE)], {ONE + 0x2D0: 70}, 0x2D0),  # a bare clone on another's block
        ([(70, ONE), (72, 0)], {ONE + 0x2D0: 70}, 0x2D0),  # without a block
        ([(70, ONE), (71, TWO)], {ONE + 0x2D0: 70}, None),  # a block that nobody owns
        ([(72, 0)], {}, None),
    ],
)
def test_the_tid_is_where_each_block_has_that_of_its_owner(
    threads: list[tuple[int, int]], words: dict[int, int], offset: int | None
) -> None:
    tids, bases = map(list, zip(*threads, strict=True))
    assert _tid_offset(tids, bases, cast(Any, FakeMemory(words))) == offset


@pytest.mark.parametrize(
    ("area", "cpu_id", "may_begin", "offset"),
    [
        (0x9A0, -1, False, 0x9A0),  # uninitialized, or registration failed: code goes the slow way
        (0x9A0, -2, True, 0x9A0),
        (0x9A0, 0, True, 0x9A0),  # just made: glibc will register it
        (0x9A0, 0, False, None),  # nobody knows whether it ever will
        (-0x80, 0, True, None),  # not in glibc's struct pthread: the program's own
    ],
)
def test_a_thread_without_rseq_area_matters_unless_it_is_being_born(
    area: int, cpu_id: int, may_begin: bool, offset: int | None
) -> None:
    areas = [RseqConfiguration(ONE + area, 32, SIGNATURE), None]
    memory = FakeMemory({TWO + area + 4: cpu_id})
    assert _rseq_offset(areas, [ONE, TWO], cast(Any, memory), may_begin) == offset


def test_areas_that_are_not_one_for_each_thread_are_not_used() -> None:
    area = RseqConfiguration(ONE + 0x9A0, 32, SIGNATURE)
    other = RseqConfiguration(TWO + 0x9A8, 32, SIGNATURE)
    forged = RseqConfiguration(TWO + 0x9A0, 32, 0x12345678)
    memory = cast(Any, FakeMemory({}))
    assert _rseq_offset([area, other], [ONE, TWO], memory, True) is None
    assert _rseq_offset([area, None], [ONE, ONE], memory, True) is None  # two on one block
    assert _rseq_offset([area, None], [ONE, 0], memory, True) is None
    assert _rseq_offset([area, forged], [ONE, TWO], memory, True) is None
