"""Events of several CPUs in order, and streams of them."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from tests.support.tables import LEAF, Call, events_of, table_of

from fentry.tracing.ordering import LONGEST_HOLD_NS, SLACK_NS, Ordering
from fentry.tracing.stream import Stream, unfold_events, unfold_table
from fentry.tracing.table import Lost, Table

MS = 1_000_000


def call(ms: int, cpu: int = 0) -> Call:
    return Call(ms * MS, LEAF, cpu=cpu)


def ms_of(events: object) -> list[int]:
    return [time // MS for time in events.time_ns.tolist()]  # type: ignore[attr-defined]


def test_events_leave_in_order_once_nothing_can_come_before_them() -> None:
    order = Ordering(in_time=True)
    order.add(events_of([call(100), call(120), call(105, 1), call(109, 1)]))
    assert ms_of(order.take_before(110 * MS + SLACK_NS, [])) == [100, 105, 109]
    order.add(events_of([call(112, 1), call(115, 1)]))
    assert ms_of(order.take_before(200 * MS, [])) == [112, 115, 120]
    assert ms_of(order.take()) == []


def test_a_record_that_is_being_written_keeps_back_those_after_it() -> None:
    order = Ordering(in_time=True)
    order.add(events_of([call(100), call(101, 1), call(130)]))
    assert ms_of(order.take_before(140 * MS, [1])) == [100, 101]
    assert ms_of(order.take_before(140 * MS, [])) == [130]


def test_but_not_for_ever() -> None:
    order = Ordering(in_time=True)
    order.add(events_of([call(100, 1), call(130)]))
    now_ns = 131 * MS + LONGEST_HOLD_NS
    assert ms_of(order.take_before(now_ns, [1])) == [100, 130]


def test_without_times_events_leave_as_they_came() -> None:
    order = Ordering(in_time=False)
    order.add(events_of([call(5), call(6), call(1, 1)]))
    assert ms_of(order.take_before(0, [0])) == [5, 6, 1]


def told(*tables: Table) -> Generator[Table, None, str]:
    yield from tables
    return "time is up"


def test_a_stream_gives_events_and_adds_up_what_was_lost() -> None:
    ended: list[bool] = []
    tables = told(
        table_of(call(1), call(2), lost=Lost(dropped=1)),
        table_of(lost=Lost(overrun=4)),
        table_of(call(3)),
    )
    stream = Stream(tables, unfold_events, lambda: ended.append(True))
    assert [event.time_ns // MS for event in stream] == [1, 2, 3]
    assert stream.lost == Lost(dropped=1, overrun=4)
    assert stream.why_ended == "time is up"
    assert ended == [True]
    assert list(stream) == []
    stream.close()
    assert ended == [True]


def test_a_stream_of_tables_has_none_that_is_empty() -> None:
    stream = Stream(told(table_of(call(1)), table_of(lost=Lost(1))), unfold_table)
    assert [len(table) for table in stream] == [1]
    assert stream.lost == Lost(dropped=1)


def test_events_that_come_after_later_ones_are_counted() -> None:
    stream = Stream(told(table_of(call(10)), table_of(call(8), call(9), call(11))), unfold_events)
    assert len(list(stream)) == 4
    assert stream.late == 2


@pytest.mark.parametrize("by", ["close", "block", "loop"])
def test_a_stream_ends_what_it_traces_when_it_is_left(by: str) -> None:
    ended: list[bool] = []
    stream = Stream(told(table_of(call(1), call(2))), unfold_events, lambda: ended.append(True))
    if by == "block":
        with stream:
            next(stream)
    elif by == "close":
        next(stream)
        stream.close()
    else:
        for _ in stream:
            break
        del stream
    assert ended == [True]
