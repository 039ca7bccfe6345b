"""Batches of records as a ring would deliver them, and small traces made of them.

Bytes are put together with struct, not with the dtypes of the code under test:
{u64 time, u32 key, u32 tid | lap << 22} and, in records of 24 bytes, u64 parent_ip.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fentry.formats.tracefile import (
    ClockPair,
    CpuLosses,
    Module,
    Symbol,
    Task,
    TraceMeta,
    TraceWriter,
)

MAIN = 0x401136
LEAF = 0x401106
TICKS_PER_NS = 2
"""Traces made here have a tsc of 2 GHz whose tick 0 is CLOCK_MONOTONIC 0."""

CLOCK = ClockPair(0, 0, 1_600_000_000_000_000_000)


class Call(NamedTuple):
    """One call of a function, before it is a record."""

    time_ns: int
    key: int = 0
    tid: int = 1234
    parent_ip: int = MAIN + 0x10


class Batch(NamedTuple):
    """What the ring's reader delivers."""

    cpu: int
    first_position: int
    records: bytes


def batch(
    cpu: int,
    first_position: int,
    calls: Iterable[Call],
    *,
    capacity: int = 1024,
    record_bytes: int = 24,
) -> Batch:
    """The records of `calls` at consecutive positions of a CPU."""
    out = bytearray()
    for position, call in enumerate(calls, first_position):
        lap = position // capacity % 1024
        out += struct.pack("<QII", call.time_ns * TICKS_PER_NS, call.key, call.tid | lap << 22)
        if record_bytes == 24:
            out += struct.pack("<Q", call.parent_ip)
    return Batch(cpu, first_position, bytes(out))


def many_records(count: int, *, cpu: int = 0, keys: int = 1000, capacity: int = 1 << 20) -> bytes:
    """`count` records of 24 bytes, 100 ns apart, for measuring; positions start at 0."""
    numbers = np.arange(count, dtype=np.uint64)
    out = np.zeros((count, 3), np.uint64)
    out[:, 0] = (numbers * 100 + cpu + 1_000_000_000_000) * TICKS_PER_NS
    keys_of = numbers * np.uint64(0x9E3779B9) % np.uint64(keys)
    laps = numbers // np.uint64(capacity) % np.uint64(1024)
    tids = np.uint64(1000) + numbers % np.uint64(8)
    out[:, 1] = keys_of | (tids | laps << np.uint64(22)) << np.uint64(32)
    out[:, 2] = np.uint64(0x400000) + (keys_of * np.uint64(7) % np.uint64(keys)) * np.uint64(64) + 5
    return out.tobytes()


def meta(*, record_bytes: int = 24, capacity: int = 1024, nr_cpus: int = 2) -> TraceMeta:
    """Plausible metadata of a trace of /usr/bin/demo."""
    return TraceMeta(
        record_bytes=record_bytes,
        capacity=capacity,
        nr_cpus=nr_cpus,
        fentry_version="0.1",
        command_line=("fentry", "record", "-p", "1234"),
        pid=1234,
        exe="/usr/bin/demo",
        host="box",
        kernel="6.1.0",
        tsc_hz=1_000_000_000 * TICKS_PER_NS,
    )


def write_trace(
    path: Path,
    batches: Sequence[Batch],
    *,
    of: TraceMeta | None = None,
    losses: Sequence[CpuLosses] = (),
    close: bool = True,
    names: tuple[str, str] = ("leaf", "main"),
    comm: bytes = b"bash",
    clock: ClockPair = CLOCK,
    build_id: str = "ab12",
) -> None:
    """A trace of functions `leaf` (key 0) and `main` (key 1), thread 1234 being `bash`."""
    writer = TraceWriter(path, of or meta())
    writer.write_clock([clock])
    writer.write_modules([Module("/usr/bin/demo", build_id, 0x400000, 0x402000)])
    writer.write_sites(np.array([0, 1], np.uint32), np.array([LEAF, MAIN], np.uint64))
    writer.write_symbols(
        [Symbol(LEAF, 0x30, names[0], 0, 0x1106), Symbol(MAIN, 0x40, names[1], 0, 0x1136)]
    )
    writer.write_tasks([Task(1234, comm, 0)])
    for one in batches:
        writer.write_records(one.cpu, one.first_position, memoryview(one.records))
    if losses:
        writer.write_losses(losses)
    writer.write_event("detach", 5_000_000_000, stop_ns=1000)
    if close:
        writer.close()
