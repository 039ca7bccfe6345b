"""What `fentry export` makes of traces in tests, and a trace with everything in it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from fentry.cli.__main__ import words
from fentry.formats.tracefile import (
    ClockPair,
    CpuLosses,
    Module,
    Symbol,
    Task,
    TraceWriter,
)
from tests.support.ring_batches import LEAF, MAIN, Call, batch, many_records, meta


def export(form: str, trace: Path, *options: str) -> Path:
    """The file that `fentry export FORM` writes for a trace; it must succeed."""
    out = trace.with_suffix(f".{form}")
    done = CliRunner().invoke(words, ["export", form, "-i", str(trace), "-o", str(out), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return out


def write_lossy_trace(path: Path) -> None:
    """A trace of threads `bash` and, in the forked child 99, `kid`, with names of odd bytes.

    Calls at 1 to 10 us, seconds after boot; 5 were overwritten on CPU 0, 4 refused on CPU 3.
    """
    with TraceWriter(path, meta()) as writer:
        writer.write_clock([ClockPair(0, 0, 1_600_000_000_000_000_000)])
        writer.write_modules([Module("/opt/d\udcffmo", "ab12", 0x400000, 0x402000)])
        writer.write_sites(np.array([0, 1], np.uint32), np.array([LEAF, MAIN], np.uint64))
        writer.write_symbols(
            [Symbol(LEAF, 0x30, "l\udcff\x01 'af", 0), Symbol(MAIN, 0x40, "ma\u00efn")]
        )
        writer.write_tasks([Task(1234, b"ba\xffsh", 0), Task(99, b"kid", 0)])
        for one in (
            batch(0, 0, [Call(1000), Call(2000)]),
            batch(0, 7, [Call(9000, key=1)]),
            batch(3, 0, [Call(3000, tid=99, parent_ip=LEAF + 1)]),
            batch(0, 8, [Call(10_000)]),
        ):
            writer.write_records(one.cpu, one.first_position, memoryview(one.records))
        writer.write_losses([CpuLosses(0, 10, 0, 5, 0), CpuLosses(3, 10, 4, 0, 1)])
        writer.write_event("fork", 2500, pid=99, parent=1234, name="fork\udcffed")
        writer.write_event("modules", 5000, loaded=["/lib/a.so"], functions=7, not_before_ns=4000)
        writer.write_event("detach", 5_000_000_000)


def write_long_trace(path: Path, nr_records: int) -> None:
    """A trace of two CPUs, 8 threads and 1000 functions; a tenth of the callers have no symbol."""
    functions = np.uint64(0x400000) + np.arange(1000, dtype=np.uint64) * np.uint64(64)
    with TraceWriter(path, meta(capacity=1 << 20)) as writer:
        writer.write_clock([ClockPair(0, 0, 1_600_000_000_000_000_000)])
        writer.write_sites(np.arange(1000, dtype=np.uint32), functions)
        writer.write_symbols(
            [Symbol(ip, 64, f"function_{i}") for i, ip in enumerate(functions.tolist()) if i % 10]
        )
        for cpu in range(2):
            records = memoryview(many_records(nr_records // 2, cpu=cpu))
            for start in range(0, len(records), 24 * 65536):
                writer.write_records(cpu, start // 24, records[start : start + 24 * 65536])


def write_cut_trace(path: Path) -> None:
    """A trace that ends in the middle of a record: 8 whole ones of CPU 0 and 4 of CPU 1."""
    writer = TraceWriter(path, meta())
    writer.write_clock([ClockPair(0, 0, 1_600_000_000_000_000_000)])
    writer.write_sites(np.array([0], np.uint32), np.array([LEAF], np.uint64))
    writer.write_symbols([Symbol(LEAF, 0x30, "leaf")])
    for cpu in range(2):
        one = batch(cpu, 0, [Call(1000 * number + cpu) for number in range(1, 9)])
        writer.write_records(cpu, 0, memoryview(one.records))
    os.truncate(path, path.stat().st_size - 3 * 24 - 10)
