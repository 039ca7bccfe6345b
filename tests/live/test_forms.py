"""Generated functions that are hard to patch do when traced what they did untraced."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.forms import program_of
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.session import Options, attach

COUNT = 1500
BIG = Options(buffer_bytes=32 << 20)


def round_of_all(
    account: Account, program: Path, pattern: str, options: Options, names: list[str]
) -> None:
    """Count and record all functions that match, for some rounds in which each of `names` is called
    once; but for few that are refused, all are seen, and the program notices nothing."""
    with start(program, account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, Counter[str], Counter[str], int, set[str]]:
            with attach(target.pid, options) as session:
                ops = session.register(tracing.counting(pattern))
                session.register(tracing.recording(pattern))
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
    wanted = {name: rounds for name in names if name not in refused}
    assert counts == wanted
    assert records == wanted or lost
    assert records.total() + lost == sum(wanted.values())
    assert len(refused) < len(names) / 5


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("flags", [(), ("-no-pie",)], ids=["pie", "no-pie"])
def test_generated_functions_do_the_same_when_traced(
    account: Account, seed: int, flags: tuple[str, ...]
) -> None:
    names = [f"f_{number:04}" for number in range(COUNT)]
    round_of_all(account, program_of(seed, COUNT, *flags), "f_*", BIG, names)


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
    names = [f"f_{number:04}.cold" for number in range(COUNT)]
    program = program_of(seed, COUNT, parts=True)
    round_of_all(account, program, "part:f_*", replace(BIG, dispatch=dispatch), names)


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
