"""Generated functions that are hard to patch do when traced what they did untraced."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tests.support import tracing
from tests.support.forms import program_of
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.session import Options, attach

COUNT = 1500
BIG = Options(buffer_bytes=32 << 20)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("flags", [(), ("-no-pie",)], ids=["pie", "no-pie"])
def test_generated_functions_do_the_same_when_traced(
    account: Account, seed: int, flags: tuple[str, ...]
) -> None:
    with start(program_of(seed, COUNT, *flags), account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, Counter[str], Counter[str], int, set[str]]:
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                table = session.functions.table
                refused = table.ip[ops.members & ~table.traceable].tolist()
                target.go()
                target.await_calls("rounds", 20, seconds=60)
                rounds = target.hold()["rounds"]
                counts, records = tracing.counted(session, ops), tracing.recorded(session)
                lost = tracing.dropped(session)
                return rounds, counts, records, lost, set(tracing.names_of(session, refused))

        rounds, counts, records, lost, refused = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    traced = [f"f_{number:04}" for number in range(COUNT)]
    wanted = {name: rounds for name in traced if name not in refused}
    assert counts == wanted
    assert records == wanted or lost
    assert records.total() + lost == sum(wanted.values())
    assert len(refused) < COUNT / 5


@pytest.mark.parametrize("seed", [5, 6])
def test_generated_functions_survive_toggling_under_threads(account: Account, seed: int) -> None:
    with start(program_of(seed, COUNT), "threads=4", account=account) as target:

        def controller() -> None:
            with attach(target.pid, Options(buffer_bytes=1 << 20)) as session:
                for i in range(30):
                    make = tracing.counting if i % 2 else tracing.recording
                    session.unregister(session.register(make(f"f_*{i % 10}", "f_0*")))
                    assert target.is_alive and target.bad == 0, i

        account.run(controller)
        end = target.stop()
    assert end.is_well, end.err


@pytest.mark.parametrize(("seed", "dispatch"), [(11, "sets"), (12, "list")])
def test_generated_parts_do_the_same_when_traced(
    account: Account, seed: int, dispatch: str
) -> None:
    # Each is entered by a jump with flags, registers and the whole red zone in use.
    with start(program_of(seed, COUNT, parts=True), account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, Counter[str], Counter[str], int, set[str]]:
            with attach(target.pid, replace(BIG, dispatch=dispatch)) as session:
                ops = session.register(tracing.counting("part:f_*"))
                session.register(tracing.recording("part:f_*"))
                table = session.functions.table
                refused = table.ip[ops.members & ~table.traceable].tolist()
                target.go()
                target.await_calls("rounds", 20, seconds=60)
                rounds = target.hold()["rounds"]
                counts, records = tracing.counted(session, ops), tracing.recorded(session)
                lost = tracing.dropped(session)
                return rounds, counts, records, lost, set(tracing.names_of(session, refused))

        rounds, counts, records, lost, refused = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    wanted = {f"f_{number:04}.cold": rounds for number in range(COUNT)}
    wanted = {name: calls for name, calls in wanted.items() if name not in refused}
    assert counts == wanted
    assert records == wanted or lost
    assert records.total() + lost == sum(wanted.values())
    assert len(refused) < COUNT / 5


def test_generated_parts_survive_toggling_under_threads(account: Account) -> None:
    with start(program_of(13, COUNT, parts=True), "threads=4", account=account) as target:

        def controller() -> None:
            with attach(target.pid, Options(buffer_bytes=1 << 20)) as session:
                for i in range(10):
                    make = tracing.counting if i % 2 else tracing.recording
                    session.unregister(session.register(make(f"part:f_*{i % 10}", "part:f_0*")))
                    assert target.is_alive and target.bad == 0, i

        account.run(controller)
        end = target.stop()
    assert end.is_well, end.err
