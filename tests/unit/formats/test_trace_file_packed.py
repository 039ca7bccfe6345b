"""Compressed records: the bytes of the format page, what was written is read, nothing explodes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ring_batches import Call, batch, many_records, meta, write_trace

from fentry.formats import tracefile_layout as layout
from fentry.formats.tracefile import ClockPair, TraceReader, TraceWriter
from fentry.formats.tracefile_packing import pack, unpack
from fentry.ring.layout import record_dtype

LAP = 1 << 22


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.fentry"


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def planes(entries: dict[int, tuple[int, int]], *stored: bytes, record_bytes: int = 16) -> bytes:
    """A payload by hand: {byte of the record: (stored_bytes, value)}, others are all 0."""
    table = b"".join(
        struct.pack("<IB3x", *entries.get(number, (0, 0))) for number in range(record_bytes)
    )
    return table + b"".join(stored)


def times_of(path: Path) -> list[int]:
    with TraceReader(path) as trace:
        return [time for events in trace.batches() for time in events.time_ns.tolist()]


def test_the_bytes_are_those_of_the_page(path: Path) -> None:
    # times 500, 502, 758 in a clock of 2 ticks a ns: differences 0, 4, 512
    calls = [Call(500, key=7, tid=9), Call(502, key=8, tid=9), Call(758, key=7, tid=9)]
    with TraceWriter(path, meta(record_bytes=16), compress=True) as writer:
        start = writer.bytes_written
        one = batch(1, 1024, calls, record_bytes=16)
        writer.write_records(1, 1024, memoryview(one.records))
        stop = writer.bytes_written
    data = path.read_bytes()
    assert data[8:12] == struct.pack("<I", 2)
    section = data[start:stop]
    assert section[:8] == b"\xf3Sec" + struct.pack("<HH", 12, 0)
    payload = section[32 : 32 + struct.unpack_from("<Q", section, 8)[0]]
    assert struct.unpack_from("<I", section, 24)[0] == zlib.crc32(payload)
    assert payload[:40] == struct.pack("<IIQQQQ", 1, 16, 1024, 3, 1024, 1000)
    word = 9 | 1 * LAP
    table = {0: (3, 0), 1: (3, 0), 8: (3, 7)} | {
        12 + i: (0, byte) for i, byte in enumerate(struct.pack("<I", word))
    }
    assert payload[40:] == planes(table, bytes([0, 4, 0]), bytes([0, 0, 2]), bytes([7, 8, 7]))


def test_a_plane_may_be_deflated_by_any_tool() -> None:
    keys = bytes(range(200)) * 5
    payload = planes({8: (len(deflated(keys)), 0), 12: (0, 5)}, deflated(keys))
    records = unpack(payload, 1000, 16, 77)
    assert records["time"].tolist() == [77] * 1000
    assert records["key"].tolist() == list(range(200)) * 5
    assert records["word"].tolist() == [5] * 1000


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([16, 24]),
    st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**64 - 1),
        ),
        min_size=1,
        max_size=30,
    ),
)
def test_any_records_come_back(size: int, rows: list[tuple[int, int, int, int]]) -> None:
    content = b"".join(struct.pack("<QIIQ", *row)[:size] for row in rows)
    records = np.frombuffer(content, record_dtype(size))
    packed = pack(records)
    assert unpack(packed, len(rows), size, rows[0][0]).tobytes() == content
    assert len(packed) + 40 <= layout.MAX_PACKED_BYTES


@pytest.mark.parametrize("close", [True, False])
def test_a_compressed_trace_reads_as_the_plain_one(tmp_path: Path, close: bool) -> None:
    content = many_records(150_000)
    found = []
    for compress in (False, True):
        path = tmp_path / f"{compress}.fentry"
        writer = TraceWriter(path, meta(capacity=1 << 20), compress=compress)
        writer.write_clock([ClockPair(0, 0, 0)])
        writer.write_records(0, 0, memoryview(content))
        assert writer.records_written == 150_000
        if close:
            writer.close()
        with TraceReader(path) as trace:
            assert (trace.records, trace.complete) == (150_000, close)
            columns = [(e.time_ns, e.tid, e.key, e.parent_ip) for e in trace.merged()]
            assert trace.torn == 0
            assert len(trace.damage) == (not close)
        found.append([np.concatenate(column).tolist() for column in zip(*columns, strict=True)])
    assert found[0] == found[1]
    assert found[0][0][:2] == [1_000_000_000_000, 1_000_000_000_100]
    plain, packed = (tmp_path / f"{compress}.fentry" for compress in (False, True))
    assert packed.stat().st_size * 3 < plain.stat().st_size


def test_torn_records_stay_torn(path: Path) -> None:
    good = batch(0, 1024, [Call(1), Call(2), Call(3)]).records
    stale = batch(0, 0, [Call(9)]).records
    with TraceWriter(path, meta(), compress=True) as writer:
        writer.write_clock([ClockPair(0, 0, 0)])
        writer.write_records(0, 1024, memoryview(good[:24] + stale + good[48:]))
    with TraceReader(path) as trace:
        assert [t for events in trace.batches() for t in events.time_ns.tolist()] == [1, 3]
        assert trace.torn == 1


def test_what_is_not_compressed_has_version_1(path: Path) -> None:
    write_trace(path, [batch(0, 0, [Call(1)])])
    assert path.read_bytes()[8:12] == struct.pack("<I", 1)


BAD = {
    "shorter than its table": planes({})[:-1],
    "more than its planes": planes({}) + b"x",
    "less than its planes": planes({0: (2, 0)}, b"x"),
    "no deflate stream": planes({0: (4, 0)}, b"\xff\xff\xff\xff"),
    "too few bytes": planes({0: (len(deflated(bytes(9))), 0)}, deflated(bytes(9))),
    "a bomb": planes({0: (len(deflated(bytes(10**6))), 0)}, deflated(bytes(10**6))),
    "something behind the stream": planes(
        {0: (len(deflated(bytes(1000))) + 3, 0)}, deflated(bytes(1000)) + b"abc"
    ),
    "a stream cut short": planes(
        {0: (len(deflated(bytes(1000))) - 1, 0)}, deflated(bytes(1000))[:-1]
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_planes_that_make_no_sense_cost_their_section_only(path: Path, why: str) -> None:
    with pytest.raises(ValueError):
        unpack(BAD[why], 1000, 16, 0)
    with TraceWriter(path, meta(record_bytes=16), compress=True) as writer:
        writer.write_clock([ClockPair(0, 0, 0)])
        head = struct.pack("<IIQQQQ", 0, 16, 0, 1000, 1024, 0)
        writer._section(layout.SectionKind.PACKED, head + BAD[why], records=1000)
        after = batch(0, 1000, [Call(5)], record_bytes=16)
        writer.write_records(0, 1000, memoryview(after.records))
    assert times_of(path) == [5]
    with TraceReader(path) as trace:
        assert list(trace.batches())
        assert [damage.what[:17] for damage in trace.damage] == ["a PACKED section:"]


@pytest.mark.parametrize(
    ("count", "payload_bytes"), [(0, 168), (65537, 168), (2**63, 168), (5, 39), (5, 1_600_000)]
)
def test_sizes_are_refused_before_anything_is_made_of_them(
    path: Path, count: int, payload_bytes: int
) -> None:
    head = struct.pack("<IIQQQQ", 0, 16, 0, count, 1024, 0) + planes({12: (0, 1)})
    with TraceWriter(path, meta(record_bytes=16), compress=True) as writer:
        writer.write_clock([ClockPair(0, 0, 0)])
        payload = head[:payload_bytes].ljust(payload_bytes, b"\0")
        writer._section(layout.SectionKind.PACKED, payload, records=5)
    for close in (True, False):
        with TraceReader(path) as trace:
            assert sum(map(len, trace.batches())) == 0
            assert any("of a PACKED section makes no sense" in one.what for one in trace.damage)
            assert trace.complete is close
        path.write_bytes(path.read_bytes()[:-72])  # END is 72 bytes
