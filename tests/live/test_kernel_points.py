"""What the kernel's ftrace does, point by point (docs/design/kernel-points.md has them all): the
names A1 to A17 are those of that page."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import fentry
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.dispatch import writes
from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.dispatch.plan import make_plan
from fentry.dispatch.records import Record, records
from fentry.errors import BadInput, PatchError, SymbolNotFound
from fentry.process.gather import Pieces
from fentry.session import Options, Session, attach
from fentry.trampolines.direct import DirectCode

BIG = Options(buffer_bytes=16 << 20)


def record_of(session: Session, name: str) -> Record:
    """What the registry says of a function."""
    (ip,) = session.functions.symbols.match(name)
    (found,) = [one for one in records(session.region) if one.ip == int(ip)]
    return found


def calls_until(target: Target, more: int = 200) -> Counter[str]:
    """Calls that are made from now on, the threads at the gate before and after."""
    begun = target.counters()
    target.go()
    target.await_calls("f_plain", more)
    return target.hold() - begun


def test_a1_a_record_counts_its_ops_and_stays_touched(account: Account) -> None:
    """A1: dyn_ftrace counts its ops, and TOUCHED is never cleared."""
    with start(build("hot.c"), "pause_us=100", account=account) as target:

        def controller() -> list[tuple[int, bool]]:
            seen = []
            with attach(target.pid, tracing.SMALL) as session:
                every: list[Ops] = []
                for _ in range(3):
                    every.append(session.register(tracing.recording("f_lea")))
                    seen.append(record_of(session, "f_lea"))
                while every:
                    session.unregister(every.pop(0))
                    seen.append(record_of(session, "f_lea"))
                return [(len(one.members), one.is_enabled) for one in seen]

        counts = account.run(controller)
        assert target.stop().is_well
    assert counts == [(1, True), (2, True), (3, True), (2, True), (1, True), (0, False)]


def test_a2_what_is_listed_is_what_can_be_traced_and_its_index_chooses_it(
    account: Account,
) -> None:
    """A2: available_filter_functions lists exactly what can be traced; its numbers are filters."""
    with start(build("hot.c"), "pause_us=100", account=account) as target:
        listed = fentry(account, "list", "-p", target.pid, "--index", "--json", "f_*").out
        rows = [json.loads(line) for line in listed.splitlines()]
        numbers = {row["name"]: row["index"] for row in rows if row["index"]}

        def controller() -> tuple[int, list[str]]:
            with attach(target.pid, tracing.SMALL) as session:
                traced = session.register(tracing.recording("f_*"))
                count = int((traced.members & session.functions.table.traceable).sum())
                one = session.register(tracing.counting(str(numbers["f_lea"])))
                ips = session.functions.table.ip[one.members].tolist()
                return count, tracing.names_of(session, ips)

        count, chosen = account.run(controller)
        assert target.stop().is_well
    assert count == len(numbers) == 21
    assert chosen == ["f_lea"]


def test_a3_ip_is_the_function_and_parent_ip_in_its_caller(account: Account) -> None:
    """A3: callbacks get the address of the site, and the return address into the caller."""
    with start(build("hot.c"), "check=0", account=account, hold=True) as target:

        def controller() -> tuple[set[str], set[str]]:
            with attach(target.pid, BIG) as session:
                session.register(tracing.recording("f_lea", "f_nop5"))
                calls_until(target)
                batches = [b.records.copy() for b in session.consume()]
                keys, ips = session.keys()
                by_key = dict(zip(keys.tolist(), ips.tolist(), strict=True))
                found = np.concatenate(batches)
                functions = {by_key[key] for key in found["key"].tolist()}
                parents = set(found["parent_ip"].tolist())
                own = {int(session.functions.symbols.match(n)[0]) for n in ("f_lea", "f_nop5")}
                assert functions == own
                return set(tracing.names_of(session, list(functions))), set(
                    tracing.names_of(session, list(parents))
                )

        functions, parents = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert functions == {"f_lea", "f_nop5"}
    assert parents == {"work"}


@pytest.mark.parametrize(
    ("wanted", "notrace", "expected"),
    [
        ((), (), "all"),
        (("f_lea",), (), {"f_lea"}),
        (("f_lea", "f_plain"), ("f_lea",), {"f_plain"}),
        (("f_*nop5",), ("f_endbr*",), {"f_nop5"}),
    ],
)
def test_a4_filter_and_notrace_have_the_truth_table_of_the_kernel(
    account: Account,
    wanted: tuple[str, ...],
    notrace: tuple[str, ...],
    expected: set[str] | str,
) -> None:
    """A4: (filter empty or ip in filter) and ip not in notrace."""
    with start(build("hot.c"), "pause_us=100", account=account) as target:

        def controller() -> tuple[set[str], int, int]:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting(*wanted, notrace=notrace))
                ips = session.functions.table.ip[ops.members].tolist()
                every = int((~session.functions.table.part).sum())  # a part is no function
                return set(tracing.names_of(session, ips)), int(ops.members.sum()), every

        names, count, every = account.run(controller)
        assert target.stop().is_well
    assert (count == every) if expected == "all" else (names == expected)


@pytest.mark.parametrize("at_once", [128, 0])
def test_a5_a16_bytes_that_are_not_the_expected_ones_stop_everything(
    account: Account, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A5, A16: old bytes are verified before the first is written; nothing or all is changed."""
    monkeypatch.setattr(writes, "_MOST_AT_ONCE", at_once)  # those of few sites by one look
    with start(build("hot.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[str, list[int]]:
            with attach(target.pid, tracing.SMALL) as session:
                (ip,) = map(int, session.functions.symbols.match("f_lea"))
                memory = session.target.memory
                kept = memory.read(ip, 1)
                looked = session._transaction._relied_on

                def change_after_all() -> Pieces | None:
                    pieces = looked()
                    memory.write(ip, b"\xcc")  # everything has been prepared
                    return pieces

                session._transaction._relied_on = change_after_all  # type: ignore[method-assign]
                with pytest.raises(PatchError) as caught:
                    session.register(tracing.recording("f_*"))
                memory.write(ip, kept)
                return str(caught.value), [r.ip for r in records(session.region) if r.members]

        said, enabled = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        target.await_calls("f_plain", 100)
        assert target.stop().is_well
    assert "its bytes are no longer those of the file" in said
    assert enabled == []
    assert [line for line in found if not line.startswith("pages:")] == []  # we wrote there


def test_a6_only_what_changes_is_changed(account: Account) -> None:
    """A6: one user, its own trampoline; a second user of that function changes that one only."""
    with start(build("hot.c"), "pause_us=100", account=account) as target:

        def controller() -> list[tuple[int, int]]:
            with attach(target.pid, tracing.SMALL) as session:

                def calls() -> tuple[int, int]:
                    return record_of(session, "f_lea").call, record_of(session, "f_plain").call

                session.register(tracing.recording("f_lea", "f_plain"))
                seen = [calls()]
                second = session.register(tracing.counting("f_lea"))
                seen.append(calls())
                session.set_filter(second, ("f_lea",))
                seen.append(calls())
                session.unregister(second)
                seen.append(calls())
                return seen

        first, second, same, last = account.run(controller)
        assert target.stop().is_well
    assert first[0] == first[1]  # A11: a trampoline is of the ops, not of the function
    assert second[1] == same[1] == last[1] == first[1]
    assert second[0] != first[0]
    assert same == second
    assert last[0] != second[0]


def test_a7_everything_the_function_gets_is_as_without_a_trampoline(account: Account) -> None:
    """A7: all registers, flags and vectors, checked by the target at each of its calls."""
    with start(build("hot.c"), "threads=2", "check=1", account=account, hold=True) as target:

        def controller() -> int:
            with attach(target.pid, BIG) as session:
                session.register(tracing.recording("f_*"))
                session.register(tracing.counting("f_*"))
                return calls_until(target, 1000)["f_plain"]

        assert account.run(controller) >= 1000
        target.go()
        end = target.stop()
    assert end.is_well and end.bad == 0, end.err


@pytest.mark.parametrize("dispatch", ["sets", "list"])
def test_a9_no_callback_sees_a_function_outside_of_its_filter(
    account: Account, dispatch: str
) -> None:
    """A9: during any transition a call may be missed, but none is seen by who does not want it."""
    options = Options(buffer_bytes=1 << 20, dispatch=dispatch)
    with start(build("hot.c"), "threads=4", "pause_us=20", account=account) as target:

        def controller() -> list[set[str]]:
            with attach(target.pid, options) as session:
                mine = session.register(tracing.counting("f_lea", "f_nop5"))
                other = session.register(tracing.counting("f_plain"))
                for i in range(40):
                    session.set_filter(mine, ("f_lea",) if i % 2 else ("f_nop5", "f_lea"))
                    session.set_filter(other, ("f_plain", "f_frame") if i % 2 else ("f_frame",))
                target.await_calls("f_plain", 100)
                return [set(tracing.counted(session, ops)) for ops in (mine, other)]

        mine, other = account.run(controller)
        assert target.stop().is_well
    assert mine == {"f_lea", "f_nop5"}
    assert other == {"f_plain", "f_frame"}


def test_a13_after_the_removal_no_call_is_seen_and_memory_is_used_again(account: Account) -> None:
    """A13: unregister() returns when no callback of a new call can run; code is given back."""
    with start(build("hot.c"), "threads=3", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[list[int], set[int]]:
            seen, addresses = [], set()
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.recording("f_plain"))
                for _ in range(40):
                    ops = session.register(tracing.counting("f_lea"))
                    addresses.add(record_of(session, "f_lea").call)
                    calls_until(target, 20)
                    session.unregister(ops)
                    assert session.counters is not None
                    counts = int(session.counters.totals(ops.slot).sum())
                    calls_until(target, 20)
                    seen.append(int(session.counters.totals(ops.slot).sum()) - counts)
                return seen, addresses

        seen, addresses = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen == [0] * 40
    assert len(addresses) <= 8  # a few wait until nobody is in them


def test_a14_permanent_ops_and_the_off_switch_exclude_each_other(account: Account) -> None:
    """A14: ftrace_enabled = 0 is EBUSY while a PERMANENT ops is registered, and the reverse."""
    with start(build("hot.c"), "pause_us=100", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> list[int]:
            sites = []
            with attach(target.pid, tracing.SMALL) as session:
                ops = tracing.counting("f_lea")
                ops.flags = Flags.PERMANENT
                session.register(ops)
                with pytest.raises(BlockingIOError):
                    session.enabled = False
                sites.append(int(session._known.dispatcher.patched.sum()))
                session.unregister(ops)
                session.enabled = False
                with pytest.raises(BlockingIOError):
                    session.register(ops)
                session.register(tracing.counting("f_lea"))
                sites.append(int(session._known.dispatcher.patched.sum()))
                session.enabled = True
                sites.append(int(session._known.dispatcher.patched.sum()))
            return sites

        sites = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert sites == [1, 0, 1]


def test_a15_tracing_on_stops_the_recording_and_unregister_the_cost(account: Account) -> None:
    """A15: with tracing_on 0 the functions still call; without ops they do not."""
    with start(build("hot.c"), "threads=2", account=account, hold=True) as target:

        def controller() -> list[tuple[bool, bool]]:
            seen = []
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.recording("f_lea"))
                for on in (True, False, True):
                    session.top.tracing_on = on
                    calls_until(target)
                    recorded = tracing.recorded(session).total() > 0
                    seen.append((record_of(session, "f_lea").is_enabled, recorded))
                session.unregister(ops)
                calls_until(target)
                recorded = tracing.recorded(session).total() > 0
                seen.append((record_of(session, "f_lea").is_enabled, recorded))
                return seen

        seen = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen == [(True, True), (True, False), (True, True), (False, False)]


def test_a17_calls_inside_of_a_trampoline_are_neither_lost_nor_endless(account: Account) -> None:
    """A17: bodies call nothing, so they cannot recurse; handlers that interrupt one are counted."""
    with start(build("sigstorm.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], int, int]:
            with attach(target.pid, BIG) as session:
                count = session.register(tracing.counting("f_main", "f_handler"))
                session.register(tracing.recording("f_main", "f_handler"))
                records: Counter[str] = Counter()
                target.go()
                while target.counters()["f_handler"] < 500:
                    records += tracing.recorded(session)
                held = target.hold()
                records += tracing.recorded(session)
                assert session.stats is not None
                never_committed = int(session.stats.incomplete.sum())
                counts, dropped = tracing.counted(session, count), tracing.dropped(session)
                return held, counts, records, dropped, never_committed

        held, counts, seen, dropped, never_committed = account.run(controller)
        target.go()
        assert target.stop().is_well
    wanted = Counter({name: held[name] for name in ("f_main", "f_handler")})
    assert (counts, never_committed) == (wanted, 0)
    assert seen.total() + dropped == wanted.total()
    assert dropped or seen == wanted  # a reader that gets no CPU may leave the ring full


def test_a20_each_instance_has_its_own_filter(account: Account) -> None:
    """A20: an instance's function filter is its own ops; removing it takes them along."""
    with start(build("hot.c"), account=account, hold=True) as target:

        def controller() -> list[tuple[int, ...]]:
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.recording("f_lea"))
                own = session.instance("own", tracing.SMALL)
                own.register(tracing.recording("f_lea", "f_plain"))
                seen = [record_of(session, name).members for name in ("f_lea", "f_plain")]
                session.remove_instance(own)
                seen += [record_of(session, name).members for name in ("f_lea", "f_plain")]
                return seen

        seen = account.run(controller)
        assert target.stop().is_well
    assert seen == [(2, 1), (2,), (1,), ()]


NAMES = ("f_plain", "f_lea", "f_nop5", "f_frame", "f_endbr", "f_pushes", "f_rip")


@pytest.mark.parametrize("dispatch", ["sets", "list"])
@pytest.mark.parametrize("seed", range(3))
def test_any_order_ends_in_the_plan_of_the_end_state(
    account: Account, seed: int, dispatch: str
) -> None:
    """A4 to A6: registering, changing and unregistering in any order leaves what the ops that are
    there plan; when all are gone the text is the original."""
    options = Options(buffer_bytes=1 << 16, dispatch=dispatch)
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            chance = random.Random(seed)
            with attach(target.pid, options) as session:
                for _ in range(40):
                    _any_step(session, chance)
                    _compare(session)
                for ops in chance.sample(list(session.ops.values()), len(session.ops)):
                    session.unregister(ops)
                    _compare(session)
                assert not any(one.members for one in records(session.region))
                assert not session._known.dispatcher.patched.any()
                sites = np.flatnonzero(session._known.dispatcher.rows >= 0)
                assert not session._known.dispatcher.differs(sites).any()

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def _any_step(session: Session, chance: random.Random) -> None:
    names = chance.sample(NAMES, chance.randrange(1, 5))
    there = list(session.ops.values())
    what = chance.choice(("register", "register", "change", "unregister"))
    if what == "register" or not there:
        make = chance.choice((tracing.recording, tracing.counting))
        with suppress(BadInput, SymbolNotFound):  # nine that count, or notrace leaves nothing
            session.register(make(*names, notrace=tuple(chance.sample(NAMES, 1))))
    elif what == "change":
        session.set_filter(chance.choice(there), names)
    else:
        session.unregister(chance.choice(there))


def _compare(session: Session) -> None:
    table = session.functions.table
    plan = make_plan(list(session.ops.values()), table.traceable)
    wanted = {int(table.ip[i]): plan.sets[plan.wanted[i]] for i in np.flatnonzero(plan.wanted)}
    found = {one.ip: one.members for one in records(session.region) if one.members}
    assert found == wanted


def test_a22_a_direct_call_is_the_only_one_and_comes_last(account: Account) -> None:
    """A22: the site calls the code itself while it is alone; a second direct user is EBUSY."""
    with start(build("hot.c"), "pause_us=100", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> list[tuple[bool, int]]:
            code = DirectCode.from_bytes(bytes.fromhex("0f1f00c3"))
            seen = []
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(Ops(Callback.DIRECT, ("f_lea",), function=code))
                with pytest.raises(PatchError):
                    session.register(Ops(Callback.DIRECT, ("f_l*",), function=code))
                other = session.register(tracing.recording("f_lea"))
                for one in (other, None):
                    found = record_of(session, "f_lea")
                    seen.append((found.call == found.direct != 0, found.members.index(ops.id)))
                    if one is not None:
                        session.unregister(one)
            return seen

        seen = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert seen == [(False, 1), (True, 0)]
