"""A call that is on its way to code, or in it, when the function is told to call other code."""

from __future__ import annotations

import os
import signal
from collections import Counter

import numpy as np
import pytest
from tests.support import tracing
from tests.support.beside import Line, beside
from tests.support.build import build
from tests.support.cli import fentry
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.stepping import stop_at
from tests.support.unprivileged import Account, ChildFailed

from fentry.dispatch.threads import ThreadFilter
from fentry.process import shared
from fentry.region.lists import read_list
from fentry.session import Options, Session, attach
from fentry.sites.pad import CALL_OFFSET

SETS = Options(buffer_bytes=8 << 20, max_stop_s=30)
LISTED = Options(buffer_bytes=8 << 20, max_stop_s=30, dispatch="list")
MORE = 80  # calls of f_nop5 after it


def worker(target: Target) -> int:
    return next(tid for tid in target.tids() if tid != target.pid)


def site_of(session: Session, name: str) -> int:
    (site,) = np.flatnonzero(session.functions.match((name,), ()))
    return int(site)


def go_on(target: Target) -> Counter[str]:
    os.kill(target.pid, signal.SIGCONT)
    target.await_calls("f_nop5", MORE)
    return target.hold()


@pytest.mark.parametrize("then", ["nothing", "change", "join"])
def test_a_call_that_has_not_looked_at_the_list_is_seen_when_its_function_leaves_it(
    account: Account, then: str
) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[Counter[str], Counter[str], int, int]:
            with attach(target.pid, LISTED) as one, attach(target.pid, SETS) as two:
                kept = one.register(tracing.counting("f_nop5"))
                loose = one.register(tracing.recording("f_lea"))
                (trampoline,) = one._known.dispatcher.trampolines.lists
                target.go()
                stop_at(worker(target), trampoline.address)
                other = two.register(tracing.counting("f_plain"))  # all functions leave the list
                if then == "change":
                    two.unregister(other)
                elif then == "join":
                    with attach(target.pid, SETS) as third:
                        third.register(tracing.counting("f_frame"))
                made = go_on(target)
                one.unregister(loose)
                last = two.register(tracing.counting("f_frame"))
                for name in ("f_pushes", "f_frame"):  # that nobody is in it is proved, then used
                    two.set_filter(last, (name,))
                memory = one.target.memory
                left = read_list(memory, memory.read_u64(trampoline.section))
                return made, tracing.counted(one, kept), tracing.recorded(one).total(), len(left)

        made, counts, records, left = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert counts == Counter({"f_nop5": made["f_nop5"]})
    assert records == made["f_lea"] > 0
    assert left == 0


def test_a_call_at_its_pad_is_seen_when_its_function_needs_no_pad_any_more(
    account: Account,
) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str]]:
            with attach(target.pid, SETS) as session:
                session.register(tracing.recording("f_nop5"))
                count = session.register(tracing.counting("f_nop5"))  # needs a pad
                pad = int(session._known.dispatcher._text.pad[site_of(session, "f_nop5")])
                target.go()
                stop_at(worker(target), pad + CALL_OFFSET)
                session.unregister(count)
                made = go_on(target)
                return made, tracing.recorded(session)

        made, records = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert records == Counter({"f_nop5": made["f_nop5"]})


def test_a_late_call_of_ops_that_have_gone_is_not_counted_for_others(account: Account) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str]]:
            with attach(target.pid, SETS) as session:
                gone = session.register(tracing.counting("f_nop5"))
                (code,) = session._known.dispatcher.trampolines.live.values()
                target.go()
                stop_at(worker(target), code.address)
                session.unregister(gone)
                others = [session.register(tracing.counting("f_lea")) for _ in range(7)]
                go_on(target)
                last = session.register(tracing.counting("f_lea"))  # into the slot that is left
                counts = tracing.counted(session, last)
                return sum((tracing.counted(session, o) for o in others), Counter()), counts

        counts, last = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert list(counts) == ["f_lea"]
    assert not last


def test_a_call_is_seen_that_had_not_looked_at_the_threads_of_its_ops(account: Account) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str]]:
            with attach(target.pid, SETS) as session:
                ops = tracing.counting("f_nop5")
                ops.threads = ThreadFilter(notrace_tids=frozenset({target.pid}))
                session.register(ops)
                (code,) = session._known.dispatcher.trampolines.live.values()
                target.go()
                stop_at(worker(target), code.address)
                session.set_threads(ops, ThreadFilter())
                other = tracing.counting("f_lea")
                other.threads = ThreadFilter(tids=frozenset({target.pid}))
                session.register(other)
                made = go_on(target)
                return made, tracing.counted(session, ops)

        made, counts = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert counts == Counter({"f_nop5": made["f_nop5"]})


def test_status_tells_of_others_where_one_died_making_its_ring(account: Account) -> None:
    def dies(line: Line, pid: int) -> None:
        session = attach(pid, SETS)
        shared.size_and_seal = lambda fd, count: os.kill(os.getpid(), signal.SIGKILL)
        session.register(tracing.recording("f_nop5"))

    def lives(line: Line, pid: int) -> None:
        with attach(pid, SETS) as session:
            session.register(tracing.counting("f_lea"))
            line.say("attached")
            line.hear()
        line.say("left")

    with start(build("hot.c"), "threads=1", "pause_us=50", account=account) as target:
        with beside(account, lives, target.pid) as one:
            assert one.hear() == "attached"
            with beside(account, dies, target.pid) as other, pytest.raises(ChildFailed):
                other.hear()
            told = fentry(account, "status", "-p", target.pid)
            assert one.ask("leave") == "left"
        told_alone = fentry(account, "detach", "-p", target.pid)
        assert target.stop().is_well
    assert (told.code, told.err) == (0, "")
    assert "count f_lea" in told.out and "gone" in told.out
    assert told_alone.code == 0
