"""Traces for Perfetto, in both forms, read by Perfetto's own trace_processor."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.exported import (
    export,
    write_cut_trace,
    write_long_trace,
    write_lossy_trace,
)
from tests.support.ring_batches import Call, batch, meta, write_trace
from tests.support.trace_processor import TraceProcessor, trace_processor

from fentry.cli.__main__ import words
from fentry.formats.tracefile import CpuLosses, TraceWriter

CALLS = """
    select ts, slice.name, category, tid, thread.name, pid, process.name
    from slice join thread_track on slice.track_id = thread_track.id
    join thread using (utid) join process using (upid) order by ts
"""
PARENTS = """
    select slice.name, display_value, count(*)
    from slice join thread_track on slice.track_id = thread_track.id join args using (arg_set_id)
    where key in ('debug.parent', 'args.parent') group by 1, 2 order by 1, 2
"""
BESIDE = """
    select process_track.name, ts, dur, slice.name
    from slice join process_track on slice.track_id = process_track.id order by 1, 2
"""
VALUES = """
    select process_track.name, ts, key, display_value from slice
    join process_track on slice.track_id = process_track.id join args using (arg_set_id)
    where key like 'debug%' order by 1, 2, 3
"""
ERRORS = """
    select name, idx, value from stats
    where (severity in ('error', 'data_loss') or name like 'traced_buf%') and value > 0
    order by 1, 2
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[TraceProcessor]:
    with trace_processor() as running:
        yield running


@pytest.mark.parametrize("form", ["perfetto", "chrome"])
def test_every_call_is_on_the_track_of_its_thread(
    tmp_path: Path, reader: TraceProcessor, form: str
) -> None:
    trace = tmp_path / "t"
    write_trace(trace, [
        batch(1, 0, [Call(1234_567_890_000), Call(1234_567_892_001)]),
        batch(0, 0, [Call(1234_567_891_000, key=1, parent_ip=0x7F0000001234, tid=77)]),
    ])  # fmt: skip
    calls, parents, errors = reader.ask(export(form, trace), CALLS, PARENTS, ERRORS)
    module = "/usr/bin/demo" if form == "perfetto" else None
    assert calls == [
        [1234567890000, "leaf", module, 1234, "bash", 1234, "/usr/bin/demo"],
        [1234567891000, "main", module, 77, "<...>", 1234, "/usr/bin/demo"],
        [1234567892001, "leaf", module, 1234, "bash", 1234, "/usr/bin/demo"],
    ]
    assert parents == [["leaf", "main", 2], ["main", "0x7f0000001234", 1]]
    assert errors == []


def test_times_are_monotonic_and_known_as_dates(tmp_path: Path, reader: TraceProcessor) -> None:
    write_trace(tmp_path / "t", [batch(0, 0, [Call(1_000_000_007)])])
    clock, dates, system = reader.ask(
        export("perfetto", tmp_path / "t"),
        "select int_value from metadata where name = 'trace_time_clock_id'",
        "select ts, abs_time_str(ts) from slice",
        "select str_value from metadata where name in ('system_release', 'system_machine')",
    )
    assert clock == [[3]]  # CLOCK_MONOTONIC there
    assert dates == [[1_000_000_007, "2020-09-13T12:26:41.000000007"]]
    assert system == [["6.1.0"], ["x86_64"]]


def test_what_was_lost_is_seen_where_it_was_lost(tmp_path: Path, reader: TraceProcessor) -> None:
    write_lossy_trace(tmp_path / "t")
    beside, values, errors = reader.ask(export("perfetto", tmp_path / "t"), BESIDE, VALUES, ERRORS)
    assert beside == [
        ["CPU 0 lost", 2000, 7000, "5 calls"],
        ["CPU 0 lost", 10_000, 0, "in all until here"],
        ["CPU 3 lost", 10_000, 0, "in all until here"],
        ["fentry", 2500, 0, "fork"],
        ["fentry", 5000, 0, "modules"],
    ]
    assert values == [
        ["CPU 0 lost", 10_000, "debug.dropped_events", "0"],
        ["CPU 0 lost", 10_000, "debug.incomplete", "0"],
        ["CPU 0 lost", 10_000, "debug.overrun", "5"],
        ["CPU 3 lost", 10_000, "debug.dropped_events", "4"],
        ["CPU 3 lost", 10_000, "debug.incomplete", "1"],
        ["CPU 3 lost", 10_000, "debug.overrun", "0"],
        ["fentry", 2500, "debug.name", "fork\ufffded"],
        ["fentry", 2500, "debug.parent", "1234"],
        ["fentry", 2500, "debug.pid", "99"],
        ["fentry", 5000, "debug.functions", "7"],
        ["fentry", 5000, "debug.loaded", '["/lib/a.so"]'],
        ["fentry", 5000, "debug.not_before_ns", "4000"],
    ]
    assert errors == [
        ["traced_buf_chunks_discarded", 3, 4],
        ["traced_buf_chunks_overwritten", 0, 5],
    ]


def test_names_of_odd_bytes_and_forked_children(tmp_path: Path, reader: TraceProcessor) -> None:
    write_lossy_trace(tmp_path / "t")
    calls, parents = reader.ask(export("perfetto", tmp_path / "t"), CALLS, PARENTS)
    leaf, demo, bash = "l\ufffd? 'af", "/opt/d\ufffdmo", "ba\ufffdsh"
    assert calls == [
        [1000, leaf, demo, 1234, bash, 1234, "/usr/bin/demo"],
        [2000, leaf, demo, 1234, bash, 1234, "/usr/bin/demo"],
        [3000, leaf, demo, 99, "kid", 99, "fork\ufffded"],
        [9000, "ma\u00efn", "[unknown]", 1234, bash, 1234, "/usr/bin/demo"],
        [10_000, leaf, demo, 1234, bash, 1234, "/usr/bin/demo"],
    ]
    assert parents == [
        [leaf, leaf, 1],
        [leaf, "ma\u00efn", 3],
        ["ma\u00efn", "ma\u00efn", 1],
    ]


def test_gaps_outside_of_the_chosen_time_are_not_shown(
    tmp_path: Path, reader: TraceProcessor
) -> None:
    write_lossy_trace(tmp_path / "t")
    (beside,) = reader.ask(
        export("perfetto", tmp_path / "t", "--since", "0.0000085"),
        "select ts from slice where slice.name <> 'in all until here' order by ts",
    )
    assert beside == [[9000], [9000], [10_000]]  # the end of the gap, and two calls


@pytest.mark.parametrize("form", ["perfetto", "chrome"])
def test_records_without_a_parent(tmp_path: Path, reader: TraceProcessor, form: str) -> None:
    records = batch(0, 0, [Call(1000), Call(2000, key=1)], record_bytes=16)
    write_trace(tmp_path / "t", [records], of=meta(record_bytes=16))
    calls, parents = reader.ask(export(form, tmp_path / "t"), CALLS, PARENTS)
    assert [row[:2] for row in calls] == [[1000, "leaf"], [2000, "main"]]
    assert parents == []


@pytest.mark.parametrize("form", ["perfetto", "chrome"])
def test_a_trace_without_times_is_refused(tmp_path: Path, form: str) -> None:
    write_trace(tmp_path / "t", [], of=replace(meta(), clock="percpu-counter"))
    done = CliRunner().invoke(words, ["export", form, "-i", str(tmp_path / "t")])
    assert done.exit_code == 1
    assert str(done.exception).startswith(f"{form} needs times, and this trace has none")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("form", ["perfetto", "chrome"])
def test_an_empty_trace_is_a_trace(tmp_path: Path, reader: TraceProcessor, form: str) -> None:
    write_trace(tmp_path / "t", [])
    assert reader.ask(export(form, tmp_path / "t"), CALLS, ERRORS) == [[], []]


@pytest.mark.parametrize("form", ["perfetto", "chrome"])
def test_all_whole_records_of_a_damaged_trace(
    tmp_path: Path, reader: TraceProcessor, form: str
) -> None:
    write_cut_trace(tmp_path / "t")
    (calls,) = reader.ask(export(form, tmp_path / "t"), CALLS)
    assert [row[0] for row in calls] == [
        1000, 1001, 2000, 2001, 3000, 3001, 4000, 4001, 5000, 6000, 7000, 8000,
    ]  # fmt: skip


def test_a_number_that_no_cpu_has_is_no_harm(tmp_path: Path, reader: TraceProcessor) -> None:
    losses = [CpuLosses(1, 1, 3, 0, 0), CpuLosses(0xFFFF_FFFF, 1, 5, 0, 0)]
    write_trace(tmp_path / "t", [batch(0, 0, [Call(1000)])], losses=losses)
    calls, errors = reader.ask(export("perfetto", tmp_path / "t"), CALLS, ERRORS)
    assert len(calls) == 1
    assert errors == [["traced_buf_chunks_discarded", 1, 3]]


def test_times_without_a_clock_are_ticks(tmp_path: Path, reader: TraceProcessor) -> None:
    with TraceWriter(tmp_path / "t", replace(meta(), tsc_hz=0)) as writer:
        writer.write_records(0, 0, memoryview(batch(0, 0, [Call(1000, tid=77)]).records))
    calls, dates = reader.ask(
        export("perfetto", tmp_path / "t"), CALLS, "select abs_time_str(ts) from slice"
    )
    assert calls == [[2000, "0", "[unknown]", 77, "<...>", 1234, "/usr/bin/demo"]]
    assert dates == [[None]]


def test_traces_one_after_the_other_in_a_file(tmp_path: Path, reader: TraceProcessor) -> None:
    write_trace(tmp_path / "a", [batch(0, 0, [Call(1000)])])
    write_trace(
        tmp_path / "b", [batch(0, 0, [Call(2000, key=1, tid=77)])], of=replace(meta(), pid=77)
    )
    both = tmp_path / "both"
    both.write_bytes(b"".join(export("perfetto", tmp_path / one).read_bytes() for one in "ab"))
    calls, errors = reader.ask(both, CALLS, ERRORS)
    assert [(row[0], row[1], row[5]) for row in calls] == [(1000, "leaf", 1234), (2000, "main", 77)]
    assert errors == []


def test_more_addresses_without_a_symbol_than_are_remembered(
    tmp_path: Path, reader: TraceProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fentry.formats.symbol_names._MAX_UNKNOWN", 300)
    monkeypatch.setattr("fentry.formats.perfetto._AT_ONCE", 200)
    callers = [0x7F0000000000 + 16 * (number % 1000) for number in range(3000)]
    calls = [Call(1000 * number, parent_ip=caller) for number, caller in enumerate(callers)]
    write_trace(tmp_path / "t", [batch(0, 0, calls, capacity=4096)], of=meta(capacity=4096))
    counts, errors = reader.ask(
        export("perfetto", tmp_path / "t"),
        """
        select count(*), count(distinct display_value),
            sum(display_value = printf('0x%x', 0x7f0000000000 + 16 * (ts / 1000 % 1000)))
        from slice join args using (arg_set_id) where key = 'debug.parent'
        """,
        ERRORS,
    )
    assert counts == [[3000, 1000, 3000]]
    assert errors == []


def test_a_long_trace_takes_no_more_memory(tmp_path: Path) -> None:
    write_long_trace(tmp_path / "t", 700_000)
    tracemalloc.start()
    out = export("perfetto", tmp_path / "t")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.stat().st_size > 35_000_000
    assert peak < 32_000_000
    lengths = packet_lengths(out.read_bytes())
    assert lengths.count(48) == 700_000


def packet_lengths(trace: bytes) -> list[int]:
    """The content length of every TracePacket of a file, which holds nothing else."""
    found, at = [], 0
    while at < len(trace):
        assert trace[at] == 0x0A  # field 1, with a length
        length = shift = 0
        while True:
            at += 1
            length |= (trace[at] & 0x7F) << shift
            shift += 7
            if trace[at] < 0x80:
                break
        found.append(length)
        at += 1 + length
    assert at == len(trace)
    return found
