"""Merging per-CPU streams: nothing lost, order of time, bounded holding back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fentry.events.columns import Events
from fentry.events.merge import Merge


def stream(cpu: int, times: list[int], chunk: int) -> Iterator[Events]:
    for start in range(0, len(times), chunk):
        part = times[start : start + chunk]
        n = len(part)
        yield Events(
            time_ns=np.array(part, np.int64),
            cpu=np.full(n, cpu, np.uint16),
            tid=np.zeros(n, np.uint32),
            ip=np.zeros(n, np.uint64),
            parent_ip=None,
            key=np.arange(start, start + n, dtype=np.uint32),
        )


def rows(merge: Merge) -> list[tuple[int, int, int]]:
    return [
        row
        for events in merge
        for row in zip(
            events.time_ns.tolist(), events.cpu.tolist(), events.key.tolist(), strict=True
        )
    ]


def test_two_cpus_are_interleaved_by_time() -> None:
    merge = Merge([stream(0, [1, 4, 6], 2), stream(1, [2, 3, 9], 1)], hold_back=0)
    assert rows(merge) == [(1, 0, 0), (2, 1, 0), (3, 1, 1), (4, 0, 1), (6, 0, 2), (9, 1, 2)]


def test_a_record_displaced_within_the_window_is_put_in_order() -> None:
    merge = Merge([stream(0, [10, 30, 20, 40], 1)], hold_back=1)
    assert [row[0] for row in rows(merge)] == [10, 20, 30, 40]
    assert merge.late == 0


def test_a_record_displaced_beyond_the_window_is_delivered_late_and_counted() -> None:
    merge = Merge([stream(0, [10, 30, 40, 20], 1)], hold_back=0)
    assert [row[0] for row in rows(merge)] == [10, 30, 40, 20]
    assert merge.late == 1


def test_no_streams_give_no_events() -> None:
    assert rows(Merge([])) == []


@given(st.lists(st.lists(st.integers(0, 1000)), max_size=4), st.integers(1, 7), st.integers(0, 10))
def test_sorted_streams_come_out_sorted_and_complete(
    cpus: list[list[int]], chunk: int, hold_back: int
) -> None:
    cpus = [sorted(times) for times in cpus]
    merge = Merge(
        [stream(cpu, times, chunk) for cpu, times in enumerate(cpus)], hold_back=hold_back
    )
    expected = sorted(
        (time, cpu, key) for cpu, times in enumerate(cpus) for key, time in enumerate(times)
    )
    found = rows(merge)
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert sorted(found) == expected
    assert merge.late == 0


@given(st.lists(st.lists(st.integers(0, 1000)), max_size=3), st.integers(1, 7), st.integers(0, 5))
def test_disordered_streams_lose_nothing(cpus: list[list[int]], chunk: int, hold_back: int) -> None:
    merge = Merge(
        [stream(cpu, times, chunk) for cpu, times in enumerate(cpus)], hold_back=hold_back
    )
    assert sorted(rows(merge)) == sorted(
        (time, cpu, key) for cpu, times in enumerate(cpus) for key, time in enumerate(times)
    )
