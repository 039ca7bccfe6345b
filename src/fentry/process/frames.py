"""Signal frames on the stacks of stopped threads: where interrupted code will go on.

The kernel's frame (struct rt_sigframe, arch/x86/include/asm/sigframe.h) holds a sigcontext
(arch/x86/include/uapi/asm/sigcontext.h): ... rsp, rip, eflags, then cs, gs, fs and ss as four
16-bit words.  In 64-bit code these four are 0x33, 0, 0, 0x2b: a word that nothing else has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
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
    parts: list[list[tuple[int, int]]]  # for each of `words`: address and words of its parts
    frames: list[SignalFrame]

    def lead_into(
        self, spans: Sequence[tuple[int, int]], but: Callable[[], Sequence[tuple[int, int]]]
    ) -> bool:
        """Whether a word lies in one of the spans (low, high): a return address, or what is left
        of one. Words within `but()`, spans that are no stack, do not count."""
        others: Sequence[tuple[int, int]] | None = None
        for words, parts in zip(self.words, self.parts, strict=True):
            for low, high in spans:
                hits = (words >= np.uint64(low)) & (words < np.uint64(high))
                for i in np.flatnonzero(hits).tolist() if hits.any() else ():
                    others = but() if others is None else others  # asked for once, and seldom
                    address = _address_of(i, parts)
                    if not any(first <= address < end for first, end in others):
                        return True
        return False


def search_stacks(
    stop: Stop, memory: Memory, before: Sequence[Mapping], now: Callable[[], Sequence[Mapping]]
) -> Stacks:
    """All stacks from each thread's rsp to their ends, and those that the saved rsp of a frame
    leads to (sigaltstack).

    `before` are the mappings of a moment ago. `now()`, those of this moment, is asked only where
    the end of a stack may have moved since: for a target with many it takes longer than the rest.
    """
    maps, is_old = before, True
    starts = [m.start for m in maps]
    found: dict[int, SignalFrame] = {}
    every: list[NDArray[np.uint64]] = []
    places: list[list[tuple[int, int]]] = []
    todo = [(t.regs.rsp, t.regs.fs_base) for t in stop.threads.values() if t.regs.rip]
    searched: dict[int, list[tuple[int, int]]] = {}  # by mapping: several stacks may lie in one
    while todo:
        if is_old and not all(_ends_for_good(rsp, block, maps, starts) for rsp, block in todo):
            maps, is_old = now(), False
            starts = [m.start for m in maps]
        parts = [_part_of(rsp, block, maps, starts, searched) for rsp, block in todo]
        wanted = [(start, end - start) for start, end in parts if start < end]
        # All at once: most are short, and each look would cost as much as this one. Each is whole
        # words, also where it is cut short at the end of a page.
        text, sizes = memory.read_joined(wanted)
        words = text.view("<u8")
        every.append(words)
        places.append([(w[0], size // 8) for w, size in zip(wanted, sizes, strict=True)])
        new = {
            f.rip_address: f for f in _frames_in(words, places[-1]) if f.rip_address not in found
        }
        found |= new
        todo = [(frame.rsp, 0) for frame in new.values()]
    return Stacks(every, places, list(found.values()))


def _ends_for_good(rsp: int, block: int, maps: Sequence[Mapping], starts: Sequence[int]) -> bool:
    # Whether the stack at rsp ends where it did as long as it is one: the thread's control block
    # is at the top of it, or it is the one that the kernel made for the program, which only grows
    # down.
    i = bisect_right(starts, rsp) - 1
    if i < 0 or rsp >= maps[i].end:
        return False
    return rsp < block < maps[i].end or (
        maps[i].path == "[stack]" and (i + 1 == len(maps) or maps[i + 1].start != maps[i].end)
    )


def _part_of(
    rsp: int,
    block: int,
    maps: Sequence[Mapping],
    starts: Sequence[int],
    searched: dict[int, list[tuple[int, int]]],
) -> tuple[int, int]:
    # From where to where a stack is to be searched that has not been yet. `block` is the thread's
    # control block: C libraries put it at the top of the stack that they make for a thread.
    i = bisect_right(starts, rsp) - 1
    if i < 0 or rsp >= maps[i].end:
        return 0, 0
    if not rsp < block < maps[i].end:
        while i + 1 < len(maps) and maps[i + 1].start == maps[i].end and _may_be_stack(maps[i + 1]):
            i += 1  # the kernel has split it: mlock(2), madvise(2)
    start = rsp & ~7
    end = min(maps[i].end, start + _LONGEST_BYTES)
    spans = searched.setdefault(maps[i].end, [])
    for low, high in spans:
        if low <= start < high:
            start = high
        elif start < low < end <= high:
            end = low
    if start < end:
        spans.append((start, end))
        end = min(end + _FRAME_BYTES, maps[i].end)
    return start, end


def _may_be_stack(mapping: Mapping) -> bool:
    return mapping.perms.startswith("rw") and mapping.path in ("", "[stack]")


def _frames_in(
    words: NDArray[np.uint64], parts: Sequence[tuple[int, int]]
) -> Iterator[SignalFrame]:
    ends = list(accumulate(count for _, count in parts))
    for i in np.flatnonzero(words == _SEGMENTS).tolist():
        number = bisect_right(ends, i)
        inside = i - (ends[number - 1] if number else 0)
        if inside >= 3 and words[i - 1] < _FLAGS_LIMIT:
            rip_address = parts[number][0] + 8 * (inside - 2)
            yield SignalFrame(rip_address, int(words[i - 2]), int(words[i - 3]))


def _address_of(i: int, parts: Sequence[tuple[int, int]]) -> int:
    for start, count in parts:
        if i < count:
            return start + 8 * i
        i -= count
    raise IndexError(i)
