"""Hard cases 59 to 64: a stop in the middle of system calls, signals, other stops."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.machine import missing
from tests.support.process import Target as Program
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.errors import StopTimeout
from fentry.process.stop import Stop
from fentry.process.stub import Call
from fentry.process.target import Target
from fentry.session import Options, attach

GETPID = Call(39, name="getpid")
BIG = Options(buffer_bytes=16 << 20)


def state_of(pid: int, tid: int | None = None) -> str:
    """The letter of the state of a thread in /proc."""
    text = Path(f"/proc/{pid}/task/{tid or pid}/stat").read_text()
    return text[text.rindex(")") + 2]


# 59


def test_no_blocking_call_is_interrupted_by_attach_trace_and_detach(account: Account) -> None:
    with start(build("syscalls.c"), account=account) as target:
        before = {name for name in target.counters() if name.startswith("n.")}

        def controller() -> Counter[str]:
            for _ in range(6):
                with attach(target.pid, tracing.SMALL) as session:
                    ops = session.register(tracing.counting("t_*", "w_*", "libc!*poll*"))
                    session.register(tracing.recording("libc!*wait*", "libc!*recv*", "libc!read"))
                    target.await_calls("n.sigtimedwait", 2)  # one may have begun before
                    calls = tracing.counted(session, ops)
            return calls

        calls = account.run(controller)
        end = target.stop()
    assert end.eintr == {}
    assert end.is_well, end.err
    assert end.counters["signals.sent"] == end.counters["signals.handled"] > 0
    assert {name for name in before if end.counters[name] == 0} == set()
    assert calls["t_sigtimedwait"] > 0


@pytest.mark.parametrize("workers", [0, 1], ids=["polled", "kernel-worker"])
def test_io_uring_wait_is_not_interrupted(account: Account, workers: int) -> None:
    with start(build("io_uring.c"), f"workers={workers}", account=account) as target:
        if target.counters()["skip"]:
            missing("io_uring (kernel.io_uring_disabled)")

        def controller() -> None:
            for _ in range(10):
                with attach(target.pid, tracing.SMALL) as session:
                    session.register(tracing.counting("libc!*"))
                target.await_calls("n.io_uring", 1)

        account.run(controller)
        end = target.stop()
    assert end.eintr == {}
    assert end.is_well, end.err


# 60


def test_remaining_time_is_kept_over_many_stops(account: Account) -> None:
    with start(build("remaining.c"), "ms=2000", account=account, hold=True) as target:

        def controller() -> int:
            ours, stops = Target(target.pid), 0
            target.go()
            while target.counters()["done"] < 6:
                with ours.stopped() as halt:
                    for thread in halt.stop.threads.values():
                        halt.remote.run([GETPID], thread=thread)  # in each thread that waits
                with attach(target.pid, tracing.SMALL):
                    stops += 1
                time.sleep(0.03)  # the waits go on meanwhile: what is measured is their length
            ours.close()
            return stops

        stops = account.run(controller)
        end = target.stop()
    waited = {name: us for name, us in end.counters.items() if name.startswith("us.") and us}
    assert stops >= 2
    assert sorted(waited) == [
        "us.clock_nanosleep", "us.futex", "us.nanosleep", "us.poll", "us.ppoll", "us.select"
    ]  # fmt: skip
    assert end.is_well, (end.eintr, end.err)
    # No wait is shorter. One that began anew at each stop would not have ended.
    assert all(us >= 1_999_000 for us in waited.values()), waited


def test_timeout_that_starts_again_grows_by_no_more_than_was_waited(account: Account) -> None:
    with start(build("remaining.c"), "ms=300", "restart=1", account=account, hold=True) as target:

        def controller() -> None:
            target.go()
            time.sleep(0.1)  # in the middle of the wait
            with Target(target.pid).stopped():
                pass

        account.run(controller)
        target.await_condition(lambda: target.counters()["done"] == 2, "the end of both waits")
        end = target.stop()
    assert end.is_well, (end.eintr, end.err)
    for name in ("us.epoll_wait", "us.sigtimedwait"):
        assert end.counters[name] >= 299_000, end.counters  # and it did end


# 61


def test_vfork_parent_is_awaited_while_others_run(account: Account) -> None:
    with start(build("vfork_parent.c"), "ms=300", account=account) as target:
        target.await_condition(lambda: state_of(target.pid) == "D", "in vfork")

        def controller() -> tuple[int, Counter[str]]:
            before = target.counters()["f_beside"]
            with attach(target.pid, Options(buffer_bytes=1 << 20, max_stop_s=5)) as session:
                waited = target.counters()["f_beside"] - before
                ops = session.register(tracing.counting("f_beside"))
                target.await_calls("f_beside", 500)
                return waited, tracing.counted(session, ops)

        waited, counts = account.run(controller)
        end = target.stop()
    assert waited > 500  # the other thread was not stopped for as long
    assert counts["f_beside"] >= 500
    assert end.is_well, end.err


def test_vfork_parent_that_stays_is_refused_and_nothing_changed(account: Account) -> None:
    with start(build("vfork_parent.c"), "ms=20", "stays=1", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[str, str, str]:
            with pytest.raises(StopTimeout) as caught:
                with Stop(target.pid, max_stop_s=0.03, limit_s=0.1):
                    pass
            target.await_calls("f_beside", 100)  # the other thread runs
            assert target.counters()["vforks"] == 0
            target.wish(1)
            target.await_calls("vforks", 2)  # and the one that could not be stopped, too
            return caught.value.what, caught.value.cause, caught.value.remedy

        what, cause, remedy = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        end = target.stop()
    assert f"cannot stop process {target.pid}: thread {target.pid}" in what
    assert "vfork" in cause
    assert remedy
    assert end.is_well, end.err


# 62


def stop_by_signal(target: Program) -> None:
    """SIGSTOP, until every thread is in the group stop."""
    os.kill(target.pid, signal.SIGSTOP)
    await_stopped(target)


def await_stopped(target: Program) -> None:
    """Every thread is in the group stop; after a detach the kernel sends each there again."""
    target.await_condition(
        lambda: all(state_of(target.pid, tid) == "T" for tid in target.tids()), "stopped", 5
    )


def test_stopped_process_is_traced_and_stays_stopped(account: Account) -> None:
    with start(build("stopped.c"), account=account, hold=True) as target:
        target.go()
        target.await_calls("f_running")
        stop_by_signal(target)
        before = snapshot(target.pid)
        calls_before = target.counters()["f_running"]

        def attach_and_detach() -> None:
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.recording("f_*"))
                assert session.functions.match(("f_running",), ()).sum() == 1

        account.run(attach_and_detach)
        await_stopped(target)
        found = diff(before, snapshot(target.pid))
        calls_after = target.counters()["f_running"]
        os.kill(target.pid, signal.SIGCONT)
        target.await_calls("f_running")
        end = target.stop()
    assert found == []
    assert calls_before == calls_after
    assert end.counters["continued"] == 1
    assert end.is_well, end.err


def test_process_stopped_and_continued_while_traced_is_counted_exactly(account: Account) -> None:
    with start(build("stopped.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str]]:
            with attach(target.pid, BIG) as session:
                stop_by_signal(target)
                ops = session.register(tracing.counting("f_*"))
                await_stopped(target)
                target.go()
                os.kill(target.pid, signal.SIGCONT)
                target.await_calls("f_running", 100)
                stop_by_signal(target)
                session.register(tracing.recording("f_*"))
                at_second = target.counters()
                os.kill(target.pid, signal.SIGCONT)
                target.await_calls("f_running", 100)
                held = target.hold()
                counts, records = tracing.counted(session, ops), tracing.recorded(session)
                stop_by_signal(target)
                later = held["f_running"] - at_second["f_running"] - records["f_running"]
                assert 0 <= later <= 2, later  # a counter follows its call: one a thread
                assert records.total() > 0
                return held, counts

        held, counts = account.run(controller)
        await_stopped(target)
        os.kill(target.pid, signal.SIGCONT)
        target.go()
        end = target.stop()
    assert counts == {"f_running": held["f_running"]}
    assert end.counters["continued"] == 3
    assert end.is_well, end.err


# 63


def test_queued_signals_arrive_once_and_in_order(account: Account) -> None:
    with start(build("sigorder.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str]]:
            target.go()
            for _ in range(8):
                attach_once(target)
            target.hold()
            with attach(target.pid, BIG) as session:
                before = target.counters()
                ops = session.register(tracing.counting("f_*"))
                target.go()
                target.await_calls("handled", 200)
                held = target.hold()
                return held - before, tracing.counted(session, ops)

        made, counts = account.run(controller)
        target.go()
        end = target.stop()
    assert counts == {name: made[name] for name in ("f_main", "f_handler")}
    assert end.counters["sent"] == end.counters["handled"] == end.counters["f_handler"] > 200
    assert end.is_well, end.err


def attach_once(target: Program) -> None:
    """Attach, trace, detach while signals come."""
    with attach(target.pid, tracing.SMALL) as session:
        session.register(tracing.recording("f_*"))
        target.await_calls("handled")


# 64


def test_program_with_its_own_breakpoints_keeps_them(account: Account) -> None:
    with start(build("sigtrap.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], Counter[str]]:
            target.go()
            for _ in range(5):
                with attach(target.pid, tracing.SMALL) as session:
                    session.register(tracing.recording("f_*"))
                    target.await_calls("int3")
            target.hold()
            with attach(target.pid, BIG) as session:
                before = target.counters()
                ops = session.register(tracing.counting("f_*", "on_trap"))
                target.go()
                target.await_calls("int3", 100)
                held = target.hold()
                return before, held, tracing.counted(session, ops)

        before, held, counts = account.run(controller)
        target.go()
        end = target.stop()
    calls = held["f_trapped"] - before["f_trapped"]
    assert calls >= 300
    assert counts["f_trapped"] == calls
    assert end.counters["raised"] == 2 * end.counters["int3"]
    assert end.is_well, end.err
