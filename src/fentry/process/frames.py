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
from numpy.typing import NDArray

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


class Stacks(NamedTuple):
    """The used parts of all stacks: their words, each once, and the frames found there."""

    words: list[NDArray[np.uint64]]
    frames: list[SignalFrame]

    def lead_into(self, spans: Sequence[tuple[int, int]]) -> bool:
        """Whether a word lies in one of the spans (low, high): a return address, or what is left
        of one."""
        return any(
            bool(((words >= np.uint64(low)) & (words < np.uint64(high))).any())
            for words in self.words
            for low, high in spans
        )


def search_stacks(stop: Stop, memory: Memory, maps: Sequence[Mapping]) -> Stacks:
    """All stacks from each thread's rsp to their ends, and those that the saved rsp of a frame
    leads to (sigaltstack)."""
    starts = [m.start for m in maps]
    found: dict[int, SignalFrame] = {}
    every: list[NDArray[np.uint64]] = []
    todo = [t.regs.rsp for t in stop.threads.values() if t.regs.rip]
    searched: dict[int, list[tuple[int, int]]] = {}  # by mapping: several stacks may lie in one
    while todo:
        parts = [_part_of(rsp, maps, starts, searched) for rsp in todo]
        stacks = [
            (start, memory.read_some(start, end - start + _FRAME_BYTES))
            for start, end in parts
            if start < end
        ]
        # All at once: most are short, and each look would cost as much as this one.
        words = np.frombuffer(b"".join(text[: len(text) & ~7] for _, text in stacks), "<u8")
        every.append(words)
        new = {f.rip_address: f for f in _frames_in(words, stacks) if f.rip_address not in found}
        found |= new
        todo = [frame.rsp for frame in new.values()]
    return Stacks(every, list(found.values()))


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
    while i + 1 < len(maps) and maps[i + 1].start == maps[i].end and _may_be_stack(maps[i + 1]):
        i += 1  # the kernel has split it: mlock(2), madvise(2)
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


def _may_be_stack(mapping: Mapping) -> bool:
    return mapping.perms.startswith("rw") and mapping.path in ("", "[stack]")


def _frames_in(
    words: NDArray[np.uint64], stacks: Sequence[tuple[int, bytes]]
) -> Iterator[SignalFrame]:
    ends = list(accumulate(len(text) // 8 for _, text in stacks))
    for i in np.flatnonzero(words == _SEGMENTS).tolist():
        number = bisect_right(ends, i)
        address, inside = stacks[number][0], i - (ends[number - 1] if number else 0)
        if inside >= 3 and words[i - 1] < _FLAGS_LIMIT:
            rip_address = address + 8 * (inside - 2)
            yield SignalFrame(rip_address, int(words[i - 2]), int(words[i - 3]))
