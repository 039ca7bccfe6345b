"""Columns of events: their lengths agree, and order and content survive taking and joining."""

from __future__ import annotations

import numpy as np
import pytest

from fentry.events.columns import Events, concatenate, no_events


def events(times: list[int], *, parents: bool = True) -> Events:
    n = len(times)
    return Events(
        time_ns=np.array(times, np.int64),
        cpu=np.zeros(n, np.uint16),
        tid=np.arange(n, dtype=np.uint32),
        ip=np.arange(n, dtype=np.uint64) + np.uint64(100),
        parent_ip=np.arange(n, dtype=np.uint64) + np.uint64(200) if parents else None,
        key=np.arange(n, dtype=np.uint32),
    )


def test_columns_of_different_lengths_are_refused() -> None:
    whole = events([1, 2])
    with pytest.raises(ValueError, match="columns differ in length: 1 and 2"):
        Events(whole.time_ns, whole.cpu[:1], whole.tid, whole.ip, None, whole.key)


def test_taking_a_mask_keeps_the_rows_together() -> None:
    taken = events([5, 6, 7]).take(np.array([True, False, True]))
    assert taken.time_ns.tolist() == [5, 7]
    assert taken.ip.tolist() == [100, 102]
    assert taken.parent_ip is not None and taken.parent_ip.tolist() == [200, 202]
    assert taken.tid.tolist() == [0, 2]


def test_sorting_by_time_keeps_the_order_of_equal_times() -> None:
    assert events([3, 1, 3, 1]).sorted_by_time().tid.tolist() == [1, 3, 0, 2]


def test_joining_with_and_without_parents_gives_parent_0() -> None:
    joined = concatenate([events([1]), events([2], parents=False)])
    assert joined.parent_ip is not None and joined.parent_ip.tolist() == [200, 0]


def test_joining_nothing_gives_no_events() -> None:
    assert len(concatenate([])) == 0
    assert len(concatenate([no_events(), no_events()])) == 0
