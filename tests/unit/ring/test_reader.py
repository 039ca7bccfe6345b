"""The reader on rings whose content is written by hand, without a target."""

from __future__ import annotations

import numpy as np
import pytest

from fentry.errors import BadInput, RegionError
from fentry.ring import layout
from fentry.ring.buffer import Geometry, RingBuffer, read_geometry
from fentry.ring.clock import ClockPair
from fentry.ring.reader import Reader

CAPACITY = 256


class OwnMemory:
    """Memory like SharedMemory, of this process alone."""

    def __init__(self, count: int) -> None:
        self.bytes = np.zeros(count, np.uint8)

    def __len__(self) -> int:
        return len(self.bytes)


def ring(mode: int = layout.MODE_DISCARD, record_bytes: int = 16) -> RingBuffer:
    geometry = Geometry(2, CAPACITY, record_bytes, mode)
    buffer = RingBuffer(OwnMemory(geometry.segment_bytes), geometry)  # type: ignore[arg-type]
    buffer.format(0x7F0000000000, 0x7E0000000040)
    return buffer


def write(buffer: RingBuffer, cpu: int, count: int, *, commit: bool = True) -> None:
    """What a trampoline does, in Python: the position is the time."""
    for _ in range(count):
        position = int(buffer.lines["head"][cpu])
        buffer.lines["head"][cpu] = position + 1
        record = buffer.records[cpu][position % CAPACITY : position % CAPACITY + 1]
        record["time"] = position
        record["key"] = 7
        if commit:
            record["word"] = 1234 | (position // CAPACITY % 1024) << 22


def times(reader: Reader, **options: bool) -> list[tuple[int, int]]:
    return [
        (batch.cpu, time)
        for batch in reader.consume(**options)
        for time in batch.records["time"].tolist()
    ]


def test_fresh_ring_is_empty() -> None:
    assert times(Reader(ring())) == []


def test_records_come_once_and_in_order() -> None:
    buffer = ring()
    reader = Reader(buffer)
    write(buffer, 0, 3)
    write(buffer, 1, 2)

    assert times(reader) == [(0, 256), (0, 257), (0, 258), (1, 256), (1, 257)]
    assert times(reader) == []
    assert reader.stats.recorded.tolist() == [3, 2]


def test_what_a_full_ring_holds_comes_in_batches_and_makes_room_after_each() -> None:
    geometry = Geometry(1, 1 << 17, 16)
    buffer = RingBuffer(OwnMemory(geometry.segment_bytes), geometry)  # type: ignore[arg-type]
    buffer.format(0x7F0000000000, 0x7E0000000040)
    buffer.records[0]["word"] = 1234 | 1 << 22
    buffer.lines["head"] = 2 << 17
    seen = []
    for batch in Reader(buffer).consume():
        seen.append((batch.first, len(batch.records), int(buffer.tails["tail"][0])))
    assert seen == [(131072, 65536, 131072), (196608, 65536, 196608)]
    assert int(buffer.tails["tail"][0]) == 262144


@pytest.mark.parametrize(("lap", "stale"), [(1, 0), (5, 4), (1024, 1023), (1025, 1023), (7, 9)])
def test_a_record_of_another_lap_holds_back_those_behind_it(lap: int, stale: int) -> None:
    buffer = ring()
    buffer.lines["head"][0] = buffer.tails["tail"][0] = lap * CAPACITY
    write(buffer, 0, 9)
    buffer.records[0]["word"][4] = 1234 | stale << 22
    reader = Reader(buffer)
    assert len(times(reader)) == 4
    assert reader.held_back()
    assert len(times(reader, skip_incomplete=True)) == 4
    assert reader.stats.incomplete.tolist() == [1, 0]


# The per-CPU counter


def counted(mode: int = layout.MODE_DISCARD) -> RingBuffer:
    geometry = Geometry(3, CAPACITY, 16, mode, layout.CLOCK_PERCPU_COUNTER, has_strays=True)
    buffer = RingBuffer(OwnMemory(geometry.segment_bytes), geometry)  # type: ignore[arg-type]
    buffer.format(0x7F0000000000, 0x7E0000000040)
    return buffer


def test_a_record_without_a_time_has_its_place_for_one() -> None:
    buffer = counted()
    reader = Reader(buffer)
    write(buffer, 0, 250)
    write(buffer, 2, 1)
    buffer.records[0]["time"] = buffer.records[2]["time"] = 99  # nobody stores it

    assert times(reader) == [(0, 256 + i) for i in range(250)] + [(2, 256)]
    write(buffer, 0, 20)
    buffer.records[0]["time"] = 99
    assert times(reader) == [(0, 506 + i) for i in range(20)]


def test_one_that_comes_a_lap_too_late_is_known_by_its_count() -> None:
    buffer = counted(layout.MODE_OVERWRITE)
    reader = Reader(buffer)
    write(buffer, 0, CAPACITY + 4)
    buffer.records[0]["time"][2] = 258  # of the lap before: its word is not stored yet

    assert [time for _, time in times(reader)] == [time for time in range(260, 516) if time != 514]
    assert reader.stats.incomplete.tolist() == [1, 0, 0]


@pytest.mark.parametrize("clock", [0, 1])
def test_strays_have_a_part_and_room_for_those_who_come_late(clock: int) -> None:
    one = Geometry.for_bytes(1 << 16, 4, 16, clock=clock)

    assert (one.nr_cpus, one.capacity, one.room, one.stray_cpu) == (5, 4096, 4032, 4)
    assert one.stray_offset == 4096 + 4 * 69632
    locked = one.locked()
    assert (locked.nr_cpus, locked.room, locked.stray_cpu, locked.clock) == (4, 4096, -1, clock)
    assert locked.locked() == locked
    for written in (one, locked):
        buffer = RingBuffer(OwnMemory(written.segment_bytes), written)  # type: ignore[arg-type]
        buffer.format(0x7F0000000000, 0x7E0000000040)
        assert read_geometry(buffer.memory) == written


def test_a_clock_that_is_not_known_is_no_ring() -> None:
    buffer = ring()
    assert read_geometry(buffer.memory).clock == 0
    buffer.memory.bytes[76] = 3
    with pytest.raises(ValueError, match="no ring"):
        read_geometry(buffer.memory)


def test_records_across_the_end_of_the_buffer_come_in_order() -> None:
    buffer = ring()
    reader = Reader(buffer)
    write(buffer, 0, 250)
    times(reader)
    write(buffer, 0, 20)

    assert times(reader) == [(0, 256 + 250 + i) for i in range(20)]


def test_all_laps_of_a_long_run_are_recognised() -> None:
    buffer = ring()
    buffer.lines["head"][:] = buffer.tails["tail"][:] = 1023 * CAPACITY
    reader = Reader(buffer)
    write(buffer, 0, 200)
    assert len(times(reader)) == 200
    write(buffer, 0, 200)  # from lap 1023 to lap 0

    assert len(times(reader)) == 200


def test_uncommitted_record_holds_back_those_behind_it() -> None:
    buffer = ring()
    reader = Reader(buffer)
    write(buffer, 0, 2)
    write(buffer, 0, 1, commit=False)
    write(buffer, 0, 2)

    assert times(reader) == [(0, 256), (0, 257)]
    assert reader.held_back()


def test_uncommitted_record_is_counted_when_proved_abandoned() -> None:
    buffer = ring()
    reader = Reader(buffer)
    write(buffer, 0, 1, commit=False)
    write(buffer, 0, 2)

    assert times(reader, skip_incomplete=True) == [(0, 257), (0, 258)]
    assert reader.stats.incomplete.tolist() == [1, 0]
    assert reader.stats.total == 3


def test_resolve_goes_on_behind_abandoned_records() -> None:
    buffer = ring()
    reader = Reader(buffer)
    write(buffer, 0, 2, commit=False)
    write(buffer, 0, 1)
    reader.resolve(reader.heads())

    assert not reader.held_back()
    assert times(reader) == [(0, 258)]
    assert reader.stats.incomplete.tolist() == [2, 0]


def test_batch_not_taken_to_its_end_is_given_again() -> None:
    buffer = ring()
    write(buffer, 0, 4)
    first = next(Reader(buffer).consume())
    assert first.first == CAPACITY

    assert len(times(Reader(buffer))) == 4


def test_overwritten_records_are_counted_as_overrun() -> None:
    buffer = ring(layout.MODE_OVERWRITE)
    reader = Reader(buffer)
    write(buffer, 0, CAPACITY + 100)

    assert times(reader) == [(0, CAPACITY + 100 + i) for i in range(CAPACITY)]
    assert reader.stats.overrun.tolist() == [100, 0]


@pytest.mark.parametrize(("head", "tail"), [(10, 256), (256 + 257, 256), (2**63, 256)])
def test_impossible_head_is_an_error(head: int, tail: int) -> None:
    buffer = ring()
    buffer.lines["head"][0], buffer.tails["tail"][0] = head, tail

    with pytest.raises(RegionError, match="ring of CPU 0 is damaged"):
        times(Reader(buffer))


def test_header_gives_back_the_geometry() -> None:
    buffer = ring(record_bytes=24)

    assert read_geometry(buffer.memory) == buffer.geometry


@pytest.mark.parametrize("field", ["magic", "version", "record_bytes", "capacity", "nr_cpus"])
def test_header_that_cannot_be_true_is_refused(field: str) -> None:
    buffer = ring()
    header = np.frombuffer(buffer.memory.bytes, layout.HEADER_DTYPE, count=1)
    header[field] = 0xFFFF

    with pytest.raises(ValueError, match="no ring"):
        read_geometry(buffer.memory)


@pytest.mark.parametrize("count", [0, -1, 100, 1 << 40])
def test_absurd_buffer_size_is_refused(count: int) -> None:
    with pytest.raises(BadInput):
        Geometry.for_bytes(count, 2, 24)


def test_damage_of_one_cpu_does_not_cost_the_others() -> None:
    buffer = ring()
    reader = Reader(buffer)
    write(buffer, 1, 3)
    buffer.lines["head"][0] = 1

    found = []
    with pytest.raises(RegionError, match="the ring of CPU 0 is damaged"):
        for batch in reader.consume():
            found += [(batch.cpu, int(time)) for time in batch.records["time"]]
    assert found == [(1, 256), (1, 257), (1, 258)]


def test_moments_that_no_clock_shows_are_not_taken_from_a_header() -> None:
    buffer = ring()
    buffer.write_pairs([ClockPair(5, 6, 7), ClockPair(8, 9, 10)])
    assert buffer.pairs == [(5, 6, 7), (8, 9, 10)]
    buffer.memory.bytes[104 + 8 : 104 + 16] = 0xFF  # monotonic_ns of the first
    assert buffer.pairs == [(8, 9, 10)]


@pytest.mark.parametrize(("offset", "value"), [(20, 0), (20, 1 << 16), (24, 1 << 40)])
def test_a_ring_of_no_possible_size_is_none(offset: int, value: int) -> None:
    buffer = ring()
    buffer.memory.bytes[offset : offset + 8] = list(value.to_bytes(8, "little"))
    with pytest.raises(ValueError, match="no ring of a known version"):
        read_geometry(buffer.memory)
