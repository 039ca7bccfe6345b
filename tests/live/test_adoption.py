"""A controller dies, another goes on: the same ops, the same ring, nothing lost."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, ChildFailed

from fentry.dispatch.writes import Writes
from fentry.errors import LockError, PatchError, TargetGone
from fentry.ring.buffer import RingBuffer
from fentry.session import Options, adopt, attach
from fentry.session.transaction import Transaction

BIG = Options(buffer_bytes=8 << 20)


def trace_and_die(account: Account, target: Target) -> None:
    """A controller registers two ops, reads a little, and is killed."""
    child = os.fork()
    if not child:
        try:
            account.become()
            session = attach(target.pid, BIG)
            session.register(tracing.recording("f_*"))
            session.register(tracing.counting("f_nop5", "f_frame"))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_adopted_ring_and_counters_hold_every_call(account: Account) -> None:
    with start(build("hot.c"), "pause_us=2000", account=account, hold=True) as target:
        before = snapshot(target.pid)
        trace_and_die(account, target)
        target.go()
        target.await_calls("f_plain", 500)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], list[str]]:
            with adopt(target.pid) as session:
                target.await_calls("f_plain", 500)
                held = target.hold()
                count = next(ops for ops in session.ops.values() if ops.callback.name == "COUNT")
                texts = [ops.text for ops in session.ops.values()]
                counts = tracing.counted(session, count)
                records = tracing.recorded(session)
                assert tracing.dropped(session) == 0
            return held, counts, records, texts

        held, counts, records, texts = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    traced = [name for name in records]
    assert len(traced) == 21
    assert records == {name: held[name] for name in traced}
    assert counts == {name: held[name] for name in ("f_nop5", "f_frame")}
    assert texts == ["f_*", "f_nop5 f_frame"]
    assert found == []


def test_a_ring_that_was_never_finished_is_made_anew(account: Account) -> None:
    def die_making_a_ring() -> None:
        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        session = attach(target.pid, BIG)
        RingBuffer.format = die  # type: ignore[method-assign]
        session.register(tracing.recording("f_*"))

    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with pytest.raises(ChildFailed):
            account.run(die_making_a_ring)

        def controller() -> tuple[Counter[str], Counter[str]]:
            with adopt(target.pid, BIG) as session:
                assert session.ops == {}
                session.register(tracing.recording("f_lea"))
                target.go()
                target.await_calls("f_plain", 500)
                return target.hold(), tracing.recorded(session)

        held, records = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    assert records == {"f_lea": held["f_lea"]}
    assert found == []


@pytest.mark.parametrize("step", ["write_text", "write_pad_calls", "write_rows"])
def test_a_registration_that_was_cut_off_is_finished(account: Account, step: str) -> None:
    # The second ops shares its functions with the first: their pads call another set.
    def die_registering() -> None:
        def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        session = attach(target.pid, BIG)
        session.register(tracing.recording("f_lea", "f_frame"))
        setattr(Writes, step, die)
        session.register(tracing.counting("f_*", notrace=("f_frame",)))

    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with pytest.raises(ChildFailed):
            account.run(die_registering)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str]]:
            with adopt(target.pid, BIG) as session:
                _, count = session.ops.values()
                target.go()
                target.await_calls("f_plain", 500)
                return target.hold(), tracing.recorded(session), tracing.counted(session, count)

        held, records, counts = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    assert records == {name: held[name] for name in ("f_lea", "f_frame")}
    assert len(counts) == 20
    assert counts == {name: held[name] for name in counts}
    assert found == []


def test_adopted_ops_can_be_changed(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)
        trace_and_die(account, target)

        def controller() -> tuple[Counter[str], Counter[str]]:
            with adopt(target.pid) as session:
                record, count = session.ops.values()
                session.unregister(count)
                session.set_filter(record, ("f_lea", "f_nop5"))
                again = session.register(tracing.counting("f_lea"))
                target.go()
                target.await_calls("f_plain", 500)
                held = target.hold()
                assert tracing.counted(session, again) == {"f_lea": held["f_lea"]}
                return held, tracing.recorded(session)

        held, records = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    assert records == {name: held[name] for name in ("f_lea", "f_nop5")}
    assert found == []


def test_attach_after_a_death_begins_anew(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account) as target:
        before = snapshot(target.pid)
        trace_and_die(account, target)
        account.run(tracing.full_cycle, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def test_living_controller_is_not_displaced(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account) as target:

        def controller() -> None:
            with attach(target.pid) as session:
                session.register(tracing.counting("f_nop5"))
                with pytest.raises(LockError) as caught:
                    account.run(adopt, target.pid)
                assert f"process {os.getpid()} " in caught.value.cause
                target.await_calls("f_plain")

        account.run(controller)
        assert target.stop().is_well


def test_nothing_to_adopt_is_said(account: Account) -> None:
    with start(build("hot.c"), account=account) as target:
        with pytest.raises(TargetGone, match="nothing to adopt"):
            account.run(adopt, target.pid)


def test_detach_by_another_ends_a_living_session_cleanly(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[bool, str]:
            with attach(target.pid) as session:
                ops = session.register(tracing.recording("f_*"))
                target.await_calls("f_plain")
                said = account.run(tracing.detach_as_command, target.pid)
                with pytest.raises(LockError, match="no longer"):
                    session.unregister(ops)
                assert tracing.recorded(session, final=True).total() > 0
                return session.was_detached(), said

        detached, said = account.run(controller)
        assert detached
        assert "21 sites restored" in said
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def test_an_adoption_that_fails_leaves_it_to_others(account: Account) -> None:
    def failing(*_: object) -> None:
        raise PatchError("as if the text were somebody else's")

    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)
        trace_and_die(account, target)

        def controller() -> int:
            whole = Transaction.apply
            Transaction.apply = failing  # type: ignore[method-assign,assignment]
            with pytest.raises(PatchError):
                adopt(target.pid, BIG)
            Transaction.apply = whole  # type: ignore[method-assign]
            return account.run(adopted_ops, target)  # another process, while this one lives

        assert account.run(controller) == 2
        found = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    assert found == []


def adopted_ops(target: Target) -> int:
    with adopt(target.pid, BIG) as session:
        return len(session.ops)
