"""Events and losses that are still coming in: order of time, losses where they were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fentry.events.columns import Events
from fentry.events.stream import Lost, TimedStream, UntimedStream


def events(cpu: int, *times: int) -> Events:
    n = len(times)
    return Events(
        time_ns=np.array(times, np.int64),
        cpu=np.full(n, cpu, np.uint16),
        tid=np.zeros(n, np.uint32),
        ip=np.zeros(n, np.uint64),
        parent_ip=None,
        key=np.zeros(n, np.uint32),
    )


def shown(parts: list[Events | Lost]) -> list[tuple[int, int] | str]:
    found: list[tuple[int, int] | str] = []
    for part in parts:
        if isinstance(part, Lost):
            found.append(f"{part.cpu}: {part.count} lost")
        else:
            found += zip(part.time_ns.tolist(), part.cpu.tolist(), strict=True)
    return found


def test_events_of_several_cpus_are_given_out_in_order_up_to_a_time() -> None:
    stream = TimedStream()
    stream.add(events(0, 10, 30, 50))
    stream.add(events(1, 20, 40))
    assert shown(stream.release(30)) == [(10, 0), (20, 1), (30, 0)]
    assert len(stream) == 2
    stream.add(events(0, 45))
    assert shown(stream.release(None)) == [(40, 1), (45, 0), (50, 0)]
    assert (len(stream), stream.late) == (0, 0)


def test_what_comes_too_late_is_given_out_and_counted() -> None:
    stream = TimedStream()
    stream.add(events(0, 10, 30))
    stream.release(30)
    stream.add(events(1, 20, 30, 40))
    assert shown(stream.release(None)) == [(20, 1), (30, 1), (40, 1)]
    assert stream.late == 1


def test_a_loss_stands_behind_the_last_event_before_it() -> None:
    stream = TimedStream()
    stream.add(events(0, 10, 30))
    stream.add(events(1, 20, 40))
    stream.add_lost(Lost(0, 7, 30))
    stream.add_lost(Lost(1, 2, 5))
    assert shown(stream.release(35)) == ["1: 2 lost", (10, 0), (20, 1), (30, 0), "0: 7 lost"]
    stream.add_lost(Lost(1, 3, 50))
    assert shown(stream.release(None)) == [(40, 1), "1: 3 lost"]


def test_without_times_all_is_given_out_as_it_came() -> None:
    stream = UntimedStream()
    stream.add(events(1, 0, 1))
    stream.add_lost(Lost(1, 5, 0))
    stream.add(events(0, 0))
    assert len(stream) == 3
    assert shown(stream.release(-1)) == [(0, 1), (1, 1), "1: 5 lost", (0, 0)]
    assert len(stream) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 50)), st.integers(0, 60))))
def test_every_event_is_given_out_once(steps: list[tuple[int, list[int], int]]) -> None:
    stream = TimedStream()
    out: list[tuple[int, int] | str] = []
    for cpu, times, until in steps:
        stream.add(events(cpu, *times))
        out += shown(stream.release(until))
    out += shown(stream.release(None))
    assert sorted(map(str, out)) == sorted(str((t, cpu)) for cpu, times, _ in steps for t in times)
