"""Signal frames on the stacks of stopped threads: where interrupted code will go on.

The kernel's frame (struct rt_sigframe, arch/x86/include/asm/sigframe.h) holds a sigcontext
(arch/x86/include/uapi/asm/sigcontext.h): ... rsp, rip, eflags, then cs, gs, fs and ss as four
16-bit words.  In 64-bit code these four are 0x33, 0, 0, 0x2b: a word that nothing else has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from fentry.process.maps import Mapping
from fentry.process.memory import Memory
from fentry.process.stop import Stop

_SEGMENTS = 0x002B_0000_0000_0033
_FLAGS_LIMIT = 1 << 22
_LONGEST_BYTES = 8 << 20
_FRAME_BYTES = 64  # a frame may lie across the end of a part


class SignalFrame(NamedTuple):
    """An interrupted context: `rip_address` is where its saved rip lies in the target."""

    rip_address: int
    rip: int
    rsp: int


def signal_frames(stop: Stop, memory: Memory, maps: Sequence[Mapping]) -> list[SignalFrame]:
    """All signal frames between each thread's rsp and the end of the mapping it points into.

    Stacks that a frame's saved rsp leads to (sigaltstack) are searched as well.
    """
    return [frame for _, new in _searched(stop, memory, maps) for frame in new]


def words_into(
    stop: Stop, memory: Memory, maps: Sequence[Mapping], spans: Sequence[tuple[int, int]]
) -> bool:
    """Whether a word on the used part of any stack lies in one of the spans (low, high): a return
    address, or what is left of one."""
    for stacks, _ in _searched(stop, memory, maps):
        words = np.frombuffer(b"".join(text[: len(text) & ~7] for _, text in stacks), "<u8")
        if any(
            ((words >= np.uint64(low)) & (words < np.uint64(high))).any() for low, high in spans
        ):
            return True
    return False


def _searched(
    stop: Stop, memory: Memory, maps: Sequence[Mapping]
) -> Iterator[tuple[list[tuple[int, bytes]], list[SignalFrame]]]:
    # The used parts of all stacks as (address, bytes), each once, and the frames found there; those
    # of all threads come first, then in turn those that the frames lead to.
    starts = [m.start for m in maps]
    found: dict[int, SignalFrame] = {}
    todo = [t.regs.rsp for t in stop.threads.values() if t.regs.rip]
    searched: dict[int, list[tuple[int, int]]] = {}  # by mapping: several stacks may lie in one
    while todo:
        parts = [_part_of(rsp, maps, starts, searched) for rsp in todo]
        stacks = [
            (start, memory.read_some(start, end - start + _FRAME_BYTES))
            for start, end in parts
            if start < end
        ]
        new = {f.rip_address: f for f in _frames_in(stacks) if f.rip_address not in found}
        found |= new
        todo = [frame.rsp for frame in new.values()]
        yield stacks, list(new.values())


def _part_of(
    rsp: int,
    maps: Sequence[Mapping],
    starts: Sequence[int],
    searched: dict[int, list[tuple[int, int]]],
) -> tuple[int, int]:
    # From where to where a stack is to be searched that has not been yet.
    i = bisect_right(starts, rsp) - 1
    if i < 0 or rsp >= maps[i].end:
        return 0, 0
    start = rsp & ~7
    end = min(maps[i].end, start + _LONGEST_BYTES)
    spans = searched.setdefault(i, [])
    for low, high in spans:
        if low <= start < high:
            start = high
        elif start < low < end <= high:
            end = low
    if start < end:
        spans.append((start, end))
    return start, end


def _frames_in(stacks: Sequence[tuple[int, bytes]]) -> Iterator[SignalFrame]:
    # All stacks at once: most are short, and each look would cost as much as this one.
    words = np.frombuffer(b"".join(text[: len(text) & ~7] for _, text in stacks), "<u8")
    ends = list(accumulate(len(text) // 8 for _, text in stacks))
    for i in np.flatnonzero(words == _SEGMENTS).tolist():
        number = bisect_right(ends, i)
        address, inside = stacks[number][0], i - (ends[number - 1] if number else 0)
        if inside >= 3 and words[i - 1] < _FLAGS_LIMIT:
            rip_address = address + 8 * (inside - 2)
            yield SignalFrame(rip_address, int(words[i - 2]), int(words[i - 3]))
