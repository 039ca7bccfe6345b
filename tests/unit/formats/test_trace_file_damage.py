"""Damage at every byte: nothing crashes, whole sections are kept, and the damage is reported."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tests.support.ring_batches import LEAF, MAIN, Call, batch, meta

from fentry.errors import TraceFileError
from fentry.formats.tracefile import ClockPair, CpuLosses, Symbol, Task, TraceReader, TraceWriter

pytestmark = pytest.mark.exhaustive

RECORDS = [
    batch(0, 0, [Call(1), Call(2, key=1)]),
    batch(1, 1030, [Call(3), Call(4), Call(5)]),
    batch(0, 2, [Call(6)]),
]

# two, so that times do not hang on META, which has the tsc frequency
PAIRS = [ClockPair(0, 0, 0), ClockPair(20_000_000_000, 10_000_000_000, 0)]


class Part(NamedTuple):
    name: str
    start: int
    stop: int


class Found(NamedTuple):
    """What a reader made of a file; each item is named as the part that it came from."""

    parts: set[str]
    times: list[int]
    damaged: bool
    torn: int


def make(path: Path, *, close: bool, compress: bool = False) -> list[Part]:
    """A small trace and where each of its sections lies, by what the writer had written."""
    writer = TraceWriter(path, meta(), compress=compress)
    parts = [Part("header", 0, 64), Part("meta", 64, writer.bytes_written)]

    def part(name: str) -> None:
        parts.append(Part(name, parts[-1].stop, writer.bytes_written))

    writer.write_clock(PAIRS)
    part("clock")
    writer.write_sites(np.array([0, 1], np.uint32), np.array([LEAF, MAIN], np.uint64))
    part("sites")
    writer.write_records(0, 0, memoryview(RECORDS[0].records))
    part("records 1 2")
    writer.write_symbols([Symbol(LEAF, 48, "leaf")])
    part("symbols")
    writer.write_records(1, 1030, memoryview(RECORDS[1].records))
    part("records 3 4 5")
    writer.write_tasks([Task(1234, b"bash", 0)])
    part("tasks")
    writer.write_records(0, 2, memoryview(RECORDS[2].records))
    part("records 6")
    writer.write_losses([CpuLosses(0, 3, 0, 0, 0)])
    part("losses")
    writer.write_event("detach", 1)
    part("events")
    if close:
        writer.close()
        part("index and end")
    else:
        writer._error = TraceFileError("killed here")
        writer.close()
    return parts


def read(path: Path) -> Found | None:
    """None when nothing can be read."""
    try:
        trace = TraceReader(path)
    except TraceFileError:
        return None
    with trace:
        times: list[int] = []
        for events in trace.batches():
            times += events.time_ns.tolist()
        merged = [time for events in trace.merged() for time in events.time_ns.tolist()]
        assert sorted(merged) == sorted(times)
        found = {
            "meta": trace.meta == meta(),
            "sites": trace._key_table.ips(np.array([0, 1], np.uint32)).tolist() == [LEAF, MAIN],
            "symbols": trace.symbol_names == [b"leaf"],
            "tasks": trace.tasks == [Task(1234, b"bash", 0)],
            "losses": trace.losses == [CpuLosses(0, 3, 0, 0, 0)],
            "events": trace.events == [{"kind": "detach", "time_ns": 1}],
            "clock": trace.clock.pairs == tuple(PAIRS),
            "records 1 2": {1, 2} <= set(times),
            "records 3 4 5": {3, 4, 5} <= set(times),
            "records 6": 6 in times,
        }
        return Found({k for k, v in found.items() if v}, times, bool(trace.damage), trace.torn)


def expect_kept(found: Found | None, parts: list[Part], harmed: set[str], where: str) -> None:
    """All parts but the harmed ones were read, as far as one can tell them without a clock."""
    kept = {part.name for part in parts} - harmed - {"header", "index and end"}
    if "clock" in harmed:  # without a clock times are ticks
        kept = {name for name in kept if not name.startswith("records")}
    assert found is not None, where
    assert kept <= found.parts, (where, kept - found.parts)


@pytest.fixture(params=["closed", "without_end", "closed_packed", "without_end_packed"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[Part]]:
    path = tmp_path / "small.fentry"
    close, compress = request.param.startswith("closed"), request.param.endswith("packed")
    return path, make(path, close=close, compress=compress)


def test_the_small_trace_is_whole(small: tuple[Path, list[Part]]) -> None:
    path, parts = small
    expect_kept(read(path), parts, set(), "undamaged")


@pytest.mark.parametrize("flip", [0xFF, 0x01, 0x80])
def test_a_flipped_byte_costs_at_most_its_own_section(
    small: tuple[Path, list[Part]], flip: int, request: pytest.FixtureRequest
) -> None:
    path, parts = small
    data = path.read_bytes()
    # Every byte with every bit; single bits here and there, in packed records more rarely: what
    # differs there is one section.
    step = 1 if flip == 0xFF else 11 if "packed" in request.node.name else 3
    for part in parts:
        for offset in range(part.start, part.stop, step):
            harmed = bytearray(data)
            harmed[offset] ^= flip
            path.write_bytes(harmed)
            found = read(path)
            # a section whose length is damaged must not take the ones after it along
            expect_kept(found, parts, {part.name}, f"{part.name} at {offset}")


def test_a_flipped_byte_outside_of_records_and_padding_is_reported(
    small: tuple[Path, list[Part]],
) -> None:
    path, parts = small
    data = path.read_bytes()
    closed = parts[-1].name == "index and end"
    for part in parts:
        # headers are 32 bytes; of records the 32 bytes after it are checked as well
        checked = part.start + (64 if part.name.startswith("records") else 32)
        if part.name == "index and end":
            continue  # only a short cut: damaged, it costs nothing
        for offset in range(part.start, min(checked, part.stop)):
            harmed = bytearray(data)
            harmed[offset] ^= 0xFF
            path.write_bytes(harmed)
            found = read(path)
            assert found is not None and found.damaged, (closed, part, offset)


def test_every_truncation_leaves_the_whole_records_before_it(
    small: tuple[Path, list[Part]],
) -> None:
    path, parts = small
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        found = read(path)
        whole = {part.name for part in parts if part.stop <= length}
        if "meta" not in whole:
            continue  # read() has shown that it does not crash
        harmed = {part.name for part in parts} - whole
        expect_kept(found, parts, harmed, f"{length} bytes")
        assert found is not None
        assert found.damaged
        if "clock" in whole:
            assert set(found.times) <= {1, 2, 3, 4, 5, 6}
            assert found.torn == 0


def test_a_flipped_byte_of_compressed_records_is_reported_and_costs_them_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "small.fentry"
    for close in (True, False):
        parts = make(path, close=close, compress=True)
        data = path.read_bytes()
        part = next(part for part in parts if part.name == "records 3 4 5")
        padding = -int.from_bytes(data[part.start + 8 : part.start + 16], "little") % 8
        for offset in range(part.start + 32, part.stop - padding):
            harmed = bytearray(data)
            harmed[offset] ^= 0x10
            path.write_bytes(harmed)
            found = read(path)
            assert found is not None
            assert (found.times, found.damaged, found.torn) == ([1, 2, 6], True, 0), offset


def test_a_cut_through_records_keeps_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "small.fentry"
    parts = make(path, close=False)
    start = next(part.start for part in parts if part.name == "records 3 4 5")
    data = path.read_bytes()
    for kept in range(4):
        path.write_bytes(data[: start + 64 + 24 * kept + 5])
        found = read(path)
        assert found is not None
        assert found.times == [1, 2, 3, 4, 5][: 2 + kept]


def same_losses(data: bytes, offset: int, nr_bytes: int) -> tuple[int, int]:
    """From where to where so many bytes can be lost and leave the same file: a checksum may end
    with the byte that a section begins with."""
    first = last = offset
    while first and data[first - 1] == data[first - 1 + nr_bytes]:
        first -= 1
    while last + nr_bytes < len(data) and data[last] == data[last + nr_bytes]:
        last += 1
    return first, last


def test_losses_that_leave_the_same_file_are_one() -> None:
    assert same_losses(b"abbcd", 1, 1) == same_losses(b"abbcd", 2, 1) == (1, 2)
    assert same_losses(b"xabab-", 1, 2) == (1, 3)
    assert same_losses(b"abc", 1, 1) == (1, 1)


@pytest.mark.parametrize("nr_bytes", [1, 7, 8, 40, 130])
def test_lost_bytes_cost_only_the_sections_they_were_in(
    small: tuple[Path, list[Part]], nr_bytes: int
) -> None:
    path, parts = small
    data = path.read_bytes()
    for offset in range(0, len(data) - nr_bytes, 3 if nr_bytes < 8 else 7):
        path.write_bytes(data[:offset] + data[offset + nr_bytes :])
        first, last = same_losses(data, offset, nr_bytes)
        harmed = {p.name for p in parts if p.start < last + nr_bytes and first < p.stop}
        found = read(path)
        expect_kept(found, parts, harmed, f"{nr_bytes} bytes lost at {offset}")
        if not {"clock", "sites"} & harmed:
            # one record may be the very one that the damage is in
            assert found is not None and len(set(found.times) - {1, 2, 3, 4, 5, 6}) <= 1, offset


@pytest.mark.parametrize("junk", [b"\0", b"\xf3Sec" * 9, bytes(64)])
def test_added_bytes_cost_only_the_section_they_are_in(
    small: tuple[Path, list[Part]], junk: bytes
) -> None:
    path, parts = small
    data = path.read_bytes()
    for offset in range(0, len(data), 3):
        path.write_bytes(data[:offset] + junk + data[offset:])
        harmed = {part.name for part in parts if part.start < offset < part.stop}
        found = read(path)
        expect_kept(found, parts, harmed, f"added at {offset}")
        if not {"clock", "sites"} & harmed:
            # one record may be the very one that the damage is in
            assert found is not None and len(set(found.times) - {1, 2, 3, 4, 5, 6}) <= 1, offset


def test_two_traces_in_one_file_are_not_mixed(tmp_path: Path) -> None:
    path, other = tmp_path / "one.fentry", tmp_path / "two.fentry"
    parts = make(path, close=False)
    make(other, close=True)
    path.write_bytes(path.read_bytes() + other.read_bytes())
    found = read(path)
    expect_kept(found, parts, set(), "second trace appended")
    assert found is not None and found.times == [1, 2, 3, 4, 5, 6]


def test_a_section_forged_inside_the_records_is_not_taken(tmp_path: Path) -> None:
    # the target writes the records; it may know the format, but not the file id
    forged, path = tmp_path / "forged.fentry", tmp_path / "trace.fentry"
    with TraceWriter(forged, meta()) as writer:
        before = writer.bytes_written
        writer.write_tasks([Task(1, b"forged", 0)])
        section = forged.read_bytes()[before : writer.bytes_written]
    with TraceWriter(path, meta()) as writer:
        start = writer.bytes_written
        writer.write_records(0, 0, memoryview(section.ljust(72, b"\0")))
    data = bytearray(path.read_bytes())
    data[start] ^= 0xFF  # so that the reader looks for the next section
    path.write_bytes(data)
    with TraceReader(path) as trace:
        assert trace.tasks == []


def test_random_damage_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "small.fentry"
    make(path, close=True)
    data = path.read_bytes()
    chance = random.Random(20141)
    for _ in range(400):
        harmed = bytearray(data)
        for _ in range(chance.randint(1, 12)):
            match chance.randint(0, 3):
                case 0:
                    harmed[chance.randrange(len(harmed))] = chance.randrange(256)
                case 1:
                    start = chance.randrange(len(harmed))
                    del harmed[start : start + chance.randint(1, 60)]
                case 2:
                    start = chance.randrange(len(harmed))
                    harmed[start:start] = chance.randbytes(chance.randint(1, 40))
                case _:
                    start = chance.randrange(len(data))
                    harmed += data[start : start + 200]
        path.write_bytes(harmed)
        read(path)


def test_hostile_payloads_with_right_checksums_never_crash(tmp_path: Path) -> None:
    path = tmp_path / "hostile.fentry"
    chance = random.Random(7)
    for _ in range(150):
        writer = TraceWriter(path, meta())
        for _ in range(6):
            kind = chance.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12])
            length = chance.choice([0, 1, 16, 24, 32, 40, 41, 72, 120])
            payload = chance.choice([chance.randbytes(length), b"\xff" * length, bytes(length)])
            writer._section(kind, payload)  # type: ignore[arg-type]
        writer.close()
        read(path)
