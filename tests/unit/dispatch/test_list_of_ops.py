"""Who is on the list of ops, and its versions in memory: pure, no target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fentry.dispatch.list import LIST, OpsList, overflow, split, too_large
from fentry.dispatch.ops import Callback, Ops
from fentry.dispatch.plan import Plan, make_plan
from fentry.region.layout import LIST_DTYPE
from fentry.region.region import Kind, Segment
from fentry.trampolines.arena import Arena, Neighbourhood
from fentry.trampolines.body import Body, CountBody, Traits

SITES = 12
ROWS = np.arange(SITES, dtype=np.int64) + 100  # a row of the registry for each site


def plan_of(wanted: dict[int, set[int]]) -> Plan:
    every = []
    for number, members in wanted.items():
        chosen = np.zeros(SITES, np.bool_)
        chosen[list(members)] = True
        every.append(Ops(Callback.COUNT, id=number, members=chosen))
    return make_plan(every, np.ones(SITES, np.bool_))


def body_of(number: int) -> Body:
    return CountBody(0x7F0000000280, number % 3 * 0x1000, 0x7F1000000000, 0x7F0000000000)


def arena() -> Arena:
    one = Arena(Neighbourhood(0x10000, 0x20000))
    one.add(Segment(0, Kind.CODE, 0x7E0000000000, 1 << 20))
    return one


def test_sets_of_more_than_eight_ops_are_too_large() -> None:
    plan = plan_of({n: {0} | ({1} if n > 1 else set()) for n in range(1, 10)})

    assert sorted(len(chosen) for chosen in plan.sets) == [0, 8, 9]
    assert sorted(len(plan.sets[i]) for i in np.flatnonzero(too_large(plan))) == [9]


def test_list_takes_the_place_of_the_sets_that_are_on_it() -> None:
    plan = plan_of({1: {0, 1}, 2: {1, 2}, 3: {5}})

    after, listed = split(plan, np.array([len(chosen) == 2 for chosen in plan.sets]))

    assert [after.sets[i] for i in after.wanted[:6]] == [(1,), LIST, (2,), (), (), (3,)]
    assert listed.order == (2, 1)
    assert listed.sites.tolist() == [1]
    assert listed.wants.tolist() == [[True], [True]]


SOME = st.dictionaries(st.integers(1, 9), st.sets(st.integers(0, SITES - 1)), max_size=6)


@given(SOME)
def test_list_knows_exactly_the_ops_of_every_site(wanted: dict[int, set[int]]) -> None:
    plan = plan_of(wanted)

    after, listed = split(plan, np.array([bool(chosen) for chosen in plan.sets]))

    assert {after.sets[i] for i in after.wanted.tolist()} <= {(), LIST}
    found = {
        site: {one for one, wants in zip(listed.order, column, strict=True) if wants}
        for site, column in zip(listed.sites.tolist(), listed.wants.T, strict=True)
    }
    by_site = {s: {n for n, members in wanted.items() if s in members} for s in range(SITES)}
    assert found == {site: chosen for site, chosen in by_site.items() if chosen}
    assert list(listed.order) == sorted(listed.order, reverse=True)


@given(SOME, st.integers(0, 6))
def test_sets_with_most_sites_are_served_first(wanted: dict[int, set[int]], room: int) -> None:
    plan = plan_of(wanted)
    arenas = np.zeros(SITES, np.int32)

    gone = overflow(plan, arenas, lambda chosen, arena: False, room)

    sizes = [int((plan.wanted == i).sum()) for i in range(len(plan.sets))]
    kept = [i for i in range(1, len(plan.sets)) if not gone[i]]
    assert len(kept) == min(room, len(plan.sets) - 1)
    assert not gone[0]
    assert all(sizes[i] >= sizes[j] for i in kept for j in np.flatnonzero(gone).tolist())


def test_sets_that_have_their_trampoline_need_no_room() -> None:
    plan = plan_of({1: {0}, 2: {1}})

    gone = overflow(plan, np.zeros(SITES, np.int32), lambda chosen, arena: chosen == (1,), 0)

    assert {plan.sets[i] for i in np.flatnonzero(gone)} == {(2,)}


def version(ops: OpsList, memory: Arena, wanted: dict[int, set[int]]) -> dict[int, bytes]:
    plan = plan_of(wanted)
    _, listed = split(plan, np.array([bool(chosen) for chosen in plan.sets]))
    update = ops.prepare(listed, body_of, ROWS, 112)
    assert update is not None
    assert memory.shortage(update.need_bytes) == 0
    ops.place(update, memory)
    ops.commit(update)
    return dict(update.writes)


def test_table_names_body_and_bitmap_of_each_ops_newest_first() -> None:
    ops = OpsList(Traits(rseq_offset=2336))

    written = version(ops, arena(), {1: {0, 1}, 4: {1}, 5: {2}})

    table = np.frombuffer(written[ops.now.table], LIST_DTYPE)
    assert table["id"].tolist() == [5, 4, 1, 0]
    assert table["body"][3] == 0
    assert table["body"][1] == table["body"][2] != table["body"][0]  # 1 and 4 count the same
    assert table["sites"].tolist() == [4096, 4096, 4096, 0]
    bits = [np.unpackbits(np.frombuffer(written[int(at)], np.uint8), bitorder="little")
            for at in table["bitmap"][:3]]  # fmt: skip
    assert [np.flatnonzero(one).tolist() for one in bits] == [[102], [101], [100, 101]]


def test_same_list_again_is_no_update() -> None:
    ops, memory = OpsList(Traits()), arena()
    version(ops, memory, {1: {0}})
    _, listed = split(plan_of({1: {0}}), np.array([False, True]))

    assert ops.prepare(listed, body_of, ROWS, 112) is None


def test_what_only_the_version_before_used_is_parked() -> None:
    ops, memory = OpsList(Traits()), arena()
    version(ops, memory, {1: {0}, 2: {1}})
    first = ops.now

    version(ops, memory, {1: {0}})

    assert ops.parked.keys() == first.pieces - ops.now.pieces
    assert first.table in {piece.address for piece in ops.parked}
    (kept,) = [p for p in ops.now.pieces if p.is_code]
    assert kept in first.pieces


def test_what_a_call_that_is_away_comes_back_to_is_not_free() -> None:
    ops, memory = OpsList(Traits()), arena()
    version(ops, memory, {1: {0}, 2: {1}})
    first = ops.now
    version(ops, memory, {1: {0}})
    second = ops.now
    version(ops, memory, {3: {0}})

    freed = set(ops.free({2}))  # its function is under way: it walks the first version

    assert freed == second.pieces - first.pieces - ops.now.pieces
    assert ops.parked.keys() == first.pieces - ops.now.pieces
    assert ops.ids == {1, 2, 3}
    assert set(ops.free(set())) == first.pieces - ops.now.pieces
    assert ops.ids == {3}


def test_list_is_walked_while_a_rip_is_in_a_parked_body() -> None:
    ops, memory = OpsList(Traits()), arena()
    version(ops, memory, {1: {0}})
    (body,) = [p for p in ops.now.pieces if p.is_code]
    version(ops, memory, {2: {0}})
    inside = np.array([0x1234, body.address + 3], np.uint64)

    assert body in ops.parked
    assert ops.is_walked(inside, [])
    assert not ops.is_walked(inside[:1], [])
    assert ops.is_walked(inside[:1], [(0x1200, 0x1300)])


@pytest.mark.parametrize("rows", [1, 4096, 4097])
def test_bitmaps_hold_every_row(rows: int) -> None:
    ops = OpsList(Traits())
    _, listed = split(plan_of({1: {0}}), np.array([False, True]))
    update = ops.prepare(listed, body_of, np.full(SITES, rows - 1, np.int64), rows)

    assert update is not None
    assert len(update.entries[0].bits) == {1: 512, 4096: 512, 4097: 1024}[rows]
