"""Hard cases 65 to 67: handlers, jumps, cancellation and death inside traced code."""

from __future__ import annotations

import select
import signal
import time
from collections import Counter

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.process import start
from tests.support.unprivileged import Account

from fentry.session import Options, Session, attach

BIG = Options(buffer_bytes=16 << 20)


def incomplete(session: Session) -> int:
    """Calls that reserved a record and never committed it."""
    stats = session.stats
    assert stats is not None
    return int(stats.incomplete.sum())


# 65


def test_handlers_that_nest_in_trampolines_are_accounted_exactly(account: Account) -> None:
    with start(build("sigstorm.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], int]:
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                target.go()
                records: Counter[str] = Counter()
                goal = target.counters()["signals"] + 2000
                while target.counters()["signals"] < goal:
                    records += tracing.recorded(session)
                held = target.hold()
                records += tracing.recorded(session)
                assert incomplete(session) == 0
                return held, tracing.counted(session, ops), records, tracing.dropped(session)

        held, counts, records, lost = account.run(controller)
        target.go()
        end = target.stop()
    wanted = {name: held[name] for name in ("f_main", "f_handler")}
    assert held["f_handler"] > 1000
    assert counts == wanted
    assert records.total() + lost == sum(wanted.values())
    assert end.is_well, end.err


# 66


def test_handler_that_jumps_out_of_a_trampoline_costs_one_record_at_most(account: Account) -> None:
    with start(build("sigstorm.c"), "jump=1", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], int, int, int]:
            with attach(target.pid, BIG) as session:
                session.register(tracing.recording("f_main"))
                target.go()
                records = 0
                while target.counters()["jumps"] < 100:
                    records += tracing.recorded(session).total()
                held = target.hold()
                session.detach()
                records += tracing.recorded(session, final=True).total()
                return held, records, tracing.dropped(session), incomplete(session)

        held, records, lost, broken = account.run(controller)
        target.go()
        end = target.stop()
    assert broken <= held["jumps"]
    assert held["done.f_main"] <= records + lost <= held["f_main"]
    assert end.is_well, end.err


# 67


def test_cancelled_threads_clean_up_and_are_accounted(account: Account) -> None:
    with start(build("cancel.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], int, int, int]:
            with attach(target.pid, BIG) as session:
                session.register(tracing.recording("f_cancelled"))
                target.go()
                records = 0
                while target.counters()["cancels"] < 100:
                    records += tracing.recorded(session).total()
                held = target.hold()
                session.detach()
                records += tracing.recorded(session, final=True).total()
                return held, records, tracing.dropped(session), incomplete(session)

        held, records, lost, broken = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert end.counters["cleanups"] == end.counters["cancels"] >= 100
    assert held["f_cancelled"] <= records + lost + broken <= held["begun"]
    assert broken <= held["cancels"]


@pytest.mark.parametrize("delay_ms", [3, 8])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_ring_is_read_to_the_end_after_a_death_at_any_instruction(
    account: Account, number: signal.Signals, delay_ms: int
) -> None:
    with start(build("overflow.c"), "threads=4", account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            session = attach(target.pid, BIG)
            session.register(tracing.recording("f_busy"))
            heads = session.top._reader.heads()  # type: ignore[union-attr]
            target.go()
            while session.top._reader.heads() == heads:  # type: ignore[union-attr]
                pass
            time.sleep(delay_ms / 1000)  # at no particular instruction
            signal.pidfd_send_signal(session.pidfd, number)
            assert select.select([session.pidfd], [], [], 20)[0]
            session.detach()
            records = tracing.recorded(session, final=True)
            session.close()
            return records["f_busy"], tracing.dropped(session), incomplete(session)

        records, lost, broken = account.run(controller)
        end = target.await_end()
    assert end.code == -number
    assert broken <= 4
    # the counter of each thread goes on by 1000 calls at a time
    counted = end.counters["f_busy"]
    assert counted <= records + lost + broken <= counted + 4 * 1000
    assert records > 0
    assert end.bad == 0
