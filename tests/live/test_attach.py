"""Attach, trace, detach: exact counts, registers unharmed, nothing left behind."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.session import Options, attach

# What the functions of leaves.c are, from their assembly.
TRACED = [
    "f_rip", "f_short", "f_jump_first",
    "f_plain", "f_frame", "f_pushes", "f_endbr", "f_lea", "f_nop5", "f_endbr_nop5", "f_tail",
    "f_target", "f_patchable", "f_padded", "f_redzone", "f_around", "f_inside", "f_loop_into",
    "f_carrier", "f_tiny", "f_hop",
]  # fmt: skip
REFUSED = ["f_loop_at_one"]


@pytest.mark.parametrize("record_bytes", [16, 24])
def test_every_call_is_counted_and_recorded_exactly(account: Account, record_bytes: int) -> None:
    with start(build("hot.c"), "threads=4", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)
        options = Options(buffer_bytes=32 << 20, record_bytes=record_bytes)

        def controller() -> dict[str, Counter[str]]:
            with attach(target.pid, options) as session:
                count = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                target.go()
                target.await_calls("f_plain", 5000)
                held = target.hold()
                counts = tracing.counted(session, count)
                records = tracing.recorded(session)
                assert tracing.dropped(session) == 0
            return {"held": held, "counts": counts, "records": records}

        seen = account.run(controller)
        after = snapshot(target.pid)
        target.go()
        end = target.stop()
    expected = {name: seen["held"][name] for name in TRACED}
    assert seen["counts"] == expected
    assert seen["records"] == expected
    assert diff(before, after) == []
    assert end.is_well, end.err


def test_functions_that_cannot_be_traced_say_why(account: Account) -> None:
    with start(build("hot.c"), account=account, hold=True) as target:

        def controller() -> dict[str, bool]:
            with attach(target.pid) as session:
                members = session.functions.match(("f_*",), ())
                table = session.functions.table
                names = tracing.names_of(session, table.ip[members].tolist())
                return dict(zip(names, table.traceable[members].tolist(), strict=True))

        traceable = account.run(controller)
        target.go()
    assert {name for name, yes in traceable.items() if yes} == set(TRACED)
    assert {name for name, yes in traceable.items() if not yes} == set(REFUSED)


def test_full_ring_drops_and_counts_every_call(account: Account) -> None:
    with start(build("overflow.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], int, int]:
            with attach(target.pid, Options(buffer_bytes=65536)) as session:
                session.register(tracing.recording("f_*"))
                target.go()
                target.await_calls(next(iter(target.counters())), 100_000)
                held = target.hold()
                records = tracing.recorded(session).total()
                return held, records, tracing.dropped(session)

        held, records, lost = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert lost > 0
    assert records + lost == held.total()


def test_two_counting_ops_and_one_recording_share_functions(account: Account) -> None:
    with start(build("hot.c"), "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], Counter[str]]:
            with attach(target.pid, Options(buffer_bytes=32 << 20)) as session:
                one = session.register(tracing.counting("f_plain", "f_nop5"))
                session.register(tracing.recording("f_nop5", "f_lea"))
                two = session.register(tracing.counting("f_nop5"))
                target.go()
                target.await_calls("f_plain", 1000)
                held = target.hold()
                counts = tracing.counted(session, one), tracing.counted(session, two)
                return held, *counts, tracing.recorded(session)

        held, one, two, records = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert one == {"f_plain": held["f_plain"], "f_nop5": held["f_nop5"]}
    assert two == {"f_nop5": held["f_nop5"]}
    assert records == {"f_nop5": held["f_nop5"], "f_lea": held["f_lea"]}
