"""What `fentry export trace.dat` writes, as trace-cmd reads it."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import numpy as np
import pytest
from tests.support.exported import export
from tests.support.odd_names import write_odd_trace
from tests.support.ring_batches import MAIN, Batch, Call, batch, many_records, meta, write_trace
from tests.support.trace_readers import Shown, shown_by_trace_cmd, trace_cmd

from fentry.formats.tracefile import CpuLosses

SECOND_NS = 1_000_000_000


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "t.fentry"


def test_every_call_has_its_thread_cpu_time_and_names(trace: Path, tmp_path: Path) -> None:
    write_trace(
        trace,
        [
            batch(1, 0, [Call(1234_567_890_000), Call(1234_567_892_001)]),
            batch(0, 0, [Call(1234_567_891_000, key=1, parent_ip=0x7F0000001234, tid=77)]),
        ],
    )
    out = export("trace.dat", trace)

    assert trace_cmd(out)[0] == "cpus=2"
    assert shown_by_trace_cmd(out) == [
        Shown("bash", 1234, 1, 1234_567_890_000, "leaf", "main"),
        Shown("<...>", 77, 0, 1234_567_891_000, "main", "0x7f0000001234"),
        Shown("bash", 1234, 1, 1234_567_892_001, "leaf", "main"),
    ]
    assert trace_cmd(out, "--uname")[1:] == ["Linux box 6.1.0 x86_64", "fentry 0.1"]
    assert trace_cmd(out, "-E") == ["ftrace:function"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"t.fentry", "t.trace.dat"}


def test_a_trace_without_parents_has_zero_for_them(trace: Path) -> None:
    calls = batch(0, 0, [Call(SECOND_NS), Call(SECOND_NS + 1, key=1)], record_bytes=16)
    write_trace(trace, [calls], of=meta(record_bytes=16))

    assert shown_by_trace_cmd(export("trace.dat", trace)) == [
        Shown("bash", 1234, 0, SECOND_NS, "leaf", "0x0"),
        Shown("bash", 1234, 0, SECOND_NS + 1, "main", "0x0"),
    ]


def test_a_trace_without_events_is_read(trace: Path) -> None:
    write_trace(trace, [])
    assert trace_cmd(export("trace.dat", trace)) == ["cpus=2"]


def test_events_of_many_pages_keep_their_order(trace: Path) -> None:
    each = 100_000
    batches = [Batch(cpu, 0, many_records(each, cpu=cpu, keys=2)) for cpu in (0, 2)]
    write_trace(trace, batches, of=meta(capacity=1 << 20, nr_cpus=3))
    found = shown_by_trace_cmd(export("trace.dat", trace))

    start_ns = 1000 * SECOND_NS
    times = np.sort(np.add.outer(np.arange(each) * 100 + start_ns, [0, 2]).ravel())
    assert [call.time_ns for call in found] == times.tolist()
    # by hand: odd steps of 0x9E3779B9 are odd; threads take turns
    assert [(c.cpu, c.tid, c.function) for c in found[:6]] == [
        (0, 1000, "leaf"), (2, 1000, "leaf"), (0, 1001, "main"), (2, 1001, "main"),
        (0, 1002, "leaf"), (2, 1002, "leaf"),
    ]  # fmt: skip
    assert sum(call.function == "main" for call in found) == each


GAPS_NS = [0, 1, (1 << 27) - 1, 1 << 27, 3600 * SECOND_NS, (1 << 32) - 1, 1 << 32, 1 << 58, 7]


def test_times_far_apart_are_exact(trace: Path) -> None:
    times = (np.cumsum(GAPS_NS) + SECOND_NS).tolist()
    write_trace(trace, [batch(0, 0, [Call(time_ns) for time_ns in times])])
    assert [call.time_ns for call in shown_by_trace_cmd(export("trace.dat", trace))] == times


def test_pages_are_full_of_events_far_apart(trace: Path) -> None:
    times = [SECOND_NS * (1 + n) for n in range(1000)]
    write_trace(trace, [batch(0, 0, [Call(time_ns) for time_ns in times])])
    out = export("trace.dat", trace)

    assert [call.time_ns for call in shown_by_trace_cmd(out)] == times
    size = next(line for line in trace_cmd(out, "--stat") if line.endswith("bytes in size"))
    # 28 bytes and 8 of a time extend, which the first of a page has not: 113 in 4080
    assert size.split() == [str(4096 * 9), "bytes", "in", "size"]


def test_an_event_out_of_order_keeps_its_time(trace: Path) -> None:
    # further from its place than merging holds back
    times = [SECOND_NS + n for n in range(40_000)]
    calls = [Call(time_ns) for time_ns in [*times, 5, SECOND_NS + 40_000]]
    write_trace(trace, [batch(0, 0, calls, capacity=1 << 16)], of=meta(capacity=1 << 16))

    found = [call.time_ns for call in shown_by_trace_cmd(export("trace.dat", trace))]
    assert sorted(found) == [5, *times, SECOND_NS + 40_000]


def test_lost_records_are_shown_in_their_place(trace: Path) -> None:
    second = [Call(SECOND_NS + 10 + n) for n in range(200)]
    write_trace(
        trace,
        [
            batch(0, 100, [Call(SECOND_NS), Call(SECOND_NS + 1)]),
            batch(1, 0, [Call(SECOND_NS + 2)]),
            batch(0, 107, second),
            batch(0, 308, [Call(SECOND_NS + 500)]),
        ],
        losses=[CpuLosses(0, 203, 3, 6, 1), CpuLosses(1, 1, 0, 0, 0)],
    )
    out = export("trace.dat", trace)

    lines = trace_cmd(out)
    dropped = [number for number, line in enumerate(lines) if "DROPPED" in line]
    assert [lines[number] for number in dropped] == [
        "CPU:0 [5 EVENTS DROPPED]", "CPU:0 [1 EVENTS DROPPED]",
    ]  # fmt: skip
    assert dropped == [4, 205]  # behind three events, and behind 200 more
    counts = [line for line in trace_cmd(out, "--stat") if line.endswith((" 3", " 6", " 1"))]
    assert counts == [
        "overrun: 6", "commit overrun: 1", "dropped events: 3", "CPU: 1", "read events: 1",
    ]  # fmt: skip

    # of chosen events the next one shows it
    few = trace_cmd(export("trace.dat", trace, "--since", "1.0000005", "--force"))
    assert [line for line in few if "DROPPED" in line] == ["CPU:0 [6 EVENTS DROPPED]"]


def test_calls_of_strays_are_on_a_cpu_more(trace: Path) -> None:
    batches = [batch(1, 0, [Call(SECOND_NS)]), batch(2, 0, [Call(SECOND_NS + 1)])]
    write_trace(trace, batches, of=dataclasses.replace(meta(), stray_cpu=2))
    out = export("trace.dat", trace)

    assert trace_cmd(out)[0] == "cpus=3"
    assert [(call.cpu, call.time_ns) for call in shown_by_trace_cmd(out)] == [
        (1, SECOND_NS), (2, SECOND_NS + 1),
    ]  # fmt: skip


def test_counts_stand_for_times_where_there_are_none(trace: Path) -> None:
    def counted(cpu: int, positions: range) -> Batch:
        # a position in the ring is the time of a record; half of it, as a batch counts ticks
        calls = [Call(0) for _ in positions]
        records = np.frombuffer(batch(cpu, positions.start, calls).records, "<u8").copy()
        records[::3] = positions
        return Batch(cpu, positions.start, records.tobytes())

    batches = [counted(0, range(1024, 1027)), counted(1, range(1024, 1026))]
    write_trace(trace, batches, of=dataclasses.replace(meta(), clock="percpu-counter"))
    out = export("trace.dat", trace)

    counts = [call.time_ns for call in shown_by_trace_cmd(out, "--cpu", "0")]
    assert counts == [0, 1, 2]  # not 0.000000000: no time
    assert len(trace_cmd(out)) == 6


def test_names_of_any_bytes_are_one_word_each(trace: Path) -> None:
    write_odd_trace(trace)
    out = export("trace.dat", trace)

    found = [(call.function, call.parent) for call in shown_by_trace_cmd(out)]
    assert [function for function, _ in found[:9]] == [
        "plain", "ns::f(int,unsigned_long)", "operator_new(unsigned_long)", "two_words",
        "_$dollar", "tab?here", "\udcff\udcfe", "[unknown]", "outside",
    ]  # fmt: skip
    assert [parent for _, parent in found[1:9]] == [function for function, _ in found[:8]]
    assert [parent for _, parent in found[9:]] == ["[my_lib.so]", "0x200000"]
    comms = {call.tid: call.comm for call in shown_by_trace_cmd(out)}
    assert comms == {1234: "?[31m", 77: "<...>"}  # the last name; a blank is none
    listed = trace_cmd(out, "-f")
    assert "0000000000009000 [vdso]" in listed and "000000000000a000 [unknown]" in listed


def test_a_caller_that_does_not_come_back_keeps_its_name(trace: Path) -> None:
    # the call is the last instruction of main, [MAIN, MAIN + 0x40): the address behind is no part
    write_trace(trace, [batch(0, 0, [Call(SECOND_NS, parent_ip=MAIN + 0x40)])])
    out = export("trace.dat", trace)
    assert "leaf+0x0  <-- main+0x3f" in trace_cmd(out, "-O", "parent", "-O", "offset")[1]


def test_what_is_whole_of_a_damaged_trace_is_written(trace: Path) -> None:
    batches = [
        batch(cpu, first, [Call(SECOND_NS + first + n) for n in range(100)])
        for first in range(0, 1000, 100)
        for cpu in (0, 1)
    ]
    write_trace(trace, batches, close=False)
    whole = trace.read_bytes()
    middle = len(whole) // 2
    trace.write_bytes(whole[:middle] + b"\xa5" * 5000 + whole[middle + 5000 : -1000])

    found = shown_by_trace_cmd(export("trace.dat", trace))
    assert 1000 < len(found) < 1900
    assert {call.function for call in found} == {"leaf"}
    for cpu in (0, 1):
        times = [call.time_ns for call in found if call.cpu == cpu]
        assert times == sorted(set(times)) and times[0] == SECOND_NS
    assert any("EVENTS DROPPED" in line for line in trace_cmd(trace.with_suffix(".trace.dat")))
