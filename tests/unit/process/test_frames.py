"""How far a stack is searched: to its end, also where the kernel has split it, and no farther."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fentry.process.frames import search_stacks
from fentry.process.maps import Mapping

LOW, MIDDLE, HIGH = 0x7F0000100000, 0x7F0000102000, 0x7F0000140000
PIECES = [
    Mapping(LOW, MIDDLE, "rw-p", 0, "00:00", 0, ""),
    Mapping(MIDDLE, HIGH, "rw-p", 0, "00:00", 0, ""),
]
RSP = LOW + 0x1000
FRAME = MIDDLE + 0x100  # the interrupted rsp, rip, flags and segments, of the kernel's frame


class FakeMemory:
    """Zeros and one signal frame; how many bytes were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def read_some(self, address: int, count: int) -> bytes:
        self.asked += count
        data = bytearray(count)
        words = (RSP, 0x401000, 0x246, 0x2B_0000_0000_0033)
        for i, word in enumerate(words):
            at = FRAME + 8 * i - address
            if 0 <= at <= count - 8:
                data[at : at + 8] = word.to_bytes(8, "little")
        return bytes(data)

    def read_joined(self, places: list[tuple[int, int]]) -> tuple[NDArray[np.uint8], list[int]]:
        pieces = [self.read_some(*place) for place in places]
        return np.frombuffer(b"".join(pieces), np.uint8), [len(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("block", "most_bytes", "rips"),
    [
        (MIDDLE - 0x940, 0x1000, []),  # its control block is at the top of the first piece
        (HIGH - 0x940, HIGH - RSP, [0x401000]),  # of the second: the kernel has split it
        (0x601000, HIGH - RSP, [0x401000]),  # elsewhere: a stack of the program's own
        (LOW + 0x80, HIGH - RSP, [0x401000]),  # below the stack pointer, so not at its top
    ],
)
def test_a_stack_ends_where_its_control_block_is(
    block: int, most_bytes: int, rips: list[int]
) -> None:
    regs = SimpleNamespace(rip=0x401234, rsp=RSP, fs_base=block)
    stop = SimpleNamespace(threads={1: SimpleNamespace(regs=regs)})
    memory = FakeMemory()
    found = search_stacks(cast(Any, stop), cast(Any, memory), PIECES, lambda: PIECES)
    assert [frame.rip for frame in found.frames] == rips
    assert memory.asked == most_bytes


@pytest.mark.parametrize(
    ("ours", "leads"),
    [
        ([], True),  # the word 0x401000 of the frame
        ([(MIDDLE, HIGH)], False),  # memory of ours that adjoins a stack of the program's own
        ([(MIDDLE, FRAME + 8)], True),
        ([(FRAME + 16, HIGH)], True),
        ([(FRAME + 8, FRAME + 16)], False),
        ([(LOW, MIDDLE), (FRAME, FRAME + 9)], False),
    ],
)
def test_words_of_ours_lead_nowhere(ours: list[tuple[int, int]], leads: bool) -> None:
    regs = [SimpleNamespace(rip=0x401234, rsp=rsp, fs_base=0x601000) for rsp in (LOW, RSP)]
    stop = SimpleNamespace(threads={i: SimpleNamespace(regs=one) for i, one in enumerate(regs)})
    found = search_stacks(cast(Any, stop), cast(Any, FakeMemory()), PIECES, lambda: PIECES)
    assert found.lead_into([(0x400000, 0x402000)], lambda: ours) is leads
    assert not found.lead_into([(0x402000, 0x403000)], lambda: ours)


NEW = 0x7F0000200000  # mapped since the maps were read
STACK = Mapping(0x7FFC00000000, 0x7FFC00021000, "rw-p", 0, "00:00", 0, "[stack]")
BEHIND = Mapping(STACK.end, STACK.end + 0x1000, "rw-p", 0, "00:00", 0, "[stack]")


@pytest.mark.parametrize(
    ("rsp", "block", "before", "asks"),
    [
        (FRAME + 0x80, HIGH - 0x940, [Mapping(LOW, HIGH, "rw-p", 0, "00:00", 0, "")], False),
        (RSP, 0x601000, PIECES, True),  # a stack of the program's own
        (MIDDLE + 8, LOW, PIECES, True),
        (NEW + 8, NEW + 0x800, PIECES, True),  # on no mapping that is known
        (STACK.start + 8, 0x601000, [*PIECES, STACK], False),  # the program's first stack
        (STACK.start + 8, 0x601000, [*PIECES, STACK, BEHIND], True),  # which the kernel has split
        (STACK.start - 0x100, 0x601000, [*PIECES, STACK], True),  # it has grown since
    ],
)
def test_mappings_of_now_are_asked_for_where_the_end_of_a_stack_may_have_moved(
    rsp: int, block: int, before: list[Mapping], asks: bool
) -> None:
    regs = SimpleNamespace(rip=0x401234, rsp=rsp, fs_base=block)
    stop = SimpleNamespace(threads={1: SimpleNamespace(regs=regs)})
    asked: list[bool] = []

    def now() -> list[Mapping]:
        asked.append(True)
        return [*PIECES, Mapping(NEW, NEW + 0x1000, "rw-p", 0, "00:00", 0, ""), STACK]

    search_stacks(cast(Any, stop), cast(Any, FakeMemory()), before, now)
    assert bool(asked) is asks


def test_a_frame_that_leads_to_another_stack_makes_the_mappings_be_asked_for() -> None:
    block = HIGH - 0x940
    regs = SimpleNamespace(rip=0x401234, rsp=FRAME - 0x80, fs_base=block)
    stop = SimpleNamespace(threads={1: SimpleNamespace(regs=regs)})
    asked: list[bool] = []

    def now() -> list[Mapping]:
        asked.append(True)
        return PIECES

    before = [PIECES[1]]  # without what the frame's rsp leads to
    found = search_stacks(cast(Any, stop), cast(Any, FakeMemory()), before, now)
    assert [frame.rip for frame in found.frames] == [0x401000]
    assert asked == [True]
