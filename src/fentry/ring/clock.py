"""The clock of the records, read in this process: the CPU's time stamp counter.

It is the kernel's clock source on every machine where it is fit to be one; elsewhere we say so
instead of using it.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from fentry.errors import BadInput
from fentry.ring.layout import CLOCK_NAMES
from fentry.x86.asm import Asm
from fentry.x86.registers import rax, rdx

_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_TRIES = 5


class ClockPair(NamedTuple):
    """One moment on three clocks: ticks, ns of CLOCK_MONOTONIC, ns of CLOCK_REALTIME."""

    tsc: int
    monotonic_ns: int
    realtime_ns: int


def clock_number(name: str) -> int:
    """What a ring's header says for a clock. Raises BadInput for one that is not known."""
    if name not in CLOCK_NAMES:
        raise BadInput(f"{name!r} is no clock", remedy="tsc or percpu-counter")
    return CLOCK_NAMES.index(name)


def clock_source() -> str:
    """The kernel's current clock source: "tsc" where records can be dated by it."""
    with open(_SOURCE, encoding="utf-8") as file:
        return file.read().strip()


def check_clock() -> None:
    """Refuse to date records by a counter that the kernel itself does not trust.

    Raises BadInput.
    """
    source = clock_source()
    if source != "tsc":
        raise BadInput(
            f"this machine's clock source is {source}, not tsc",
            cause="its time stamp counters may differ or jump",
            remedy="--clock percpu-counter, or fentry stat, which counts without a clock",
        )


@cache
def _reader() -> tuple[mmap.mmap, Callable[[], int]]:
    a = Asm()
    a.rdtsc()
    a.shl(rdx, 32)
    a.or_(rax, rdx)
    a.ret()
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(a.assemble(0).data)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory, ctypes.CFUNCTYPE(ctypes.c_uint64)(address)


def read_tsc() -> int:
    """The time stamp counter now, in ticks."""
    return int(_reader()[1]())


def sample() -> ClockPair:
    """The clocks at one moment: of several tries the one that took the least time."""
    best: tuple[int, ClockPair] | None = None
    for _ in range(_TRIES):
        before = read_tsc()
        monotonic_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        after = read_tsc()
        realtime_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        pair = ClockPair((before + after) // 2, monotonic_ns, realtime_ns)
        if best is None or after - before < best[0]:
            best = after - before, pair
    assert best is not None
    return best[1]
