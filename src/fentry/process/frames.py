"""Signal frames on the stacks of stopped threads: where interrupted code will go on.

The kernel's frame (struct rt_sigframe, arch/x86/include/asm/sigframe.h) holds a sigcontext
(arch/x86/include/uapi/asm/sigcontext.h): ... rsp, rip, eflags, then cs, gs, fs and ss as four
16-bit words.  In 64-bit code these four are 0x33, 0, 0, 0x2b: a word that nothing else has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
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
    found: dict[int, SignalFrame] = {}
    for start, part in used_stacks(stop, memory, maps):
        found.update({frame.rip_address: frame for frame in _frames_in(part, start)})
    return list(found.values())


def words_into(
    stop: Stop, memory: Memory, maps: Sequence[Mapping], spans: Sequence[tuple[int, int]]
) -> bool:
    """Whether a word on the used part of any stack lies in one of the spans (low, high): a return
    address, or what is left of one."""
    for _, part in used_stacks(stop, memory, maps):
        words = np.frombuffer(part, dtype="<u8", count=len(part) // 8)
        if any(
            ((words >= np.uint64(low)) & (words < np.uint64(high))).any() for low, high in spans
        ):
            return True
    return False


def used_stacks(stop: Stop, memory: Memory, maps: Sequence[Mapping]) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of the used parts of all stacks, each once, and a frame's bytes more."""
    starts = [m.start for m in maps]
    todo = [t.regs.rsp for t in stop.threads.values() if t.regs.rip]
    searched: dict[int, list[tuple[int, int]]] = {}  # by mapping: several stacks may lie in one
    seen: set[int] = set()
    while todo:
        rsp = todo.pop()
        i = bisect_right(starts, rsp) - 1
        if i < 0 or rsp >= maps[i].end:
            continue
        start = rsp & ~7
        end = min(maps[i].end, start + _LONGEST_BYTES)
        spans = searched.setdefault(i, [])
        for low, high in spans:
            if low <= start < high:
                start = high
            elif start < low < end <= high:
                end = low
        if start >= end:
            continue
        spans.append((start, end))
        part = memory.read_some(start, end - start + _FRAME_BYTES)
        for frame in _frames_in(part, start):
            if frame.rip_address not in seen:
                seen.add(frame.rip_address)
                todo.append(frame.rsp)
        yield start, part


def _frames_in(stack: bytes, address: int) -> list[SignalFrame]:
    words = np.frombuffer(stack, dtype="<u8", count=len(stack) // 8)
    hits = np.flatnonzero(words == _SEGMENTS)
    return [
        SignalFrame(address + 8 * (i - 2), int(words[i - 2]), int(words[i - 3]))
        for i in hits.tolist()
        if i >= 3 and words[i - 1] < _FLAGS_LIMIT
    ]
