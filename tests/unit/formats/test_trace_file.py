"""The trace file: what is written is read, and what cannot be written says why."""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ring_batches import LEAF, MAIN, Batch, Call, batch, meta, write_trace

from fentry.errors import BadInput, TraceFileError
from fentry.events.columns import Events
from fentry.formats import tracefile_layout as layout
from fentry.formats.gaps import gaps
from fentry.formats.tracefile import (
    ClockPair,
    CpuLosses,
    Module,
    Symbol,
    Task,
    TraceMeta,
    TraceReader,
    TraceWriter,
)
from fentry.formats.tracefile_payloads import decode_meta, decode_symbols, encode_symbols

FORMAT_PAGE = Path(__file__).parents[3] / "docs" / "formats" / "trace_file.md"


def rows(trace: TraceReader, *, merged: bool = False, **times: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for events in trace.merged(**times) if merged else trace.batches(**times):
        found += row_tuples(events)
    return found


def row_tuples(events: Events) -> list[tuple[int, ...]]:
    columns = [
        column.tolist()
        for column in (events.time_ns, events.cpu, events.tid, events.ip, events.key)
    ]
    if events.parent_ip is not None:
        columns.append(events.parent_ip.tolist())
    return list(zip(*columns, strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.fentry"


def test_the_page_and_the_code_agree_on_every_offset() -> None:
    documented: dict[str, list[tuple[int, int, str]]] = {}
    heading = ""
    for line in FORMAT_PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if row := re.match(r"\| (\d+) \| (\d+) \| (\w+) \|", line):
            entry = (int(row[1]), int(row[2]), row[3])
            documented.setdefault(heading, []).append(entry)
    coded = {
        name: [
            (int(dtype.fields[field][1]), dtype.fields[field][0].itemsize, field)
            for field in dtype.names or ()
            if dtype.fields is not None
        ]
        for name, dtype in layout.DTYPES.items()
    }
    assert documented == coded
    for name, dtype in layout.DTYPES.items():
        offset, size, _ = documented[name][-1]
        assert dtype.itemsize == offset + size


def test_the_page_and_the_code_agree_on_the_kinds() -> None:
    listed = re.findall(r"^\| (\d+) \| ([A-Z]+) \|", FORMAT_PAGE.read_text(), re.MULTILINE)
    assert {(int(number), name) for number, name in listed} == {
        (int(kind), kind.name) for kind in layout.SectionKind
    }


def test_the_first_bytes_are_those_of_the_page(path: Path) -> None:
    write_trace(path, [])
    data = path.read_bytes()
    assert data[:16] == b"\x89fentry\n" + struct.pack("<II", 1, 64)
    assert data[64:72] == b"\xf3Sec" + struct.pack("<HH", 1, 0)
    assert data[20:24] == bytes(4)
    assert data[64 + 20 : 64 + 24] == data[16:20]  # the file id


def test_records_come_back_as_columns(path: Path) -> None:
    calls = [Call(1000), Call(2001, key=1, tid=77, parent_ip=5)]
    write_trace(path, [batch(1, 0, calls)])
    with TraceReader(path) as trace:
        assert rows(trace) == [
            (1000, 1, 1234, LEAF, 0, MAIN + 0x10),
            (2001, 1, 77, MAIN, 1, 5),
        ]
        assert (trace.damage, trace.complete, trace.records, trace.torn) == ([], True, 2, 0)


def test_records_of_16_bytes_have_no_parent(path: Path) -> None:
    one = batch(0, 0, [Call(10)], record_bytes=16)
    write_trace(path, [one], of=meta(record_bytes=16))
    with TraceReader(path) as trace:
        assert rows(trace) == [(10, 0, 1234, LEAF, 0)]


def test_what_is_not_records_comes_back(path: Path) -> None:
    losses = [CpuLosses(1, 10, 1, 2, 3), CpuLosses(0, 5, 0, 0, 0)]
    write_trace(path, [], losses=losses)
    with TraceReader(path) as trace:
        assert trace.meta == meta()
        assert trace.losses == [losses[1], losses[0]]
        assert trace.modules == [Module("/usr/bin/demo", "ab12", 0x400000, 0x402000)]
        assert trace.symbol_names == [b"leaf", b"main"]
        assert trace.symbols["offset"].tolist() == [0x1106, 0x1136]
        assert trace.symbols["module"].tolist() == [0, 0]
        assert trace.tasks == [Task(1234, b"bash", 0)]
        assert trace.events == [{"kind": "detach", "time_ns": 5_000_000_000, "stop_ns": 1000}]
        assert trace.clock.pairs == (ClockPair(0, 0, 1_600_000_000_000_000_000),)


def test_the_last_losses_of_a_cpu_hold(path: Path) -> None:
    with TraceWriter(path, meta()) as writer:
        writer.write_losses([CpuLosses(0, 1, 0, 0, 0), CpuLosses(1, 7, 7, 7, 7)])
        writer.write_losses([CpuLosses(0, 9, 8, 0, 0)])
    with TraceReader(path) as trace:
        assert trace.losses == [CpuLosses(0, 9, 8, 0, 0), CpuLosses(1, 7, 7, 7, 7)]


def test_a_path_that_is_not_utf_8_keeps_its_bytes(path: Path) -> None:
    module = Module(os.fsdecode(b"/tmp/\xff\xfe"), "", 0, 1)
    with TraceWriter(path, meta()) as writer:
        writer.write_modules([module])
    with TraceReader(path) as trace:
        assert os.fsencode(trace.modules[0].path) == b"/tmp/\xff\xfe"


def test_an_unknown_key_has_ip_0(path: Path) -> None:
    write_trace(path, [batch(0, 0, [Call(1, key=2), Call(2, key=0xFFFF_FFFF)])])
    with TraceReader(path) as trace:
        assert [row[3] for row in rows(trace)] == [0, 0]


def test_sparse_keys_are_found(path: Path) -> None:
    keys = np.array([5, 0xFFFF_FFF0, 0x1000_0000, 5], np.uint32)
    with TraceWriter(path, meta()) as writer:
        writer.write_sites(keys, np.array([1, 2, 3, 4], np.uint64))
        calls = [Call(1, key=key) for key in (5, 6, 0x1000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF)]
        writer.write_records(0, 0, memoryview(batch(0, 0, calls).records))
    with TraceReader(path) as trace:
        assert [row[3] for row in rows(trace)] == [4, 0, 3, 2, 0]


@pytest.mark.parametrize("capacity", [3, 5000])
def test_laps_are_followed_over_wraps_of_ring_and_lap(path: Path, capacity: int) -> None:
    first = capacity * 1023 - 7
    calls = [Call(time) for time in range(2 * capacity + 14)]
    one = batch(0, first, calls, capacity=capacity)
    write_trace(path, [one], of=meta(capacity=capacity))
    with TraceReader(path) as trace:
        assert len(rows(trace)) == 2 * capacity + 14
        assert trace.torn == 0


def test_records_of_another_lap_are_counted_and_not_shown(path: Path) -> None:
    good = batch(0, 1024, [Call(1), Call(2), Call(3)]).records
    stale = batch(0, 0, [Call(9)]).records
    write_trace(path, [Batch(0, 1024, good[:24] + stale + good[48:])])
    with TraceReader(path) as trace:
        assert [row[0] for row in rows(trace)] == [1, 3]
        assert trace.torn == 1


def test_times_can_be_chosen(path: Path) -> None:
    write_trace(path, [batch(0, 0, [Call(10), Call(20), Call(30)])])
    with TraceReader(path) as trace:
        assert [row[0] for row in rows(trace, start_ns=20)] == [20, 30]
        assert [row[0] for row in rows(trace, end_ns=20)] == [10]
        assert [row[0] for row in rows(trace, merged=True, start_ns=11, end_ns=30)] == [20]


@pytest.mark.parametrize("other", [7, 0xFFFF_FFF0], ids=["dense", "sparse"])
def test_functions_can_be_chosen(path: Path, other: int) -> None:
    with TraceWriter(path, meta()) as writer:
        writer.write_clock([ClockPair(0, 0, 0)])
        writer.write_sites(np.array([0, 1, other], np.uint32), np.array([10, 11, 17], np.uint64))
        calls = [Call(1), Call(2, key=other), Call(3, key=1), Call(4, key=9), Call(5, key=other)]
        writer.write_records(0, 0, memoryview(batch(0, 0, calls).records))
        stale = batch(0, 1029, [Call(6, key=other)])
        writer.write_records(0, 5, memoryview(stale.records))
    with TraceReader(path) as trace:
        assert trace.entries.tolist() == [0, 10, 11, 17]
        for only, times in (([17], [2, 5]), ([0], [4]), ([10, 11], [1, 3]), ([], []), ([99], [])):
            chosen = np.array(only, np.uint64)
            for stream in (trace.batches(only=chosen), trace.merged(only=chosen)):
                assert [time for e in stream for time in e.time_ns.tolist()] == times
        trace.torn = 0
        assert list(trace.batches(only=np.array([99], np.uint64))) == []
        assert trace.torn == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10_000), max_size=20), max_size=6))
def test_merging_gives_all_records_in_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("merge") / "trace.fentry"
    first = [0, 0, 0]
    batches = []
    for number, part in enumerate(times):
        cpu = number % 3
        batches.append(batch(cpu, first[cpu], [Call(time) for time in part]))
        first[cpu] += len(part)
    write_trace(path, batches)
    with TraceReader(path) as trace:
        found = [row[0] for row in rows(trace, merged=True)]
    assert found == sorted(time for part in times for time in part)


def places(trace: TraceReader) -> list[tuple[int, int, int]]:
    return [(gap.cpu, gap.until_ns, gap.lost) for gap in gaps(trace, from_start=True)]


def test_gaps_are_where_positions_jump(path: Path) -> None:
    write_trace(
        path,
        [
            batch(1, 5, [Call(100), Call(200)]),
            batch(0, 0, [Call(150)]),
            batch(1, 7, [Call(300)]),
            batch(1, 2048, [Call(400), Call(500)]),
            batch(0, 4, [Call(450)]),
        ],
    )
    with TraceReader(path) as trace:
        assert places(trace) == [(1, 400, 2040), (0, 450, 3)]


def test_what_was_overwritten_before_the_first_record_is_a_gap(path: Path) -> None:
    losses = [CpuLosses(0, 1, 9, 500, 1), CpuLosses(1, 1, 0, 5000, 0), CpuLosses(2, 1, 7, 0, 0)]
    batches = [batch(cpu, 1024 + 976, [Call(100)]) for cpu in range(4)]
    write_trace(path, batches, of=meta(nr_cpus=4), losses=losses)
    with TraceReader(path) as trace:
        assert places(trace) == [(0, 100, 501), (1, 100, 976)]


def test_records_that_were_cut_off_a_section_are_a_gap(path: Path) -> None:
    calls = [Call(100 + n) for n in range(20)]
    write_trace(path, [batch(0, 0, calls[:10]), batch(0, 10, calls[10:])], close=False)
    whole = path.read_bytes()
    end = whole.index(batch(0, 10, calls[10:]).records) - 32 - 32  # both headers
    path.write_bytes(whole[: end - 3 * 24] + whole[end:])
    with TraceReader(path) as trace:
        assert sum(len(events) for events in trace.merged()) == 17
        assert places(trace) == [(0, 110, 3)]


def test_more_sections_than_one_index_holds_are_found_through_the_chain(path: Path) -> None:
    with TraceWriter(path, meta()) as writer:
        for position in range(9000):
            one = batch(position % 2, position // 2, [Call(position)])
            writer.write_records(one.cpu, one.first_position, memoryview(one.records))
            assert len(writer._index) < 4096
    with TraceReader(path) as trace:
        assert trace.damage[0].what.startswith("no CLOCK")
        assert trace.complete
        assert trace.records == 9000
        assert len(rows(trace, merged=True)) == 9000


def test_unknown_kinds_are_skipped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TraceWriter(path, meta()) as writer:
        writer._section(999, b"from the future")  # type: ignore[arg-type]
        writer.write_tasks([Task(1, b"after", 0)])
    for close in (True, False):
        with TraceReader(path) as trace:
            assert trace.tasks == [Task(1, b"after", 0)]
            assert trace.complete == close
        path.write_bytes(path.read_bytes()[:-72])  # END is 72 bytes


def test_fields_of_meta_from_a_newer_fentry_are_passed_over() -> None:
    read = decode_meta(b'{"record_bytes":16,"capacity":8,"nr_cpus":1,"colour":"red"}')
    assert read == TraceMeta(record_bytes=16, capacity=8, nr_cpus=1)


@pytest.mark.parametrize("payload", [b"[]", b"{}", b"\xff", b'{"record_bytes":"x"}', b"[" * 99999])
def test_meta_that_makes_no_sense_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode_meta(payload)


def test_symbols_whose_names_lie_outside_are_a_value_error() -> None:
    payload = bytearray(encode_symbols([Symbol(1, 2, "name")]))
    payload[16 + 28] = 5  # name_bytes
    with pytest.raises(ValueError, match="a name lies outside"):
        decode_symbols(bytes(payload))


def test_a_new_file_has_mode_0600(path: Path) -> None:
    before = os.umask(0)
    try:
        write_trace(path, [])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_not_a_trace_is_not_overwritten(path: Path) -> None:
    path.write_text("my thesis")
    with pytest.raises(TraceFileError) as raised:
        TraceWriter(path, meta())
    assert raised.value.cause == "it exists and is not a fentry trace"
    assert path.read_text() == "my thesis"


def test_a_trace_is_overwritten_under_its_reader(path: Path) -> None:
    write_trace(path, [batch(0, 0, [Call(1)])])
    with TraceReader(path) as old:
        write_trace(path, [batch(0, 0, [Call(2), Call(3)])])
        assert [row[0] for row in rows(old)] == [1]
    with TraceReader(path) as new:
        assert [row[0] for row in rows(new)] == [2, 3]


def test_parts_of_records_are_refused(path: Path) -> None:
    with TraceWriter(path, meta()) as writer, pytest.raises(BadInput):
        writer.write_records(0, 0, memoryview(bytes(25)))


def test_records_of_impossible_size_are_refused(path: Path) -> None:
    with pytest.raises(BadInput):
        TraceWriter(path, meta(record_bytes=20))
    assert not path.exists()


def test_a_folder_that_does_not_exist_is_an_error_with_remedy(tmp_path: Path) -> None:
    with pytest.raises(TraceFileError) as raised:
        TraceWriter(tmp_path / "none" / "x.fentry", meta())
    assert raised.value.cause == "the folder does not exist"
    assert raised.value.remedy


def test_a_full_disk_is_an_error_with_cause_and_remedy() -> None:
    with pytest.raises(TraceFileError) as raised:
        TraceWriter("/dev/full", meta())
    assert raised.value.cause == "the disk is full"
    assert raised.value.remedy
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC


def test_what_was_written_before_the_size_limit_stays_readable(path: Path) -> None:
    one = batch(0, 0, [Call(1), Call(2)])
    writer = TraceWriter(path, meta())
    writer.write_clock([ClockPair(0, 0, 0)])
    writer.write_records(0, 0, memoryview(one.records))
    whole = writer.bytes_written
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 100, limit[1]))
    try:
        many = batch(0, 2, [Call(time) for time in range(100)])
        with pytest.raises(TraceFileError) as raised:
            writer.write_records(0, 2, memoryview(many.records))
        with pytest.raises(TraceFileError):
            writer.write_tasks([])
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert raised.value.cause == "the file size limit is reached"
    assert raised.value.offset == whole
    assert path.stat().st_size == whole
    with TraceReader(path) as trace:
        assert [row[0] for row in rows(trace)] == [1, 2]
        assert not trace.complete


def test_a_pipe_whose_reader_has_gone_is_an_error() -> None:
    reading, writing = os.pipe()
    writer = TraceWriter(writing, meta())
    os.close(reading)
    with pytest.raises(TraceFileError) as raised:
        writer.write_tasks([])
    assert raised.value.cause == "the reader of the pipe has gone"
    writer.close()
    os.close(writing)


def test_a_trace_can_go_through_a_pipe_of_either_mode(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    one = batch(0, 0, [Call(time) for time in range(20_000)], capacity=1 << 15)

    def write() -> None:
        fd = os.open(fifo, os.O_WRONLY)
        os.set_blocking(fd, False)
        with TraceWriter(fd, meta(capacity=1 << 15)) as writer:
            writer.write_clock([ClockPair(0, 0, 0)])
            writer.write_records(0, 0, memoryview(one.records))
        os.close(fd)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with TraceReader(fifo) as trace:
            assert trace.complete
            assert len(rows(trace)) == 20_000
    finally:
        thread.join(10)


def test_events_stay_valid_after_the_file_is_closed(path: Path) -> None:
    write_trace(path, [batch(0, 0, [Call(1)])])
    with TraceReader(path) as trace:
        events = next(trace.batches())
    assert row_tuples(events) == [(1, 0, 1234, LEAF, 0, MAIN + 0x10)]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it is empty"),
        (b"hello", "it is not a fentry trace, or nothing of it is whole"),
        (bytes(5000), "it is not a fentry trace, or nothing of it is whole"),
    ],
)
def test_a_file_that_is_no_trace_is_an_error(path: Path, content: bytes, cause: str) -> None:
    path.write_bytes(content)
    with pytest.raises(TraceFileError) as raised:
        TraceReader(path)
    assert raised.value.cause == cause


def test_a_file_that_does_not_exist_is_an_error(path: Path) -> None:
    with pytest.raises(TraceFileError) as raised:
        TraceReader(path)
    assert raised.value.cause == "no such file or directory"
