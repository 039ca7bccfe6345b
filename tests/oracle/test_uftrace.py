"""What `fentry export uftrace` makes, as uftrace reads it."""

from __future__ import annotations

import dataclasses
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.support.exported import export
from tests.support.odd_names import write_odd_trace
from tests.support.ring_batches import (
    LEAF,
    MAIN,
    Batch,
    Call,
    batch,
    many_records,
    meta,
    write_trace,
)
from tests.support.trace_readers import calls_by_uftrace, uftrace

from fentry.cli.__main__ import words
from fentry.formats.tracefile import Module, Symbol, TraceWriter

SECOND_NS = 1_000_000_000


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "t.fentry"


def test_every_call_is_shown_in_order_of_time(trace: Path) -> None:
    write_trace(
        trace,
        [
            batch(1, 0, [Call(1234_567_890_000), Call(1234_567_892_001)]),
            batch(0, 0, [Call(1234_567_891_000, key=1, parent_ip=0x7F0000001234, tid=77)]),
            batch(0, 1, [Call(1235_000_000_000, key=9)]),
        ],
    )
    out = export("uftrace", trace)

    assert uftrace("replay", out)[1:] == [
        "            [  1234] | leaf();",
        "            [    77] | main();",
        "            [  1234] | leaf();",
        "            [  1234] | <0>();",
    ]
    fields = uftrace("replay", out, "-f", "tid,addr,time,module")
    assert [line.split() for line in fields[1:]] == [
        ["[", "1234]", f"{LEAF:x}", "1234.567890000", "demo", "|", "leaf();"],
        ["[", "77]", f"{MAIN:x}", "1234.567891000", "demo", "|", "main();"],
        ["[", "1234]", f"{LEAF:x}", "1234.567892001", "demo", "|", "leaf();"],
        ["[", "1234]", "0", "1235.000000000", "[unknown]", "|", "<0>();"],
    ]
    assert calls_by_uftrace(out) == {"leaf": 2, "main": 1, "<0>": 1}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_a_call_is_an_entry_and_an_exit_at_once(trace: Path) -> None:
    write_trace(trace, [batch(0, 0, [Call(SECOND_NS + 5)], record_bytes=16)],
                of=meta(record_bytes=16))  # fmt: skip
    lines = uftrace("dump", export("uftrace", trace))
    assert lines[-2:] == [
        "1.000000005   1234: [entry] leaf(401106) depth: 0",
        "1.000000005   1234: [exit ] leaf(401106) depth: 0",
    ]


def test_the_folder_says_what_was_traced(trace: Path) -> None:
    write_trace(trace, [batch(0, 0, [Call(SECOND_NS), Call(SECOND_NS + 1, tid=77)])])
    lines = [line.partition(":")[::2] for line in uftrace("info", export("uftrace", trace))]
    said = {key.strip("# "): value.strip() for key, value in lines}

    assert said["program version"] == "fentry 0.1"
    assert said["cmdline"] == "fentry record -p 1234"
    assert said["kernel version"] == "Linux 6.1.0"
    assert said["hostname"] == "box"
    assert said["exe image"] == "/usr/bin/demo"
    assert said["task list"] == "77(demo), 1234(demo)"


def test_events_of_many_threads_are_all_there(trace: Path) -> None:
    batches = [Batch(cpu, 0, many_records(100_000, cpu=cpu, keys=2)) for cpu in (0, 1)]
    write_trace(trace, batches, of=meta(capacity=1 << 20))
    out = export("uftrace", trace)

    assert calls_by_uftrace(out) == {"leaf": 100_000, "main": 100_000}
    tasks = [line.split() for line in uftrace("report", out, "--task")[2:]]
    assert sorted(tasks) == [[str(tid), "25000", "demo"] for tid in range(1000, 1008)]
    one = np.fromfile(out / "1000.dat", "<u8").reshape(-1, 2)[::2, 0]
    assert one.tolist() == sorted(
        1000 * SECOND_NS + call * 800 + cpu for call in range(12_500) for cpu in (0, 1)
    )


def test_names_of_any_bytes_are_kept(trace: Path) -> None:
    write_odd_trace(trace)
    out = export("uftrace", trace)

    found = [line.split("|") for line in uftrace("replay", out, "-f", "module")[1:]]
    assert [(module.strip(), name.strip()) for module, name in found] == [
        ("my_lib.so", "plain();"),
        ("my_lib.so", "ns::f();"),
        ("my_lib.so", "operator new();"),
        ("my_lib.so", "two words();"),
        ("my_lib.so", "$dollar();"),
        ("my_lib.so", "tab?here();"),
        ("my_lib.so", "\udcff\udcfe();"),
        ("my_lib.so~2", "?();"),
        ("unknown", "outside();"),
        ("my_lib.so", "plain();"),
        ("my_lib.so", "plain();"),
    ]


def test_of_two_files_in_one_place_the_later_holds(trace: Path) -> None:
    with TraceWriter(trace, meta()) as writer:
        writer.write_modules([Module("/a.so", "", 0x1000, 0x3000)])
        writer.write_modules([Module("/b.so", "", 0x2000, 0x4000)])
        writer.write_sites(np.array([0, 1], np.uint32), np.array([0x1100, 0x2100], np.uint64))
        writer.write_symbols([Symbol(0x1100, 16, "of_a"), Symbol(0x2100, 16, "of_b")])
        one = batch(0, 0, [Call(SECOND_NS), Call(SECOND_NS, key=1)])
        writer.write_records(0, 0, memoryview(one.records))
    lines = uftrace("replay", export("uftrace", trace), "-f", "module")[1:]
    assert [line.split() for line in lines] == [["a.so", "|", "of_a();"], ["b.so", "|", "of_b();"]]


def test_forked_children_are_processes(trace: Path) -> None:
    with TraceWriter(trace, meta()) as writer:
        writer.write_sites(np.array([0], np.uint32), np.array([LEAF], np.uint64))
        writer.write_symbols([Symbol(LEAF, 16, "leaf")])
        calls = [Call(SECOND_NS + n, tid=tid) for n, tid in enumerate((1234, 77, 88, 99))]
        one = batch(0, 0, calls)
        writer.write_records(0, 0, memoryview(one.records))
        writer.write_event("fork", SECOND_NS, pid=88, parent=1234, name="demo")
        writer.write_event("fork", SECOND_NS, pid=99, parent=88, name="demo")
        writer.write_event("fork", SECOND_NS, pid=[77], parent="?", name="damaged")
    out = export("uftrace", trace)

    assert calls_by_uftrace(out) == {"leaf": 4}
    listed = [
        re.search(r"\d +(F?)S? *\[ *(\d+)\]", line) for line in uftrace("info", out, "--task")[1:]
    ]
    # F: the first thread of a process
    assert [match.groups() for match in listed if match] == [
        ("", "77"), ("F", "88"), ("F", "99"), ("F", "1234"),
    ]  # fmt: skip


def test_a_trace_without_events_is_a_folder_that_tells_what_was_traced(trace: Path) -> None:
    write_trace(trace, [])
    out = export("uftrace", trace)
    assert "SESS timestamp=0.000000000 pid=1234" in (out / "task.txt").read_text()
    assert any("/usr/bin/demo" in line for line in uftrace("info", out))


def test_a_damaged_record_of_no_thread_is_not_in_the_way(trace: Path) -> None:
    write_trace(trace, [batch(0, 0, [Call(SECOND_NS), Call(SECOND_NS + 1, tid=0)])])
    assert calls_by_uftrace(export("uftrace", trace)) == {"leaf": 2}


def test_what_is_whole_of_a_damaged_trace_is_written(trace: Path) -> None:
    calls = [Call(SECOND_NS + n) for n in range(1000)]
    write_trace(trace, [batch(0, n, calls[n : n + 100]) for n in range(0, 1000, 100)], close=False)
    trace.write_bytes(trace.read_bytes()[:-5000])
    found = calls_by_uftrace(export("uftrace", trace))
    assert found.keys() == {"leaf"} and 700 < found["leaf"] < 1000


def test_a_trace_without_times_is_refused(trace: Path) -> None:
    write_trace(trace, [], of=dataclasses.replace(meta(), clock="percpu-counter"))
    run = CliRunner().invoke(words, ["export", "uftrace", "-i", str(trace), "-o", str(trace) + "x"])
    assert "uftrace needs times, and this trace has none" in str(run.exception)
    assert not Path(str(trace) + "x").exists()
