"""Whatever came, changed and went, in whatever order: the plan is that of the end state."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fentry.dispatch.list import LIST, split, too_large
from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.plan import Plan, make_plan

SITES = 10
TRACEABLE = np.array([site != 3 for site in range(SITES)])

MEMBERS = st.sets(st.integers(0, SITES - 1))
STEPS = st.lists(
    st.tuples(st.sampled_from(["register", "change", "unregister"]), st.integers(0, 20), MEMBERS),
    max_size=25,
)


def ops(number: int, members: set[int]) -> Ops:
    wanted = np.zeros(SITES, np.bool_)
    wanted[list(members)] = True
    return Ops(Callback.RECORD, id=number, members=wanted)


def run(steps: list[tuple[str, int, set[int]]]) -> dict[int, Ops]:
    """The ops that are registered after all steps, in the order of a session."""
    there: dict[int, Ops] = {}
    following = 1
    for what, which, members in steps:
        if what == "register" or not there:
            there[following] = ops(following, members)
            following += 1
            continue
        number = list(there)[which % len(there)]
        if what == "unregister":
            del there[number]
        else:
            there[number].members = ops(number, members).members
        make_plan(list(there.values()), TRACEABLE)  # what was planned between leaves nothing
    return there


def users(plan: Plan, site: int) -> tuple[int, ...]:
    return plan.sets[plan.wanted[site]]


@given(STEPS)
def test_plan_is_that_of_the_end_state(steps: list[tuple[str, int, set[int]]]) -> None:
    there = run(steps)

    plan = make_plan(list(there.values()), TRACEABLE)

    for site in range(SITES):
        wanted = [n for n, one in there.items() if one.members[site] and TRACEABLE[site]]
        assert users(plan, site) == tuple(sorted(wanted, reverse=True))
    assert set(plan.order) == set(there)


@given(STEPS, st.randoms())
def test_order_of_arrival_does_not_matter_to_the_list(steps, chance) -> None:  # type: ignore[no-untyped-def]
    there = list(run(steps).values())
    shuffled = list(there)
    chance.shuffle(shuffled)
    plans = [make_plan(every, TRACEABLE) for every in (there, shuffled)]

    (one, listed), (other, again) = (
        split(plan, np.array([bool(chosen) for chosen in plan.sets])) for plan in plans
    )

    assert [users(one, s) for s in range(SITES)] == [users(other, s) for s in range(SITES)]
    assert listed.order == again.order
    assert listed.sites.tolist() == again.sites.tolist()
    assert listed.wants.tolist() == again.wants.tolist()


@given(STEPS)
def test_nothing_is_wanted_when_all_are_gone(steps: list[tuple[str, int, set[int]]]) -> None:
    there = run(steps)
    there.clear()

    assert not make_plan(list(there.values()), TRACEABLE).wanted.any()


@given(st.integers(1, 20))
def test_only_sets_of_more_than_eight_go_on_the_list(count: int) -> None:
    plan = make_plan([ops(n, {0, n % 2}) for n in range(1, count + 1)], TRACEABLE)

    after, _ = split(plan, too_large(plan))

    for site in range(SITES):
        chosen = users(plan, site)
        assert users(after, site) == (LIST if len(chosen) > 8 else chosen)
