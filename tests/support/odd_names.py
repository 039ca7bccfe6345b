"""A trace whose names are as a target may choose them: blanks, control bytes, what is no UTF-8."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fentry.formats.tracefile import ClockPair, Module, Symbol, Task, TraceWriter
from tests.support.ring_batches import Call, batch, meta

SECOND_NS = 1_000_000_000
FIRST = 0x5000
STEP = 0x100
"""Function n is [FIRST + n * STEP, 16 bytes), the first seven in /opt/my lib.so."""

NAMES = (
    "plain",
    "_ZN2ns1fEim",  # ns::f(int, unsigned long)
    "_Znwm",
    "two words",
    "$dollar",
    "tab\there",
    "\udcff\udcfe",
    "",
    "outside",
)
LIBRARY = Module("/opt/my lib.so", "", 0x4000, FIRST + 7 * STEP)
TWIN = Module("/usr/my lib.so", "", FIRST + 7 * STEP, FIRST + 8 * STEP)
VDSO = Module("[vdso]", "", 0x9000, 0xA000)


def ip_of(number: int) -> int:
    """Where function `number` begins."""
    return FIRST + number * STEP


def write_odd_trace(path: Path) -> None:
    """One call of each function by the one before it, a second apart, then one from no symbol and
    one from where no file is."""
    with TraceWriter(path, meta()) as writer:
        writer.write_clock([ClockPair(0, 0, 0)])
        writer.write_modules([VDSO, TWIN, LIBRARY])
        numbers = np.arange(len(NAMES))
        writer.write_sites(numbers.astype(np.uint32), (FIRST + numbers * STEP).astype(np.uint64))
        writer.write_symbols([Symbol(ip_of(n), 16, name, -1, 0) for n, name in enumerate(NAMES)])
        tasks = [Task(1234, b"two words", 0), Task(1234, b"\x1b[31m", 5), Task(77, b" ", 0)]
        writer.write_tasks(tasks)
        calls = [
            Call((1 + n) * SECOND_NS, n, parent_ip=ip_of(max(n - 1, 0)) + 5)
            for n in range(len(NAMES))
        ]
        calls.append(Call(20 * SECOND_NS, tid=77, parent_ip=ip_of(0) + 0x20))
        calls.append(Call(21 * SECOND_NS, tid=77, parent_ip=0x20_0000))
        one = batch(0, 0, calls)
        writer.write_records(one.cpu, one.first_position, memoryview(one.records))
