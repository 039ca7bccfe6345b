"""A trace file, asked as a live trace is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.ring_batches import LEAF, MAIN, Call, batch, meta, write_trace

import fentry
from fentry.errors import BadInput, SymbolNotFound, TraceFileError
from fentry.formats.tracefile import CpuLosses
from fentry.tracing import Lost


def small(tmp_path: Path, **options: object) -> Path:
    path = tmp_path / "trace.fentry"
    calls = [Call(1000), Call(3000, key=1, parent_ip=0x999999)], [Call(2000), Call(2500)]
    batches = [batch(cpu, 1024, calls[cpu]) for cpu in (0, 1)]
    losses = [CpuLosses(0, 2, 7, 0, 1), CpuLosses(1, 2, 0, 3, 0)]
    write_trace(path, batches, losses=losses, **options)  # type: ignore[arg-type]
    return path


def test_the_table_of_a_file(tmp_path: Path) -> None:
    with fentry.open(small(tmp_path)) as trace:
        table = trace.table()
    assert table.time_ns.tolist() == [1000, 2000, 2500, 3000]
    assert table.cpu.tolist() == [0, 1, 1, 0]
    assert table.function.tolist() == ["leaf", "leaf", "leaf", "main"]
    assert table.module.tolist() == ["demo"] * 4
    assert table.parent.tolist() == ["main", "main", "main", "0x00999999"]
    assert table.comm.tolist() == ["bash"] * 4
    assert table.ip.tolist() == [LEAF, LEAF, LEAF, MAIN]
    assert table.lost == Lost(dropped=7, overrun=3, incomplete=1)


def test_counts_and_losses_of_a_file(tmp_path: Path) -> None:
    with fentry.open(small(tmp_path)) as trace:
        assert trace.counts() == {"leaf": 3, "main": 1}
        assert len(trace) == 4
        assert trace.calls == 4 + 11
        assert trace.meta.pid == 1234
        assert trace.damage == []
        assert repr(trace).endswith("/usr/bin/demo, pid 1234, 4 events, 11 lost>")


def test_functions_that_were_traced_and_not_called_have_zero(tmp_path: Path) -> None:
    path = tmp_path / "trace.fentry"
    write_trace(path, [batch(0, 1024, [Call(1000)])])
    with fentry.open(path) as trace:
        counts = trace.counts()
    assert counts["main"] == 0 and counts == {"leaf": 1}
    with pytest.raises(SymbolNotFound):
        counts["mian"]


def test_the_stream_of_a_file_is_in_order_of_time(tmp_path: Path) -> None:
    with fentry.open(small(tmp_path)) as trace:
        with trace.stream() as stream:
            assert [event.time_ns for event in stream] == [1000, 2000, 2500, 3000]
            assert stream.lost.total == 11
            assert stream.why_ended == "the trace is over"
        tables = list(trace.stream("leaf", batches=True))
        assert sum(len(table) for table in tables) == 3


def test_a_part_of_a_file(tmp_path: Path) -> None:
    with fentry.open(small(tmp_path)) as trace:
        assert trace.table("demo!main").time_ns.tolist() == [3000]
        assert trace.table(exclude="main").time_ns.tolist() == [1000, 2000, 2500]
        assert trace.table(since_ns=2000, until_ns=3000).time_ns.tolist() == [2000, 2500]
        with pytest.raises(SymbolNotFound) as found:
            trace.table("laef")
        assert found.value.near == ("leaf",)


def test_a_table_that_would_be_too_large_is_refused(tmp_path: Path) -> None:
    with fentry.open(small(tmp_path)) as trace:
        with pytest.raises(BadInput, match="more than 3 events"):
            trace.table(max_events=3)
        assert len(trace.table(max_events=4)) == 4


def test_a_file_without_times(tmp_path: Path) -> None:
    import dataclasses

    of = dataclasses.replace(meta(), clock="percpu-counter")
    path = tmp_path / "trace.fentry"
    write_trace(path, [batch(0, 1024, [Call(512), Call(513)])], of=of)  # two ticks a nanosecond
    with fentry.open(path) as trace:
        table = trace.table()
        assert not table.has_time
        assert table.time_ns.tolist() == [0, 2]
        assert repr(table) == "<Table: 2 events, 0 lost, 1 functions, 1 threads>"
        with pytest.raises(BadInput, match="no times"):
            trace.table(since_ns=1)


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("hello")
    with pytest.raises(TraceFileError, match="cannot read"):
        fentry.open(path)
    with pytest.raises(TraceFileError, match="cannot read"):
        fentry.open(tmp_path / "none")
