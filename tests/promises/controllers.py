"""The promise of several controllers of one process."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from contextlib import ExitStack

from fentry.errors import LockError
from fentry.session import Options, adopt, attach
from tests.promises.registry import Run, promise
from tests.support import killer, tracing
from tests.support.beside import Line, beside
from tests.support.build import build
from tests.support.process import Target, start
from tests.support.state import diff, snapshot

BIG = Options(buffer_bytes=16 << 20)
RECORDED = ("f_lea", "f_nop5")


@promise("killed-beside", full=4_000, unit="deaths at most", least=2)
def killed_beside(run: Run) -> str:
    """A controller dies after its n-th system call while another one works on the same functions:
    the target is right, the other has lost nothing, and what is left can be adopted."""
    arguments = ("threads=3", "pause_us=300")
    with start(build("hot.c"), *arguments, account=run.account, hold=True) as target:
        before = snapshot(target.pid)
        tracing.full_cycle(target.pid)  # what we have read and built, forked controllers have
        with beside(run.account, watches, target) as living:
            first = living.hear()
            target.go()
            calls = killer.count(tracing.full_cycle, target.pid, account=run.account)
            stride = max(1, calls // run.count)
            deaths, adopted = 0, 0
            points = killer.points(
                tracing.full_cycle, target.pid,
                account=run.account, first=1 + stride // 2, stride=stride,
            )  # fmt: skip
            for death in points:
                deaths += 1
                assert target.is_alive and target.bad == 0, death
                if deaths % 2:
                    living.ask("toggle")  # goes on while the dead one's ops are there
                seen = compare(target, living.ask, first, str(death))
                adopted += run.account.run(adopt_and_leave, target.pid)
            living.ask("detach")
        assert diff(before, snapshot(target.pid)) == []
        end = target.stop()
    assert end.is_well, end.err
    return f"{deaths} deaths, {adopted} adopted; {seen} calls counted and recorded by who lived"


@promise(
    "many-controllers", full=200, least=2,
    unit="rounds of three that change all, one of them killed",
)  # fmt: skip
def many_controllers(run: Run) -> str:
    """Three controllers change the same functions all the time and one is killed at any moment: a
    fourth has lost nothing."""
    chance = random.Random(3)
    arguments = ("threads=3", "pause_us=300")
    with start(build("hot.c"), *arguments, account=run.account, hold=True) as target:
        before = snapshot(target.pid)
        with beside(run.account, watches, target) as living:
            first = living.hear()
            target.go()
            for number in range(run.count):
                with ExitStack() as stack:
                    three = [
                        stack.enter_context(beside(run.account, toggles, target.pid))
                        for _ in range(3)
                    ]
                    for one in three:
                        one.hear()
                    time.sleep(chance.uniform(0, 0.2))  # any moment
                    three[0].kill()
                    for one in three[1:]:
                        one.ask()
                seen = compare(target, living.ask, first, f"round {number}")
                run.account.run(adopt_and_leave, target.pid)
            living.ask("detach")
        assert diff(before, snapshot(target.pid)) == []
        end = target.stop()
    assert end.is_well, end.err
    return f"{seen} calls counted and recorded by who lived"


def watches(line: Line, target: Target) -> None:
    """The controller that lives: counts all functions and records some."""
    with attach(target.pid, BIG) as session:
        count = session.register(tracing.counting("f_*"))
        record = session.register(tracing.recording(*RECORDED))
        records: Counter[str] = Counter()
        line.say(target.counters())
        while (word := line.hear(3600)) != "detach":
            if word == "toggle":
                session.unregister(session.register(tracing.counting("f_*")))
                session.set_filter(record, RECORDED)
            records += tracing.recorded(session)
            line.say((tracing.counted(session, count), records, tracing.dropped(session)))
    line.say("detached")


def compare(target: Target, ask: object, first: Counter[str], what: str) -> int:
    """Hold the target and compare what the watcher has seen with what was called since `first`."""
    held = target.hold()
    counts, records, lost = ask("tell")  # type: ignore[operator]
    target.go()
    made = Counter({name: held[name] - first[name] for name in counts})
    assert counts == made and len(counts) == 21, (what, counts - made, made - counts)
    wanted = Counter({name: made[name] for name in RECORDED})
    assert records.total() + lost == wanted.total(), (what, records, lost, wanted)
    assert lost or records == wanted, (what, records, wanted)
    return counts.total() + records.total()


def toggles(line: Line, pid: int) -> None:
    """A controller that registers and unregisters until it is told to leave."""
    with attach(pid, tracing.SMALL) as session:
        line.say(os.getpid())
        while not line.has_news():
            session.unregister(session.register(tracing.recording("f_*")))
    line.say("left")


def adopt_and_leave(pid: int) -> int:
    """How many dead controllers' rows were adopted and given back."""
    adopted = 0
    while True:
        try:
            with adopt(pid):
                adopted += 1
        except LockError:
            return adopted  # the rest live
