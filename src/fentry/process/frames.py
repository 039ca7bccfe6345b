"""Signal frames on the stacks of stopped threads: where interrupted code will go on.

The kernel's frame (struct rt_sigframe, arch/x86/include/asm/sigframe.h) holds a sigcontext
(arch/x86/include/uapi/asm/sigcontext.h): ... rsp, rip, eflags, then cs, gs, fs and ss as four
16-bit words.  In 64-bit code these four are 0x33, 0, 0, 0x2b: a word that nothing else has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
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
    starts = [m.start for m in maps]
    found: dict[int, SignalFrame] = {}
    todo = [t.regs.rsp for t in stop.threads.values() if t.regs.rip]
    searched: dict[int, list[tuple[int, int]]] = {}  # by mapping: several stacks may lie in one
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
        for frame in _frames_in(memory.read_some(start, end - start + _FRAME_BYTES), start):
            if frame.rip_address not in found:
                found[frame.rip_address] = frame
                todo.append(frame.rsp)
    return list(found.values())


def _frames_in(stack: bytes, address: int) -> list[SignalFrame]:
    words = np.frombuffer(stack, dtype="<u8", count=len(stack) // 8)
    hits = np.flatnonzero(words == _SEGMENTS)
    return [
        SignalFrame(address + 8 * (i - 2), int(words[i - 2]), int(words[i - 3]))
        for i in hits.tolist()
        if i >= 3 and words[i - 1] < _FLAGS_LIMIT
    ]
