"""Hard cases 76 to 82: other tracers, second controllers, stopped ones; the end of the target."""

from __future__ import annotations

import importlib
import json
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.live.programs.fed import guests
from tests.support import tracing
from tests.support.build import build
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.tracers import TRACERS, traced_by, tracer_of
from tests.support.unprivileged import Account, Completed

from fentry.cli.__main__ import COMMANDS, main
from fentry.errors import LockError
from fentry.process.guard import guard
from fentry.process.proc import read_stat
from fentry.session import Options, attach

for module, _ in COMMANDS.values():
    importlib.import_module(module)  # the account may not be able to read them later


# 76


@pytest.mark.parametrize("name", sorted(TRACERS))
def test_target_of_another_tracer_is_refused_at_once_and_named(account: Account, name: str) -> None:
    with start(build("hot.c"), "pause_us=200", account=account) as target:
        with traced_by(name, target, account) as tracer:
            before = snapshot(target.pid)

            def controller() -> tuple[LockError, float]:
                with pytest.raises(LockError) as caught:
                    attach(target.pid, tracing.SMALL)
                return caught.value

            error = account.run(controller)
            record = ["fentry", "record", "-p", str(target.pid), "-o", "/tmp/fentry-unwritten"]
            command = account.call_main(main, record)
            found = diff(before, snapshot(target.pid))
        account.run(tracing.full_cycle, target.pid)  # when it has left, all is well
        end = target.stop()
    assert f"cannot attach to {target.pid}" in error.what
    assert f"already traced by process {tracer} (" in error.cause and name in error.cause
    assert error.remedy
    assert command.code == 6
    assert command.err.count("\n") == 2 and f"process {tracer}" in command.err
    assert found == []
    assert end.is_well, end.err


# 77


def test_second_fentry_works_beside_the_first_and_both_see_the_same(account: Account) -> None:
    with start(build("hot.c"), "pause_us=200", account=account) as target:
        before = snapshot(target.pid)
        status = ["fentry", "status", "-p", str(target.pid), "--json", "--sites"]
        count = ["fentry", "stat", "-p", str(target.pid), "-F", "f_lea", "-d", "50ms", "--json"]

        def controller() -> tuple[int, str, str, Completed, str, dict[str, int]]:
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.recording("f_*nop*"))
                ops = session.register(tracing.counting("f_lea"))
                mine = account.call_main(main, status).out
                theirs = account.call_main(main, status).out
                second = account.call_main(main, count)
                after = account.call_main(main, status).out
                return os.getpid(), mine, theirs, second, after, tracing.counted(session, ops)

        pid, mine, theirs, second, after, counts = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    told, again, at_last = json.loads(mine), json.loads(theirs), json.loads(after)
    for moving in (told, again, at_last):  # what is recorded and counted meanwhile
        moving.pop("instances")
        for ops in moving["ops"]:
            ops.pop("hits", None)
    assert told == again
    assert told["owner"] == pid and [one["pid"] for one in told["owners"]] == [pid]
    assert sorted(call["name"] for call in told["calls"]) == ["f_endbr_nop5", "f_lea", "f_nop5"]
    assert second.code == 0, second.err
    assert 0 < json.loads(second.out)[0]["calls"] <= counts["f_lea"]
    assert at_last["ops"] == told["ops"] and at_last["owners"] == told["owners"]


# 79


def toggle_for_ever(pid: int) -> None:
    """What the controller does that is stopped: change the text all the time."""
    with attach(pid, tracing.SMALL) as session:
        while True:
            ops = session.register(tracing.recording("f_*"))
            session.unregister(ops)


@contextmanager
def controller_of(target: Target, account: Account, *, guarded: bool = False) -> Iterator[int]:
    """The pid of a controller at work, `guarded` as commands are; it is dead at the end."""
    child = os.fork()
    if not child:
        try:
            account.become()
            if guarded:
                guard().start()
            toggle_for_ever(target.pid)
        finally:
            os._exit(1)
    try:
        target.await_condition(lambda: bool(guests(target.pid)), "attached to")
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def stop_inside_its_stop(child: int, target: Target, chance: random.Random) -> int:
    """SIGSTOP at random moments until one hits while the target is stopped; how many it took."""
    for moments in range(1, 400):
        time.sleep(chance.uniform(0, 0.01))  # at no particular moment
        os.kill(child, signal.SIGSTOP)
        _, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status
        if any(tracer_of(target.pid, tid) == child for tid in target.tids()):
            return moments
        target.await_calls("f_plain", 1)  # it runs while its controller does not
        os.kill(child, signal.SIGCONT)
    pytest.fail("no moment of 400 was inside a stop")


@pytest.mark.parametrize("then", ["continued", "killed"])
def test_controller_stopped_at_any_moment_harms_nothing(account: Account, then: str) -> None:
    chance = random.Random(79)
    with start(build("hot.c"), "threads=3", "pause_us=100", account=account) as target:
        before = snapshot(target.pid)
        for _ in range(3):
            with controller_of(target, account) as child:
                stop_inside_its_stop(child, target, chance)
                os.kill(child, signal.SIGCONT if then == "continued" else signal.SIGKILL)
                target.await_calls("f_plain", 20)
                assert target.bad == 0
        target.await_calls("f_plain", 20)
        account.run(tracing.detach_as_command, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        end = target.stop()
    assert end.is_well, end.err


def test_target_of_a_command_that_is_stopped_inside_its_stop_runs_again(account: Account) -> None:
    chance = random.Random(79)
    with start(build("hot.c"), "threads=3", "pause_us=100", account=account) as target:
        before = snapshot(target.pid)
        for _ in range(3):
            with controller_of(target, account, guarded=True) as child:
                stop_inside_its_stop(child, target, chance)
                target.await_calls("f_plain", 20)  # nobody has continued its controller
                target.await_condition(
                    lambda: (
                        read_stat(child).state == "T"
                        and not any(tracer_of(target.pid, tid) for tid in target.tids())
                    ),
                    "stopped again, outside of its stop",
                    20,
                )
                os.kill(child, signal.SIGCONT)
                target.await_calls("f_plain", 20)
                assert target.bad == 0
        account.run(tracing.detach_as_command, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        end = target.stop()
    assert end.is_well, end.err


# 80, 81

WAYS = {"kill": -9, "segv": -11, "abort": -6, "_exit": 3, "exit": 0}


@pytest.mark.parametrize("how", sorted(WAYS))
def test_ring_of_a_target_that_ends_is_read_completely(account: Account, how: str) -> None:
    with start(build("exits.c"), f"how={how}", "at=1500", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], int, Counter[str]]:
            session = attach(target.pid, tracing.SMALL)
            ops = session.register(tracing.counting("f_last"))
            session.register(tracing.recording("f_last"))
            target.go()
            assert select.select([session.pidfd], [], [], 20)[0]
            session.detach()
            records = tracing.recorded(session, final=True)
            counts = tracing.counted(session, ops)
            session.close()
            return records, tracing.dropped(session), counts

        records, lost, counts = account.run(controller)
        end = target.await_end()
    assert end.code == WAYS[how]
    assert end.counters["f_last"] == 1500
    assert records == counts == {"f_last": 1500}
    assert lost == 0
    assert end.printed == (how == "exit")


# 82


def test_detach_restores_text_mappings_threads_and_signals(account: Account) -> None:
    with start(build("hot.c"), "pause_us=100", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> list[str]:
            with attach(target.pid, Options(buffer_bytes=1 << 20)) as session:
                session.register(tracing.recording("*"))
                session.register(tracing.counting("f_*"))
                target.await_calls("f_plain", 50)
                return diff(before, snapshot(target.pid))

        during = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.await_calls("f_plain", 50)
        end = target.stop()
    parts = {line.split(":")[0] for line in during}
    assert {"text", "maps"} <= parts <= {"text", "maps", "pages"}  # no thread, no descriptor
    assert found == []
    assert end.is_well, end.err
