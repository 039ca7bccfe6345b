"""Blocks of records, and what records become."""

from __future__ import annotations

import numpy as np
from tests.support.tables import LEAF, MALLOC

from fentry.events.clock import Clock, ClockPair
from fentry.ring.layout import RECORD16, RECORD24
from fentry.tracing.blocks import BLOCK_RECORDS, Blocks, Part
from fentry.tracing.decoding import Sites, decode


def numbered(first: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    records = np.zeros(count, RECORD16)
    records["time"] = np.arange(first, first + count)
    return records


def times(parts: list[Part]) -> list[tuple[int, list[int]]]:
    return [(part.cpu, part.records["time"].tolist()) for part in parts]


def test_records_are_kept_by_cpu_in_order() -> None:
    blocks = Blocks(RECORD16)
    blocks.add(1, numbered(0, 3))
    blocks.add(0, numbered(10, 2))
    blocks.add(1, numbered(3, 2))
    assert times(blocks.parts()) == [(0, [10, 11]), (1, [0, 1, 2, 3, 4])]
    assert blocks.count == blocks.kept == 5 + 2
    assert times(blocks.parts({0: 2, 1: 4})) == [(1, [4])]


def test_what_is_kept_is_a_copy() -> None:
    blocks, records = Blocks(RECORD16), numbered(0, 3)
    blocks.add(0, records)
    records["time"] = 99
    assert times(blocks.parts()) == [(0, [0, 1, 2])]


def test_many_records_go_over_several_blocks_and_are_forgotten_by_the_block() -> None:
    blocks = Blocks(RECORD16)
    total = 2 * BLOCK_RECORDS + 10
    for first in range(0, total, 50_000):
        blocks.add(0, numbered(first, min(50_000, total - first)))
    assert np.concatenate([p.records["time"] for p in blocks.parts()]).tolist() == list(
        range(total)
    )
    since = BLOCK_RECORDS + 5
    rest = [time for _, part in times(blocks.parts({0: since})) for time in part]
    assert rest == list(range(since, total))
    blocks.forget({0: since})
    assert blocks.kept == total - BLOCK_RECORDS and blocks.count == total
    rest = [time for _, part in times(blocks.parts({0: since})) for time in part]
    assert rest == list(range(since, total))
    blocks.forget({0: total})
    blocks.add(0, numbered(total, BLOCK_RECORDS))
    rest = [time for _, part in times(blocks.parts({0: total})) for time in part]
    assert rest == list(range(total, total + BLOCK_RECORDS))


def test_exactly_a_block_can_be_forgotten() -> None:
    blocks = Blocks(RECORD16)
    blocks.add(0, numbered(0, BLOCK_RECORDS))
    blocks.forget({0: BLOCK_RECORDS})
    assert blocks.parts() == [] and blocks.kept == 0
    blocks.add(0, numbered(BLOCK_RECORDS, 1))
    assert times(blocks.parts({0: BLOCK_RECORDS})) == [(0, [BLOCK_RECORDS])]


def test_records_become_events() -> None:
    records = np.zeros(2, RECORD24)
    records["time"], records["key"] = [2000, 4000], [0xFFFF0000, 3]
    records["word"] = [1234 | 5 << 22, 77]
    records["parent_ip"] = [0x1008, 0x1010]
    sites = Sites(np.array([3, 0xFFFF0000], np.uint32), np.array([LEAF.ip, MALLOC.ip], np.uint64))
    clock = Clock([ClockPair(0, 0, 0), ClockPair(10_000, 5_000, 0)])
    events = decode([Part(1, records)], sites, clock, 1024)
    assert events.time_ns.tolist() == [1000, 2000]
    assert events.tid.tolist() == [1234, 77]
    assert events.cpu.tolist() == [1, 1]
    assert events.ip.tolist() == [MALLOC.ip, LEAF.ip]
    assert events.parent_ip is not None and events.parent_ip.tolist() == [0x1008, 0x1010]


def test_without_a_clock_times_count_the_records_before() -> None:
    sites = Sites(np.empty(0, np.uint32), np.empty(0, np.uint64))
    events = decode([Part(0, numbered(1024, 3))], sites, None, 1024)
    assert events.time_ns.tolist() == [0, 1, 2]
    assert events.parent_ip is None
    assert events.ip.tolist() == [0, 0, 0]  # keys that nobody knows


def test_calls_of_sites_are_added_up_without_decoding() -> None:
    first, second = np.zeros(3, RECORD16), np.zeros(2, RECORD16)
    first["key"], second["key"] = [1, 2, 1], [2, 2]
    sites = Sites(np.array([1, 2, 5], np.uint32), np.array([0x10, 0x20, 0x50], np.uint64))
    ips, calls = sites.calls([Part(0, first), Part(1, second)])
    assert dict(zip(ips.tolist(), calls.tolist(), strict=True)) == {0x10: 2, 0x20: 3}
