"""Direct trampolines: sites call the user's own code, alone or behind other ops; one a function."""

from __future__ import annotations

import os
import signal
import struct
from collections import Counter

import pytest
from tests.live.test_status_sites import functions
from tests.support import callbacks, killer, tracing
from tests.support.build import build
from tests.support.callbacks import FULL, address_of, calling, words_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot, text_hash
from tests.support.unprivileged import Account

from fentry.dispatch.ops import Callback, Flags, Ops, refuse_flags
from fentry.dispatch.records import records
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import BadInput, PatchError
from fentry.process.memory import Memory
from fentry.region.registry import UnfinishedRegistry
from fentry.session import Options, Session, adopt, attach
from fentry.trampolines.direct import DirectCode
from fentry.trampolines.native import CFunction

BIG = Options(buffer_bytes=16 << 20, max_stop_s=30)
HITS = DirectCode.assemble("pushfq\nlock incq hits(%rip)\npopfq\nret\n.data\nhits: .quad 0")
SUM = CFunction.compile(callbacks.SUM)


def direct(*wanted: str, code: DirectCode = HITS, flags: Flags = Flags.NONE) -> Ops:
    return Ops(Callback.DIRECT, wanted, function=code, flags=flags)


def hits(session: Session, ops: Ops) -> int:
    (count,) = struct.unpack_from("<Q", session.data(ops))
    return count


def until(target: Target, more: int = 200) -> Counter[str]:
    before = target.counters()
    target.go()
    target.await_calls("f_plain", more)
    return target.hold() - before


def names_traced(session: Session, ops: Ops) -> list[str]:
    traced = ops.members & session.functions.table.traceable
    return tracing.names_of(session, session.functions.table.ip[traced].tolist())


def test_sites_of_every_shape_call_the_code_itself(account: Account) -> None:
    with start(build("hot.c"), "threads=3", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, int, int, list[str], list[str]]:
            with attach(target.pid, BIG) as session:
                ops = session.register(direct("f_*"))
                calls = until(target)
                names = names_traced(session, ops)
                code = session._known.natives._placed[ops.id].entry
                called = {one.call for one in records(session.region)}
                site = address_of(session, "f_nop5")
                memory = Memory(target.pid)
                text = memory.read(site, 5)
                memory.close()
                distance = int.from_bytes(text[1:], "little", signed=True)
                assert (text[0], site + 5 + distance) == (0xE8, code)
                assert called == {code}
                made, counted = sum(calls[name] for name in names), hits(session, ops)
                shown = functions(account, target, "--sites")
                session.unregister(ops)
                touched = functions(account, target, "--touched")
                return made, counted, len(names), shown, touched

        made, counted, count, shown, touched = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert counted == made > 0
    assert count == 21
    assert shown[:2] == ["f_plain [hot] (1)     D   M ", "\tdirect-->ADDR"]
    assert len(shown) == 2 * count
    assert touched[0] == "f_plain [hot] (0)         M"


@pytest.mark.parametrize("dispatch", ["sets", "list"])
def test_direct_code_runs_behind_all_other_ops(account: Account, dispatch: str) -> None:
    options = Options(buffer_bytes=16 << 20, max_stop_s=30, dispatch=dispatch)
    with start(build("hot.c"), "threads=3", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[list[int], list[Counter[str]], list[str]]:
            with attach(target.pid, options) as session:
                ops = session.register(direct("f_lea", "f_nop5"))
                others = [
                    session.register(tracing.recording("f_lea", "f_plain")),
                    session.register(tracing.counting("f_lea")),
                    session.register(calling(SUM, "f_lea", flags=Flags.SAVE_REGS)),
                ]
                made, found = [], []
                while True:
                    earlier = hits(session, ops)
                    begun = [tracing.counted(session, others[1]).total() if len(others) > 1 else 0]
                    begun.append(words_of(session, others[2])[0] if len(others) > 2 else 0)
                    made.append(until(target))
                    found.append(hits(session, ops) - earlier)
                    if len(others) == 3:
                        found.append(words_of(session, others[2])[0] - begun[1])
                        found.append(tracing.counted(session, others[1]).total() - begun[0])
                        shown = functions(account, target, "--sites")
                    found.append(tracing.recorded(session).total())
                    if not others:
                        return found, made, shown
                    session.unregister(others.pop())

        found, made, shown = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    both = [m["f_lea"] + m["f_nop5"] for m in made]
    recorded = [m["f_lea"] + m["f_plain"] for m in made]
    lea = made[0]["f_lea"]
    assert found == [
        both[0], lea, lea, recorded[0], both[1], recorded[1], both[2], recorded[2], both[3], 0
    ]  # fmt: skip
    at = next(i for i, line in enumerate(shown) if line.startswith("f_lea"))
    assert shown[at : at + 6] == [
        "f_lea [hot] (4) R   D   M \ttramp: ADDR (call, count, record, direct)",
        "\tdirect-->ADDR",
        "\tops: 4 (call)",
        "\tops: 3 (count)",
        "\tops: 2 (record)",
        "\tops: 1 (direct)",
    ]


def test_a_function_has_one_direct_code_or_one_redirect(account: Account) -> None:
    redirect = CFunction.compile(callbacks.REDIRECT)
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> list[str]:
            refused = []
            with attach(target.pid, BIG) as session:
                kept = session.register(direct("f_lea"))
                words = (address_of(session, "f_plain"), 0)
                state = snapshot(target.pid)
                for ops in (direct("f_l*"), calling(redirect, "f_lea", flags=FULL, words=words)):
                    with pytest.raises(PatchError, match="f_lea is redirected already") as error:
                        session.register(ops)
                    refused.append(error.value.cause)
                    assert (ops.id, list(session.ops)) == (0, [kept.id])
                assert diff(state, snapshot(target.pid)) == []
                session.unregister(kept)
                other = session.register(calling(redirect, "f_lea", flags=FULL, words=words))
                with pytest.raises(PatchError, match="f_lea is redirected already"):
                    session.register(direct("f_lea"))
                session.unregister(other)
                many = [session.register(tracing.counting("f_lea")) for _ in range(8)]
                with pytest.raises(PatchError, match="cannot call the list of ops"):
                    session.register(direct("f_lea"))
                assert len(session.ops) == len(many)
                session.unregister(many.pop())
                last = session.register(direct("f_lea"))
                made = until(target)
                assert hits(session, last) == made["f_lea"] > 0
            return refused

        refused = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert refused == ["a function can have one ops with IPMODIFY or DIRECT"] * 2


def test_modified_under_fire_every_call_goes_to_the_old_or_the_new_code(account: Account) -> None:
    with start(build("hot.c"), "threads=4", "pause_us=20", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, int, list[int]]:
            with attach(target.pid, BIG) as session:
                ops = session.register(direct("f_*"))
                count = session.register(tracing.counting("f_lea"))
                begun = target.counters()
                target.go()
                places = []
                for _ in range(12):
                    placed = session._known.natives._placed[ops.id]
                    places.append(placed.segment.address + 128)
                    session.modify_direct(ops, HITS)
                    goal = target.counters()["f_plain"] + 5
                    target.await_condition(
                        lambda goal=goal: target.counters()["f_plain"] >= goal, "calls"
                    )
                made = target.hold() - begun
                names = names_traced(session, ops)
                assert tracing.counted(session, count).total() == made["f_lea"]
                segments = len(set(places))
                return sum(made[name] for name in names), hits(session, ops), [segments]

        made, last, (segments,) = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert 0 < last < made
    assert segments < 12  # memory of old ones is used again


def test_code_that_a_thread_comes_back_to_is_kept(account: Account) -> None:
    code = DirectCode.compile_direct(callbacks.DIRECT_WAITING)
    with start(build("known.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, int]:
            with attach(target.pid, BIG) as session:
                ops = session.register(direct("f_one", code=code))
                target.go()
                target.await_condition(lambda: hits(session, ops) == 4, "four calls away")
                placed = session._known.natives._placed[ops.id]
                session.modify_direct(ops, HITS)
                for _ in range(3):
                    session.unregister(session.register(tracing.counting("f_two")))
                parked = session._known.natives.parked_bytes
                with session.owned() as halt:
                    memory, at = halt.target.memory, placed.segment.address + 128
                    memory.write(at + 8, struct.pack("<Q", 1))
                target.await_condition(lambda: hits(session, ops) > 40, "the new code")
                done = ((4, 1, 4), (0, 0, 0))  # freed, and cleared, or not yet
                target.await_condition(
                    lambda: struct.unpack("<3Q", session.target.memory.read(at, 24)) in done,
                    "four calls that came back",
                )

                def is_freed() -> bool:
                    session.unregister(session.register(tracing.counting("f_two")))
                    return not session._known.natives.parked_bytes

                target.await_condition(is_freed, "memory that is free")
                return parked, placed.code_bytes

        parked, size = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert parked == size


@pytest.mark.parametrize("jump", [0, 1])
def test_toggled_under_signals_that_jump_out_of_it(account: Account, jump: int) -> None:
    code = DirectCode.compile_direct(callbacks.DIRECT_SLOW)
    words = callbacks.storm(jump)
    with start(build("sigstorm.c"), *words, account=account, hold=True) as target:
        before = text_hash(target.pid)

        def controller() -> tuple[Counter[str], tuple[int, ...], int]:
            with attach(target.pid, BIG) as session:
                kept = session.register(direct("f_main", code=code))
                target.go()
                for _ in range(5):
                    other = session.register(direct("f_handler", code=code))
                    goal = target.counters()["signals"] + 200
                    target.await_condition(
                        lambda goal=goal: target.counters()["signals"] >= goal, "signals"
                    )
                    session.unregister(other)
                if jump:
                    target.await_condition(
                        lambda: len(set(struct.unpack_from("<2Q", session.data(kept)))) == 2,
                        "a call that is left, or under way",
                    )
                held = target.hold()
                found = struct.unpack_from("<2Q", session.data(kept))
                session.detach()
                return held, found, session.parked_bytes

        held, (begun, ended), parked = account.run(controller)
        assert text_hash(target.pid) == before
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert parked == 0
    assert held["f_main"] - held["jumps"] <= begun <= held["f_main"] + held["jumps"]
    assert (ended <= begun) if jump else (ended == begun == held["f_main"])


def test_code_is_reached_from_another_library_by_one_jump(account: Account) -> None:
    with start(build("hot.c"), "pause_us=200", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, int, int]:
            with attach(target.pid, BIG) as session:
                ops = session.register(direct("f_*", "libc!clock_nanosleep"))
                session.register(tracing.counting("libc!clock_nanosleep", "f_*"))
                session.unregister(list(session.ops.values())[1])
                calls = {one.call for one in records(session.region) if one.is_enabled}
                target.await_calls("f_plain", 200)
                return len(names_traced(session, ops)), len(calls), hits(session, ops)

        functions_count, calls, counted = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert functions_count == 22
    assert calls == 2
    assert counted > 200


def test_adopted_direct_code_goes_on(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)
        child = os.fork()
        if not child:
            try:
                account.become()
                session = attach(target.pid, BIG)
                session.register(direct("f_lea", "f_nop5", flags=Flags.PERMANENT))
                session.register(tracing.recording("f_lea"))
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        first = until(target)

        def controller() -> tuple[list[int], Counter[str]]:
            with adopt(target.pid, BIG) as session:
                (ops,) = (one for one in session.ops.values() if one.callback is Callback.DIRECT)
                found = [hits(session, ops)]
                session.modify_direct(ops, HITS)
                made = until(target)
                found.append(hits(session, ops))
                session.unregister(ops)
                return found, made

        found, made = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert found == [m["f_lea"] + m["f_nop5"] for m in (first, made)]


def test_what_does_not_go_together_is_refused() -> None:
    for ops, message in (
        (Ops(Callback.DIRECT, ("f",)), "needs code"),
        (Ops(Callback.DIRECT, function=HITS), "DIRECT needs a filter"),
        (direct("f", flags=Flags.SAVE_REGS), "only PERMANENT"),
        (Ops(Callback.DIRECT, ("f",), function=HITS, private=b"x"), "no private memory"),
        (Ops(Callback.CALL, ("f",), function=HITS), "needs a function"),
        (Ops(Callback.COUNT, ("f",), flags=Flags.DIRECT), "go together"),
        (
            Ops(Callback.DIRECT, ("f",), function=HITS, threads=ThreadFilter({1})),
            "thread filters are not for Callback.DIRECT",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            refuse_flags(ops)


def cycle(pid: int) -> None:
    """What is interrupted everywhere."""
    session = attach(pid, tracing.PATIENT)
    ops = session.register(direct("f_*nop*", "f_lea"))
    session.register(tracing.recording("f_lea"))
    session.modify_direct(ops, HITS)
    session.set_filter(ops, ("f_*nop*",))
    session.unregister(ops)
    session.close()


def adopt_and_leave(pid: int) -> None:
    """Go on with what is there, if anything is, and leave nothing."""
    try:
        session = adopt(pid)
    except (ProcessLookupError, UnfinishedRegistry):
        tracing.detach_as_command(pid)  # it had not begun
        return
    with session:
        for ops in session.ops.values():
            if ops.callback is Callback.DIRECT:
                session.modify_direct(ops, HITS)
                break


def test_controller_with_direct_code_dies_after_any_system_call(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=100", account=account) as target:
        before = snapshot(target.pid)
        cycle(target.pid)
        calls = killer.count(cycle, target.pid, account=account)
        stride = max(1, calls // 6)
        for i, death in enumerate(
            killer.points(cycle, target.pid, account=account, first=5, stride=stride)
        ):
            assert target.is_alive and target.bad == 0, death
            account.run(adopt_and_leave if i % 2 else tracing.detach_as_command, target.pid)
            assert diff(before, snapshot(target.pid)) == [], death
        target.await_calls("f_plain")
        assert target.stop().is_well
