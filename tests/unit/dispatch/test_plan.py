"""The planner is pure: the order of what happened does not matter, only what is registered."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.plan import make_plan

SITES = 12


def ops(number: int, members: set[int]) -> Ops:
    wanted = np.zeros(SITES, np.bool_)
    wanted[list(members)] = True
    return Ops(Callback.COUNT, id=number, members=wanted)


ALL = np.ones(SITES, np.bool_)
SOME = st.dictionaries(st.integers(1, 9), st.sets(st.integers(0, SITES - 1)), max_size=6)


def calls_of(wanted: dict[int, set[int]], traceable: np.ndarray = ALL) -> list[tuple[int, ...]]:
    plan = make_plan([ops(n, m) for n, m in wanted.items()], traceable)
    return [plan.sets[i] for i in plan.wanted.tolist()]


def test_no_ops_plan_nothing() -> None:
    assert calls_of({}) == [()] * SITES


def test_one_ops_gives_its_sites_its_own_set() -> None:
    assert calls_of({3: {0, 2}})[:4] == [(3,), (), (3,), ()]


def test_shared_site_gets_the_set_newest_first() -> None:
    assert calls_of({1: {5}, 7: {5}, 4: {5, 6}})[5:7] == [(7, 4, 1), (4,)]


def test_site_that_is_not_traceable_gets_nothing() -> None:
    traceable = ALL.copy()
    traceable[5] = False

    assert calls_of({1: {4, 5}}, traceable)[4:6] == [(1,), ()]


def test_sets_are_shared_by_sites() -> None:
    plan = make_plan([ops(1, {0, 1, 2}), ops(2, {0, 1})], ALL)

    assert sorted(plan.sets) == [(), (1,), (2, 1)]


@given(SOME)
def test_every_site_calls_exactly_its_ops(wanted: dict[int, set[int]]) -> None:
    for site, chosen in enumerate(calls_of(wanted)):
        assert set(chosen) == {n for n, members in wanted.items() if site in members}
        assert list(chosen) == sorted(chosen, reverse=True)


@given(SOME, st.randoms())
def test_order_of_registration_does_not_matter(wanted: dict[int, set[int]], chance) -> None:  # type: ignore[no-untyped-def]
    items = list(wanted.items())
    chance.shuffle(items)

    assert calls_of(dict(items)) == calls_of(wanted)
