"""Columns of a person's choice, without a trace file."""

from __future__ import annotations

import numpy as np

from fentry.events.columns import Events
from fentry.formats.column_text import ColumnText
from fentry.formats.symbol_names import SymbolNames
from fentry.formats.task_names import TaskNames


def events(times: list[int], ips: list[int], parents: list[int] | None = None) -> Events:
    n = len(times)
    return Events(
        time_ns=np.array(times, np.int64),
        cpu=np.zeros(n, np.uint16),
        tid=np.full(n, 7, np.uint32),
        ip=np.array(ips, np.uint64),
        parent_ip=None if parents is None else np.array(parents, np.uint64),
        key=np.zeros(n, np.uint32),
    )


SYMBOLS = SymbolNames(
    np.array([0x10, 0x20], np.uint64),
    np.array([4, 4], np.uint64),
    [b"f", b"a_name_that_is_wider_than_its_column"],
    [b"/lib/m", b""],
)


def test_wide_names_push_what_follows_and_unknown_ones_are_addresses() -> None:
    form = ColumnText(["function", "module", "tid"], SYMBOLS, TaskNames([]))

    assert form.head() + form.lines(events([1, 2, 3], [0x10, 0x20, 0x99])) == (
        b"FUNCTION                          MODULE                        TID\n"
        b"f                                 m                               7\n"
        b"a_name_that_is_wider_than_its_column  -                               7\n"
        b"0x00000099                        -                               7\n"
    )


def test_times_are_rounded_to_microseconds() -> None:
    form = ColumnText(["time"], SYMBOLS, TaskNames([]))
    times = [0, 499, 500, 999_999_500, 12_345_678_901_234_567]

    assert bytes(form.lines(events(times, [0x10] * 5))) == (
        b"         0.000000\n"
        b"         0.000000\n"
        b"         0.000001\n"
        b"         1.000000\n"
        b"  12345678.901235\n"
    )


def test_counts_have_no_zeros_in_front() -> None:
    form = ColumnText(["time", "tid"], SYMBOLS, TaskNames([]), has_time=False)
    counts = [0, 9, 10, 999, 1000, 1_002_003]

    assert form.head() + form.lines(events(counts, [0x10] * 6)) == (
        b"            COUNT      TID\n"
        b"                0        7\n"
        b"                9        7\n"
        b"               10        7\n"
        b"              999        7\n"
        b"             1000        7\n"
        b"          1002003        7\n"
    )


def test_no_events_are_no_lines() -> None:
    form = ColumnText(["ip", "function"], SYMBOLS, TaskNames([]))

    assert bytes(form.lines(events([], []))) == b""


def test_more_addresses_than_are_remembered_are_all_shown() -> None:
    form = ColumnText(["ip", "function"], SYMBOLS, TaskNames([]))
    for start in range(0x1000, 0x1000 + 90_000, 15_000):
        ips = list(range(start, start + 15_000))
        lines = bytes(form.lines(events([0] * 15_000, ips))).splitlines()
        assert lines[0] == b"0x%016x  0x%08x" % (start, start)
        assert lines[-1] == b"0x%016x  0x%08x" % (start + 14_999, start + 14_999)


def test_names_are_right_after_addresses_were_forgotten() -> None:
    form = ColumnText(["function", "parent"], SYMBOLS, TaskNames([]))
    first, second = b"f".ljust(32), b"a_name_that_is_wider_than_its_column"
    form.lines(events([0], [0x20], [0x1000]))
    many = list(range(0x2000, 0x2000 + 70_000))
    form.lines(events([0] * len(many), [0x10] * len(many), many))

    assert bytes(form.lines(events([0, 0], [0x10, 0x20], [0x1000, 0x1000]))).splitlines() == [
        first + b"  0x00001000",
        second + b"  0x00001000",
    ]
