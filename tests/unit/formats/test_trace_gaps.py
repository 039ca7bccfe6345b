"""Gaps: jumps of a CPU's positions from one section with records to the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.ring_batches import Batch, Call, batch, meta, write_trace

from fentry.formats.gaps import Gap, gaps
from fentry.formats.tracefile import TraceMeta, TraceReader


def gaps_of(path: Path, batches: list[Batch], of: TraceMeta | None = None) -> list[Gap]:
    write_trace(path, batches, of=of)
    with TraceReader(path) as trace:
        return list(gaps(trace))


def test_a_jump_is_a_gap_of_its_cpu(tmp_path: Path) -> None:
    found = gaps_of(tmp_path / "t", [
        batch(0, 3, [Call(10), Call(20)]),
        batch(1, 0, [Call(15)]),
        batch(0, 5, [Call(30)]),
        batch(1, 100, [Call(115), Call(120)]),
        batch(0, 7, [Call(70)]),
    ])  # fmt: skip
    assert found == [
        Gap(cpu=1, lost=99, since_ns=15, until_ns=115),
        Gap(cpu=0, lost=1, since_ns=30, until_ns=70),
    ]


def test_a_section_that_is_damaged_leaves_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_trace(path, [batch(0, place, [Call(10 + place)]) for place in range(3)])
    data = bytearray(path.read_bytes())
    record = batch(0, 1, [Call(11)]).records
    data[data.index(record) - 32] ^= 1  # in the header before its records, which has a checksum
    path.write_bytes(data)
    with TraceReader(path) as trace:
        assert list(gaps(trace)) == [Gap(cpu=0, lost=1, since_ns=10, until_ns=12)]
        assert trace.damage


def test_counts_stand_for_times_where_there_are_none(tmp_path: Path) -> None:
    # such a record's position begins at the capacity, and the tsc of tests has 2 ticks a ns
    first, second = batch(0, 0, [Call(512)]), batch(0, 6, [Call(515)])
    found = gaps_of(tmp_path / "t", [first, second], replace(meta(), clock="percpu-counter"))
    assert found == [Gap(cpu=0, lost=5, since_ns=0, until_ns=6)]


def test_no_records_have_no_gaps(tmp_path: Path) -> None:
    assert gaps_of(tmp_path / "t", []) == []
