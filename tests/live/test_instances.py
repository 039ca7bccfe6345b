"""Instances: rings of their own on one process, each with its functions, size, mode, tracing_on."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.errors import BadInput
from fentry.instance import Instance
from fentry.ring.layout import MODE_OVERWRITE
from fentry.session import Options, Session, adopt, attach

BIG = Options(buffer_bytes=16 << 20)


def recorded(session: Session, instance: Instance) -> Counter[str]:
    """Calls by function name of an instance's records not read before."""
    by_name: Counter[str] = Counter()
    batches = [batch.records["key"].copy() for batch in instance.consume()]
    keys, ips = session.keys()
    names = dict(zip(keys.tolist(), tracing.names_of(session, ips.tolist()), strict=True))
    for key in np.concatenate(batches).tolist() if batches else []:
        by_name[names[key]] += 1
    return by_name


def test_each_instance_records_its_own_functions(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[Counter[str], list[Counter[str]], list[int]]:
            with attach(target.pid, BIG) as session:
                one = session.instance("one", BIG)
                two = session.instance("two", Options(buffer_bytes=8 << 20, record_bytes=16))
                assert session.instance("one") is one
                one.register(tracing.recording("f_plain", "f_lea"))
                two.register(tracing.recording("f_lea", "f_nop5"))
                session.register(tracing.recording("f_plain"))
                target.go()
                target.await_calls("f_plain", 3000)
                held = target.hold()
                seen = [recorded(session, i) for i in (session.top, one, two)]
                return held, seen, [i.ring.record_bytes for i in (one, two)]

        held, (top, one, two), sizes = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert top == {"f_plain": held["f_plain"]}
    assert one == {name: held[name] for name in ("f_plain", "f_lea")}
    assert two == {name: held[name] for name in ("f_lea", "f_nop5")}
    assert sizes == [24, 16]


def test_an_instance_that_is_off_neither_records_nor_drops(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[list[int], list[int], int]:
            with attach(target.pid, BIG) as session:
                quiet = session.instance("quiet", BIG)
                quiet.tracing_on = False  # before it has a ring
                quiet.register(tracing.recording("f_plain"))
                session.register(tracing.recording("f_plain"))
                sums, made = [], []
                for on in (False, True, False):
                    quiet.tracing_on = on
                    assert quiet.tracing_on is on
                    begun = target.counters()["f_plain"]
                    target.go()
                    target.await_calls("f_plain", 1000)
                    made.append(target.hold()["f_plain"] - begun)
                    sums.append(recorded(session, quiet).total())
                    assert recorded(session, session.top).total() == made[-1]
                stats = quiet.stats
                assert stats is not None
                return sums, made, int(stats.dropped_events.sum())

        sums, made, dropped = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert sums == [0, made[1], 0]
    assert dropped == 0


def test_a_flight_recorder_beside_a_ring_that_refuses(account: Account) -> None:
    small = Options(buffer_bytes=1 << 14)
    with start(build("hot.c"), "threads=2", account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid, small) as session:
                last = session.instance("last", Options(buffer_bytes=1 << 14, mode=MODE_OVERWRITE))
                last.register(tracing.recording("f_plain"))
                session.register(tracing.recording("f_plain"))
                target.go()
                target.await_calls("f_plain", 100_000)
                held = target.hold()["f_plain"]
                for instance in (session.top, last):
                    list(instance.consume())
                first, kept = session.stats, last.stats
                assert first is not None and kept is not None
                assert int(first.overrun.sum()) == 0 < int(first.dropped_events.sum())
                assert int(kept.overrun.sum()) > 0 == int(kept.dropped_events.sum())
                return held, first.total, kept.total

        held, first, kept = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert first == kept == held


def test_instances_come_and_go_without_growing_the_target(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[list[int], int]:
            mapped = []
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.counting("f_lea"))
                for i in range(30):
                    instance = session.instance(f"number {i}", tracing.SMALL)
                    ops = instance.register(tracing.recording("f_*"))
                    target.await_calls("f_plain")
                    assert instance.ops == [ops]
                    target.hold()  # else it is refused while somebody records into it
                    session.remove_instance(instance)
                    target.go()
                    with pytest.raises(BadInput, match="cannot be removed"):
                        session.remove_instance(instance)
                    mapped.append(sum(s.bytes for s in session.region.segments))
                with pytest.raises(BadInput, match="was removed"):
                    instance.register(tracing.recording("f_*"))
                return mapped, len(session.instances)

        mapped, left = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert left == 1
    assert mapped[-1] <= 2 * mapped[0]


def test_instances_are_adopted_with_their_names_and_rings(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def first() -> None:
            session = attach(target.pid, tracing.SMALL)
            session.instance("plain", BIG).register(tracing.recording("f_plain"))
            off = session.instance("off", BIG)
            off.register(tracing.recording("f_lea"))
            off.tracing_on = False
            session.register(tracing.counting("f_*"))
            os._exit(0)  # as a controller that was killed

        child = os.fork()
        if not child:
            try:
                account.become()
                first()
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        target.go()
        target.await_calls("f_plain", 1000)
        held = target.hold()

        def second() -> tuple[dict[str, tuple[bool, Counter[str]]], int]:
            with adopt(target.pid) as session:
                found = {
                    one.name: (one.tracing_on, recorded(session, one))
                    for one in session.instances.values()
                }
                return found, len(session.instance("off").ops)

        found, ops = account.run(second)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert found["plain"] == (True, {"f_plain": held["f_plain"]})
    assert found["off"] == (False, {})
    assert ops == 1


def test_names_and_numbers_of_instances_are_limited(account: Account) -> None:
    with start(build("hot.c"), account=account) as target:

        def controller() -> None:
            with attach(target.pid, tracing.SMALL) as session:
                for name in ("", "x" * 25, "a\0b"):
                    with pytest.raises(BadInput, match="no name of an instance"):
                        session.instance(name)
                for i in range(63):
                    session.instance(str(i))  # no ring before somebody records
                with pytest.raises(BadInput, match="64 instances exist"):
                    session.instance("one more")
                with pytest.raises(BadInput, match="cannot be removed"):
                    session.remove_instance(session.top)

        account.run(controller)
        assert target.stop().is_well
