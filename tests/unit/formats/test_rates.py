"""Calls between looks at counters, of functions that come and go."""

from __future__ import annotations

import numpy as np

from fentry.formats.rates import FunctionRate, Rates

SECOND = 1_000_000_000


def look(rates: Rates, counters: dict[int, int], seconds: float) -> None:
    ips, calls = list(counters), list(counters.values())
    rates.look(np.array(ips, np.uint64), np.array(calls, np.uint64), int(seconds * SECOND))


def test_the_first_interval_has_all_calls_from_the_beginning() -> None:
    rates = Rates(10 * SECOND)
    look(rates, {0x20: 3, 0x10: 8, 0x30: 0}, 12)
    assert (rates.calls, rates.total, rates.seconds) == (11, 11, 2.0)
    assert rates.rows() == [FunctionRate(0x10, 8, 8, (4.0,)), FunctionRate(0x20, 3, 3, (1.5,))]


def test_later_intervals_have_the_difference_and_remember_rates() -> None:
    rates = Rates(0)
    look(rates, {0x10: 8, 0x20: 3}, 1)
    look(rates, {0x10: 9, 0x20: 7}, 3)
    assert (rates.calls, rates.total) == (5, 16)
    assert rates.rows() == [
        FunctionRate(0x20, 4, 7, (3.0, 2.0)),
        FunctionRate(0x10, 1, 9, (8.0, 0.5)),
    ]
    assert [row.ip for row in rates.rows(by_total=True)] == [0x10, 0x20]


def test_functions_that_were_not_called_are_there_only_if_asked_for() -> None:
    rates = Rates(0)
    look(rates, {0x10: 8, 0x20: 0}, 1)
    look(rates, {0x10: 8, 0x20: 0}, 2)
    assert rates.rows() == []
    assert [row.ip for row in rates.rows(all_of_them=True)] == [0x10, 0x20]
    assert [row.ip for row in rates.rows(by_total=True)] == [0x10]


def test_a_limit_keeps_the_greatest() -> None:
    rates = Rates(0)
    look(rates, {ip: ip % 17 for ip in range(1, 100)}, 1)
    assert [row.ip for row in rates.rows(limit=3)] == [16, 33, 50]
    assert rates.rows(limit=0) == []


def test_a_library_that_comes_and_one_that_goes_leave_the_others_alone() -> None:
    rates = Rates(0)
    look(rates, {0x10: 8, 0x20: 3}, 1)
    look(rates, {0x05: 2, 0x10: 9}, 2)
    assert rates.rows() == [
        FunctionRate(0x05, 2, 2, (0.0, 2.0)),
        FunctionRate(0x10, 1, 9, (8.0, 1.0)),
    ]
    look(rates, {}, 3)
    assert (rates.calls, rates.rows()) == (0, [])


def test_a_counter_that_begins_again_is_another_functions() -> None:
    rates = Rates(0)
    look(rates, {0x10: 8}, 1)
    look(rates, {0x10: 2}, 2)
    assert rates.rows() == [FunctionRate(0x10, 2, 2, (8.0, 2.0))]


def test_only_the_last_sixteen_intervals_are_remembered() -> None:
    rates = Rates(0)
    for second in range(1, 21):
        look(rates, {0x10: second * second}, second)
    assert rates.rows()[0].history == tuple(float(2 * n - 1) for n in range(5, 21))
