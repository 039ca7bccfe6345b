"""Stops and system calls in the target that once went wrong: each test is one such case."""

from __future__ import annotations

import gc
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
from tests.support.unprivileged import Account, accounts

from fentry.errors import FentryError, TargetGone
from fentry.process.remote import RemoteError
from fentry.process.stop import Stop
from fentry.process.stub import Call
from fentry.process.target import Target
from fentry.session import Options, attach

GETPID = Call(39, name="getpid")
SMALL = Options(buffer_bytes=1 << 16)


def states(pid: int) -> dict[int, tuple[str, int]]:
    """The state letter and the tracer of each thread that there is."""
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            lines = Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        found[int(tid)] = fields["State"][0], int(fields["TracerPid"])
    return found


def await_states(target: Program, letters: str) -> None:
    """Wait until every thread is in one of these states and has no tracer."""
    target.await_condition(
        lambda: all(s in letters and not tracer for s, tracer in states(target.pid).values()),
        f"all in {letters}: {states(target.pid)}",
    )


# 1. Limits of memory


def test_target_that_locks_all_its_memory_is_detached_without_a_trace() -> None:
    account = accounts()[0]
    with start(build("limited.c"), "how=mlock", account=account) as target:
        target.await_calls("f_limited")
        if target.counters()["skip"]:
            missing("the right to lock memory")
        before = snapshot(target.pid)

        def controller() -> Counter[str]:
            with attach(target.pid, SMALL) as session:
                ops = session.register(tracing.counting("f_limited"))
                target.await_calls("f_limited", 20)
                return tracing.counted(session, ops)

        assert account.run(controller)["f_limited"] >= 20
        assert diff(before, snapshot(target.pid)) == []
        target.await_calls("f_limited")
        assert target.stop().is_well


@pytest.mark.parametrize("pages", [10, 200, 600, 1500])
def test_attach_fails_cleanly_when_the_address_space_is_used_up(
    account: Account, pages: int
) -> None:
    with start(build("limited.c"), "how=as", f"pages={pages}", account=account) as target:
        target.await_calls("f_limited")
        assert not target.counters()["skip"]
        before = snapshot(target.pid)

        def controller() -> None:
            with pytest.raises(RemoteError, match="mmap failed: Cannot allocate memory"):
                with attach(target.pid, Options(buffer_bytes=8 << 20)) as session:
                    session.register(tracing.recording("f_*"))

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.await_calls("f_limited")
        assert target.stop().is_well


# 2. Signals to the target and to the controller


@pytest.mark.parametrize("moment", ["before a call", "during a call", "without a call"])
def test_sigstop_that_arrives_in_a_stop_is_not_lost(account: Account, moment: str) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=200", "check=0", account=account) as target:

        def stop_it(i: int = 0, result: int = 0) -> bool:
            if i == 0:
                os.kill(target.pid, signal.SIGSTOP)
            return True

        def controller() -> None:
            ours = Target(target.pid)
            with ours.stopped() as halt:
                if moment == "during a call":
                    halt.remote.run([GETPID, GETPID], stop_it)
                else:
                    stop_it()
                if moment == "before a call":
                    halt.remote.run([GETPID])
            ours.close()

        account.run(controller)
        await_states(target, "T")
        os.kill(target.pid, signal.SIGCONT)
        target.await_calls("f_plain", 10)
        assert target.stop().is_well


@pytest.mark.parametrize(
    ("timer", "number"),
    [(signal.ITIMER_REAL, signal.SIGALRM), (signal.ITIMER_PROF, signal.SIGPROF)],
)
def test_handler_of_the_controller_that_raises_loses_no_thread(
    account: Account, timer: int, number: signal.Signals
) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=200", "check=0", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> dict[int, tuple[str, int]]:
            def interrupt(number: int, frame: object) -> None:
                raise KeyboardInterrupt

            signal.signal(number, interrupt)
            ours = Target(target.pid)
            with pytest.raises(KeyboardInterrupt):
                with ours.stopped() as halt:
                    signal.setitimer(timer, 0.005)  # of our own CPU time, for the one of the two
                    halt.remote.run([Call(7, (0, 0, 100), name="poll")])
                    while signal.getitimer(timer)[0]:  # who waits for a call uses little of it
                        pass
            target.await_calls("f_plain", 10)  # while this controller lives on
            ours.close()
            await_states(target, "RSD")
            return states(target.pid)

        found = account.run(controller)
        assert len(found) == 3
        account.run(tracing.detach_as_command, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def test_stub_of_a_dead_controller_stays_while_a_signal_handler_lies_above_it(
    account: Account,
) -> None:
    with start(build("long_handler.c"), account=account) as target:
        before = snapshot(target.pid)

        def die(i: int, result: int) -> bool:
            os.kill(target.pid, signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGKILL)
            return True

        child = os.fork()
        if not child:
            try:
                account.become()
                with Target(target.pid).stopped() as halt:
                    halt.remote.run([GETPID, GETPID], die)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        target.await_condition(lambda: target.counters()["entered"] == 1, "in the handler")
        assert target.counters()["handled"] == 0

        def release(stop: Stop) -> None:
            real_release(stop)
            target.wish(1)  # once it was seen in its handler

        def sweep() -> None:
            ours = Target(target.pid)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(Stop, "release", release)
                ours.sweep()
            ours.close()

        real_release = Stop.release

        account.run(sweep)
        target.await_calls("rounds")
        assert target.counters()["handled"] == 1
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


# 3. Threads and images that come and go


def test_main_thread_that_makes_threads_is_stopped_without_an_error(account: Account) -> None:
    with start(build("births.c"), account=account) as target:

        def controller() -> int:
            ours = Target(target.pid)
            stops, end = 0, time.monotonic() + 0.4
            while time.monotonic() < end:
                with ours.stopped():
                    stops += 1
            ours.close()
            return stops

        assert account.run(controller) >= 1
        target.await_calls("f_born", 10)
        end = target.stop()
    assert end.is_well, end.err


@pytest.mark.parametrize("leaves", [0, 1])
def test_exec_by_another_thread_during_stops_leaves_no_thread_traced(
    account: Account, leaves: int
) -> None:
    with start(build("exec_thread.c"), f"leaves={leaves}", account=account) as target:

        def controller() -> Counter[str]:
            outcomes: Counter[str] = Counter()
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                stop = Stop(target.pid)
                try:
                    with stop:
                        outcomes["stopped"] += 1
                except TargetGone:
                    outcomes["gone"] += 1
                except FentryError as error:
                    outcomes[repr(error)] += 1
                target.await_condition(stop.settle, "let go")
            target.await_calls("execs", 5)  # while this controller lives on
            target.await_condition(
                lambda: not any(tracer for _, tracer in states(target.pid).values()),
                "untraced",
            )
            return outcomes

        outcomes = account.run(controller)
        assert outcomes["stopped"] >= 1, outcomes
        assert outcomes.keys() <= {"stopped", "gone"}, outcomes
        assert target.stop().is_well


# 4. What the controller holds


def test_sessions_leak_no_descriptor_and_no_mapping_in_the_controller(account: Account) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=200", account=account) as target:

        def held() -> tuple[int, int]:
            gc.collect()
            maps = Path("/proc/self/maps").read_text()
            return len(os.listdir("/proc/self/fd")), maps.count("/memfd:fentry-")

        def controller() -> list[tuple[int, int]]:
            found = []
            for _ in range(3):
                with attach(target.pid, SMALL) as session:
                    session.register(tracing.recording("f_*"))
                    session.register(tracing.counting("f_plain"))
                del session
                found.append(held())
            return found

        found = account.run(controller)
        assert target.stop().is_well
    assert found[0] == found[1] == found[2]
    assert found[0][1] == 0
