"""Faults that a critical reading proved: what failed, or was cut off, was taken for what is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import pytest
from tests.support import callbacks, tracing
from tests.support.build import build
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, ChildFailed

from fentry.dispatch.apply import Dispatcher
from fentry.dispatch.detach import remove_region
from fentry.dispatch.list import LIST
from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.dispatch.writes import Writes
from fentry.session import Options, Session, adopt, attach
from fentry.sites.patcher import SiteWriteError
from fentry.trampolines.native import CFunction

LISTED = Options(buffer_bytes=1 << 20, dispatch="list")
AWAY = CFunction.compile(
    f"{callbacks.SIGNATURE} {{ {callbacks.PRIVATE} ((long (*)(long))word[0])(3);"
    " atomic_add(word + 1, 1); }"
)


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(*_: object, **__: object) -> None:
    raise SiteWriteError("as if the text could not be written")


def killed(account: Account, controller: Callable[[], None]) -> None:
    with pytest.raises(ChildFailed):
        account.run(controller)


def counts_rightly(target: Target, session: Session, ops: Ops) -> None:
    """Counts equal the program's own over a while."""
    before, counted = target.hold(), tracing.counted(session, ops)
    target.go()
    target.await_calls("f_plain", 300)
    made = target.hold() - before
    counted = tracing.counted(session, ops) - counted
    assert counted
    assert counted == {name: made[name] for name in counted}


def test_a_list_that_was_never_told_its_table_is_not_taken_over(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def first() -> None:
            session = attach(target.pid, LISTED)
            Dispatcher._point_to_list = die  # type: ignore[method-assign]
            session.register(tracing.counting("f_lea"))

        killed(account, first)

        def second() -> None:
            with adopt(target.pid, LISTED) as session:
                for name in ("f_nop5", "f_frame", "f_plain", "f_nop5"):
                    ops = session.register(tracing.counting(name))
                    counts_rightly(target, session, ops)
                    session.unregister(ops)

        account.run(second)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_a_list_of_a_change_that_failed_is_not_taken_over(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> int:
            with attach(target.pid, LISTED) as session:
                whole = Writes.write_text
                Writes.write_text = fail  # type: ignore[method-assign]
                with pytest.raises(SiteWriteError):
                    session.register(tracing.recording("f_lea"))
                Writes.write_text = whole  # type: ignore[method-assign]
                ops = session.register(tracing.counting("f_lea"))
                session.register(tracing.counting("f_nop5", "f_frame", "f_plain", "main"))
                session._known.take_over()
                pads = set(session._known.dispatcher._text.pad.tolist()) - {0}
                pieces = session._known.dispatcher._list.now.pieces
                session.unregister(session.register(tracing.recording("f_plain")))
                counts_rightly(target, session, ops)
                return sum(p.address <= pad < p.address + p.bytes for p in pieces for pad in pads)

        assert account.run(controller) == 0
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_refused_ops_and_filters_are_not_in_the_registry(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:

        def first() -> None:
            session = attach(target.pid, tracing.SMALL)
            ops = session.register(tracing.counting("f_lea"))
            Writes.write_text = fail  # type: ignore[method-assign]
            for change in (
                lambda: session.register(tracing.counting("f_nop5")),
                lambda: session.set_filter(ops, ("f_frame",)),
            ):
                with pytest.raises(SiteWriteError):
                    change()
            assert [one.filter for one in session.ops.values()] == [("f_lea",)]
            die()

        killed(account, first)

        def second() -> list[tuple[str, ...]]:
            with adopt(target.pid, tracing.SMALL) as session:
                return [ops.filter for ops in session.ops.values()]

        assert account.run(second) == [("f_lea",)]


def test_a_first_thread_filter_that_is_cut_off_leaves_one_ops(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:

        def first() -> None:
            session = attach(target.pid, tracing.SMALL)
            ops = session.register(tracing.counting("f_lea"))
            whole = Writes.write_rows

            def write_and_die(self: Writes, registry: object, *, adding: bool) -> None:
                whole(self, registry, adding=adding)  # type: ignore[arg-type]
                if not adding:
                    die()

            Writes.write_rows = write_and_die  # type: ignore[method-assign,assignment]
            session.set_threads(ops, ThreadFilter(notrace_tids={target.pid}))

        killed(account, first)

        def second() -> int:
            with adopt(target.pid, tracing.SMALL) as session:
                (ops,) = session.ops.values()
                counts_rightly(target, session, ops)
                return ops.id

        assert account.run(second) == 2
        target.go()
        assert target.stop().is_well


def test_what_the_text_calls_is_in_use_whatever_its_arena(account: Account) -> None:
    # As after a dlopen that groups the modules otherwise.
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:

        def controller() -> bool:
            with attach(target.pid, tracing.SMALL) as session:
                ops = session.register(tracing.counting("f_lea"))
                dispatcher = session._known.dispatcher
                ((key, one),) = dispatcher.trampolines.live.items()
                assert key[0] != LIST
                dispatcher.trampolines.live = {(one.set, one.arena + 1): one}
                session.unregister(session.register(tracing.counting("f_nop5")))
                counts_rightly(target, session, ops)
                return one in dispatcher.trampolines.live.values()

        assert account.run(controller)
        target.go()
        assert target.stop().is_well


@pytest.mark.parametrize("how", [0, 1, 2, 3])
def test_code_is_kept_while_a_callback_is_away(
    account: Account, how: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fentry.session.leaving.remove_region", partial(remove_region, limit_s=0.2))
    with start(build("away.c"), f"how={how}", account=account) as target:

        def controller() -> int:
            session = attach(target.pid, tracing.SMALL)
            table, symbols = session.functions.table, session.functions.symbols
            at = {symbols.resolve(int(ip))[0]: int(ip) for ip in table.ip}
            private = at["f_gate"].to_bytes(8, "little") + bytes(24)
            ops = Ops(
                Callback.CALL, ("f_called",), function=AWAY, flags=Flags.RECURSION, private=private
            )
            session.register(ops)
            target.await_condition(lambda: target.counters()["waiting"] == 1, "away")
            session.close()
            return session.parked_bytes

        assert account.run(controller) > 0
        assert target.is_alive
        end = target.stop()  # it comes back, into code that is still there
    assert end.is_well, (end.code, end.err)
