"""Ticks to nanoseconds: exact against integer arithmetic of Python, and never backwards."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fentry.events.clock import Clock, ClockPair, RunningClock

DAY_NS = 86_400_000_000_000


def ns(clock: Clock, *ticks: int) -> list[int]:
    result: list[int] = clock.monotonic_ns(np.array(ticks, np.uint64)).tolist()
    return result


def test_times_between_two_pairs_are_linear() -> None:
    clock = Clock([ClockPair(1000, 500, 0), ClockPair(3000, 1500, 0)])
    assert ns(clock, 1000, 1002, 2000, 2999, 3000) == [500, 501, 1000, 1499, 1500]


def test_each_segment_has_its_own_slope() -> None:
    clock = Clock([ClockPair(0, 0, 0), ClockPair(100, 100, 0), ClockPair(200, 300, 0)])
    assert ns(clock, 50, 100, 150, 200) == [50, 100, 200, 300]


def test_times_outside_short_spans_use_the_tsc_frequency() -> None:
    pairs = [ClockPair(10_000, 1_000, 0), ClockPair(12_000, 1_700, 0)]
    clock = Clock(pairs, tsc_hz=2_000_000_000)
    assert ns(clock, 14_000) == [2_700]
    assert ns(clock, 8_000) == [-1]


def test_one_pair_and_a_frequency_are_enough() -> None:
    assert ns(Clock([ClockPair(0, 7, 0)], tsc_hz=1_000_000_000), 0, 5) == [7, 12]


@pytest.mark.parametrize("pairs", [[], [ClockPair(1, 1, 1)]])
def test_a_clock_without_any_slope_is_refused(pairs: list[ClockPair]) -> None:
    with pytest.raises(ValueError, match="two pairs, or one pair and the tsc frequency"):
        Clock(pairs)


def test_a_pair_that_runs_backwards_is_left_out() -> None:
    clock = Clock([ClockPair(0, 0, 0), ClockPair(50, 900, 0), ClockPair(100, 100, 0)])
    assert [pair.tsc for pair in clock.pairs] == [0, 50]


def test_thirty_days_in_one_segment_are_exact_to_the_nanosecond() -> None:
    # 2,899,886,000 Hz: ns = ticks * 10**9 // 2,899,886,000, in arbitrary precision
    ticks = 30 * 86_400 * 2_899_886_000
    clock = Clock([ClockPair(0, 0, 0), ClockPair(ticks, 30 * DAY_NS, 0)])
    assert ns(clock, 7_516_504_512_000_001) == [2_592_000_000_000_000]
    assert ns(clock, 1_234_567_890_123_456) == [425_729_801_145_098]


@given(
    st.lists(st.tuples(st.integers(1, 1 << 52), st.integers(0, 1 << 50)), min_size=1, max_size=5),
    st.lists(st.integers(0, 1 << 55), min_size=1, max_size=30),
)
def test_conversion_is_monotonic_and_within_one_nanosecond(
    steps: list[tuple[int, int]], ticks: list[int]
) -> None:
    pairs = [ClockPair(0, 0, 0)]
    for tsc, monotonic_ns in steps:
        pairs.append(ClockPair(pairs[-1].tsc + tsc, pairs[-1].monotonic_ns + monotonic_ns, 0))
    clock = Clock(pairs)
    ticks = sorted(tick for tick in ticks if tick <= pairs[-1].tsc)
    found = ns(clock, *ticks)
    assert found == sorted(found)
    for tick, time_ns in zip(ticks, found, strict=True):
        a, b = next((a, b) for a, b in itertools.pairwise(pairs) if a.tsc <= tick <= b.tsc)
        exact = a.monotonic_ns + (tick - a.tsc) * (b.monotonic_ns - a.monotonic_ns) // (
            b.tsc - a.tsc
        )
        assert exact - 1 <= time_ns <= exact


def test_realtime_follows_the_newest_pair() -> None:
    clock = Clock([ClockPair(0, 0, 1000), ClockPair(100, 100, 5000)])
    assert clock.realtime_ns(np.array([0, 99, 100, 150])).tolist() == [1000, 1099, 5000, 5050]


def test_what_a_running_clock_said_stays_true() -> None:
    clock = RunningClock([ClockPair(0, 0, 0)])
    clock.add(ClockPair(1000, 500, 500))
    ticks = np.array([0, 10, 999, 1000], np.uint64)
    said = clock.monotonic_ns(ticks).tolist()
    assert said == [0, 5, 499, 500]
    clock.add(ClockPair(2000, 1500, 1500))  # twice as fast from here on
    assert clock.monotonic_ns(ticks).tolist() == said
    assert clock.monotonic_ns(np.array([1500, 2000], np.uint64)).tolist() == [1000, 1500]


def test_a_running_clock_keeps_the_newest_pairs_and_goes_on_before_them() -> None:
    clock = RunningClock([ClockPair(0, 0, 0)])
    for n in range(1, 1000):
        clock.add(ClockPair(2000 * n, 1000 * n, 1000 * n))
    ticks = np.array([21, 2000 * 998 + 2], np.uint64)
    assert clock.monotonic_ns(ticks).tolist() == [10, 998_001]


def test_a_running_clock_with_one_pair_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="two pairs"):
        RunningClock([ClockPair(0, 0, 0)]).monotonic_ns(np.array([1], np.uint64))
