"""PERMANENT ops hold off every detach and the off switch, and go on when their controller leaves or
dies; the off switch itself."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from tests.support import callbacks, killer, tracing
from tests.support.build import build
from tests.support.callbacks import calling, words_of
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.cli.detach import restore
from fentry.cli.status import describe
from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.errors import LockError
from fentry.process.target import Target as Traced
from fentry.region.registry import UnfinishedRegistry
from fentry.session import Options, Session, adopt, attach
from fentry.trampolines.native import CFunction

BIG = Options(buffer_bytes=16 << 20)
SUM = CFunction.compile(callbacks.SUM)
MAKERS: dict[str, Callable[[], Ops]] = {
    "record": lambda: tracing.recording("f_lea"),
    "count": lambda: tracing.counting("f_lea"),
    "call": lambda: calling(SUM, "f_lea"),
}


def permanent(kind: str = "count") -> Ops:
    ops = MAKERS[kind]()
    ops.flags |= Flags.PERMANENT
    return ops


def seen(session: Session, ops: Ops) -> int:
    """Calls that ops have seen; of records those not read before."""
    match ops.callback:
        case Callback.RECORD:
            return tracing.recorded(session).total()
        case Callback.COUNT:
            return tracing.counted(session, ops).total()
        case _:
            return words_of(session, ops)[0]


def until(target: Target, more: int = 200) -> Counter[str]:
    before = target.counters()
    target.go()
    target.await_calls("f_plain", more)
    return target.hold() - before


def by_force(pid: int) -> str:
    """What `fentry detach --force` does."""
    target = Traced(pid)
    try:
        target.sweep()
        return restore(target, force=True)
    finally:
        target.close()


@pytest.mark.parametrize("kind", MAKERS)
def test_session_leaves_permanent_ops_in_place_and_takes_the_others_away(
    account: Account, kind: str
) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def first() -> Counter[str]:
            with attach(target.pid, BIG) as session:
                session.register(tracing.recording("f_plain", "f_lea"))
                session.register(permanent(kind))
                return until(target)

        def second() -> tuple[list[int], list[str], Counter[str]]:
            with adopt(target.pid, BIG) as session:
                (ops,) = session.ops.values()
                found = [seen(session, ops)]
                with pytest.raises(LockError, match="has PERMANENT ops") as refused:
                    session.detach()
                names = tracing.names_of(
                    session, session.functions.table.ip[session._known.dispatcher.patched].tolist()
                )
                more = until(target)
                found.append(seen(session, ops))
                session.unregister(ops)
                assert f"ops {2} ({kind} f_lea)" in refused.value.cause
                return found, names, more

        calls = account.run(first)
        alone = until(target)
        found, names, more = account.run(second)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    of_all = calls["f_lea"] + alone["f_lea"]
    earlier = calls["f_plain"] + calls["f_lea"] if kind == "record" else 0  # of the other ops
    assert names == ["f_lea"]
    assert found[0] == of_all + earlier
    assert found[1] == more["f_lea"] + (0 if kind == "record" else of_all)


def test_nobody_else_takes_permanent_ops_away_unless_by_force(account: Account) -> None:
    with start(build("hot.c"), "pause_us=100", account=account) as target:
        before = snapshot(target.pid)

        def leave_them() -> None:
            with attach(target.pid, BIG) as session:
                session.register(permanent())
                owned = fentry(account, "detach", "--force", "-p", target.pid)
                assert owned.code == 6
                assert f"process {os.getpid()}" in owned.err

        def others() -> int:
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.counting("f_lea"))
                target.await_calls("f_lea")
                return tracing.counted(session, ops)["f_lea"]

        account.run(leave_them)
        traced = snapshot(target.pid)
        plain = fentry(account, "detach", "-p", target.pid)
        assert diff(traced, snapshot(target.pid)) == []
        counted = account.run(others)
        shown = fentry(account, "status", "-p", target.pid).out
        with folder_of(account) as folder:
            words = "-p", target.pid, "-o", folder / "trace"
            adopting = fentry(account, "record", "--adopt", *words)
        forced = fentry(account, "detach", "--force", "-p", target.pid)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert "what was left only counted; its PERMANENT ops go on" in adopting.err
    assert plain.code == 6
    assert plain.err.splitlines()[0].endswith(f"process {target.pid} has PERMANENT ops")
    assert "ops 1 (count f_lea)" in plain.err
    assert f"fentry detach --force -p {target.pid}" in plain.err
    assert counted > 0
    assert "count PERMANENT f_lea (1 functions" in shown
    assert (forced.code, forced.out) == (0, f"{target.pid}: 1 sites restored\n")


def test_a_permanent_recording_is_read_on_and_goes_on(account: Account) -> None:
    with (
        start(build("hot.c"), "pause_us=500", account=account) as target,
        folder_of(account) as folder,
    ):
        before = snapshot(target.pid)

        def leave_it() -> None:
            with attach(target.pid, BIG) as session:
                session.register(permanent("record"))

        account.run(leave_it)
        words = "-p", target.pid, "-d", "50ms", "-o", folder / "trace"
        done = fentry(account, "record", "--adopt", *words)
        shown = fentry(account, "status", "-p", target.pid).out
        report = fentry(account, "report", "-i", folder / "trace").out
        forced = account.run(by_force, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert done.code == 0, done.err
    assert "; its PERMANENT ops go on;" in done.err
    assert " 0 dropped" in done.err
    assert "nobody: its controller is gone" in shown
    assert f"next        fentry detach --force -p {target.pid}" in shown
    assert "f_lea" in report
    assert forced == f"{target.pid}: 1 sites restored"


def test_off_switch_silences_all_and_brings_all_back(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[list[Counter[str]], list[list[int]], str]:
            made, found = [], []
            with attach(target.pid, BIG) as session:
                every = [session.register(make()) for make in MAKERS.values()]

                def look() -> None:
                    earlier = [seen(session, ops) for ops in every]
                    made.append(until(target))
                    later = [seen(session, ops) for ops in every]
                    found.append([later[0], later[1] - earlier[1], later[2] - earlier[2]])

                look()
                session.enabled = False
                assert not session._known.dispatcher.patched.any()
                shown = describe(session.target, False)
                assert (shown["enabled"], shown["sites"], len(shown["ops"])) == (False, 0, 3)
                with pytest.raises(LockError, match="cannot be registered while it is switched"):
                    session.register(permanent())
                every.append(session.register(tracing.counting("f_plain")))
                look()
                assert seen(session, every[3]) == 0
                session.enabled = True
                look()
                kept = session.register(permanent())
                with pytest.raises(LockError, match="cannot be switched off") as refused:
                    session.enabled = False
                session.unregister(kept)
                session.enabled = False
                return made, found, refused.value.cause

        made, found, cause = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert found == [[made[0]["f_lea"]] * 3, [0, 0, 0], [made[2]["f_lea"]] * 3]
    assert cause == "ops 5 (count f_lea)"


def test_an_adopter_finds_the_switch_as_it_was_left(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)
        child = os.fork()
        if not child:
            try:
                account.become()
                session = attach(target.pid, BIG)
                session.register(tracing.counting("f_lea"))
                session.enabled = False
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        until(target)

        def controller() -> tuple[bool, int, int, Counter[str]]:
            with adopt(target.pid, BIG) as session:
                (ops,) = session.ops.values()
                was_on, silent = session.enabled, seen(session, ops)
                session.enabled = True
                made = until(target)
                return was_on, silent, seen(session, ops), made

        was_on, silent, counted, made = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert (was_on, silent, counted) == (False, 0, made["f_lea"])


def cycle(pid: int) -> None:
    """What is interrupted everywhere."""
    session = attach(pid, Options(buffer_bytes=1 << 20))
    session.register(tracing.recording("f_*nop*"))
    session.enabled = False
    session.enabled = True
    session.register(permanent("call"))
    session.close()
    with adopt(pid) as session:
        for ops in list(session.ops.values()):
            session.unregister(ops)


def adopt_and_leave(pid: int) -> None:
    """Go on with what is there, if anything is, and leave nothing."""
    try:
        session = adopt(pid)
    except (ProcessLookupError, UnfinishedRegistry):
        by_force(pid)  # it had not begun
        return
    with session:
        session.enabled = True
        for ops in list(session.ops.values()):
            session.unregister(ops)


def test_controller_with_permanent_ops_dies_after_any_system_call(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=100", account=account) as target:
        before = snapshot(target.pid)
        cycle(target.pid)
        calls = killer.count(cycle, target.pid, account=account)
        stride = max(1, calls // 6)
        for i, death in enumerate(
            killer.points(cycle, target.pid, account=account, first=9, stride=stride)
        ):
            assert target.is_alive and target.bad == 0, death
            account.run(adopt_and_leave if i % 2 else by_force, target.pid)
            assert diff(before, snapshot(target.pid)) == [], death
        target.await_calls("f_plain")
        assert target.stop().is_well
