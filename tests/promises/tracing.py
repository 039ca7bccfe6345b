"""The promises of attaching, tracing and leaving."""

from __future__ import annotations

import os
import random
from collections import Counter

from fentry.errors import FentryError, TargetGone
from fentry.process.target import Target
from fentry.session import Options, attach
from tests.promises.registry import PATIENT_S, Run, promise
from tests.support import killer, tracing
from tests.support.build import build
from tests.support.process import Target as Program
from tests.support.process import start
from tests.support.state import diff, snapshot

BIG = Options(buffer_bytes=16 << 20)


@promise("killed-anywhere", full=8_000, unit="deaths at most")
def killed_anywhere(run: Run) -> str:
    """The controller dies after its n-th system call; the target is right, detach restores it.

    In full after each one of a cycle, of two targets.
    """
    deaths, cycles = 0, []
    for source in ("hot.c", "pageend.S"):
        with start(build(source), "threads=3", "pause_us=100", account=run.account) as target:
            before = snapshot(target.pid)
            tracing.full_cycle(target.pid)  # what we have read and built, forked controllers have
            calls = killer.count(tracing.full_cycle, target.pid, account=run.account)
            cycles.append(calls)
            stride = max(1, 2 * calls // run.count)
            points = killer.points(
                tracing.full_cycle, target.pid,
                account=run.account, first=1 + deaths % stride, stride=stride,
            )  # fmt: skip
            for death in points:
                deaths += 1
                assert target.is_alive and target.bad == 0, death
                run.account.run(tracing.detach_as_command, target.pid)
                assert diff(before, snapshot(target.pid)) == [], death
            target.await_calls(min(target.counters()))
            end = target.stop()
            assert end.is_well, end.err
    every = "each" if stride == 1 else f"each {stride}th"
    return (
        f"{deaths} deaths, after {every} system call of cycles of {cycles[0]} and {cycles[1]}: "
        "target right, text restored"
    )


@promise("toggled-under-fire", full=100_000, unit="toggles")
def toggled_under_fire(run: Run) -> str:
    """Functions that 16 threads execute are traced and let go, again and again."""
    with start(build("hot.c"), "threads=16", account=run.account) as target:
        _yield_to_controller(target)

        def controller() -> int:
            moved = 0
            with attach(target.pid, Options(max_stop_s=PATIENT_S)) as session:
                for i in range(run.count // 2):
                    make = tracing.counting if i % 2 else tracing.recording
                    ops = session.register(make("f_*"))
                    session.unregister(ops)
                    assert target.is_alive and target.bad == 0, f"after toggle {2 * i}"
                moved = len(session.target.stop_durations_ns)
            return moved

        stops = run.account.run(controller, seconds=36_000)
        end = target.stop()
    assert end.is_well, end.err
    return f"0 crashes, {stops} stops"


def _yield_to_controller(target: Program) -> None:
    # The threads run whenever the controller does not: they are preempted anywhere, and the
    # controller gets its turn among sixteen.
    for tid in target.tids():
        os.setpriority(os.PRIO_PROCESS, tid, 19)


@promise("toggled-under-signals", full=20_000, unit="toggles")
def toggled_under_signals(run: Run) -> str:
    """The same while two timers at 10 kHz run handlers on an alternate stack."""
    with start(build("sigstorm.c"), account=run.account) as target:

        def controller() -> None:
            with attach(target.pid) as session:
                for i in range(run.count // 2):
                    make = tracing.counting if i % 2 else tracing.recording
                    session.unregister(session.register(make("f_*")))
                    assert target.is_alive and target.bad == 0, f"after toggle {2 * i}"

        run.account.run(controller, seconds=36_000)
        end = target.stop()
    assert end.is_well, end.err
    return f"0 crashes, {end.counters['signals']} signals handled"


@promise("invisible-stops", full=10_000, unit="attach/detach cycles")
def invisible_stops(run: Run) -> str:
    """Attach and detach over every blocking call: no EINTR, every signal counted."""
    with (
        start(build("syscalls.c"), account=run.account) as target,
        start(build("io_uring.c"), account=run.account) as uring,
    ):

        def controller() -> None:
            for i in range(run.count):
                with attach((target if i % 4 else uring).pid, tracing.SMALL):
                    pass  # a region comes and goes: two stops and a dozen system calls

        run.account.run(controller, seconds=36_000)
        end, other = target.stop(), uring.stop()
    assert end.is_well and other.is_well, (end.eintr, other.eintr, end.err, other.err)
    sent, handled = end.counters["signals.sent"], end.counters["signals.handled"]
    assert sent == handled, (sent, handled)
    calls = sum(name.startswith("n.") for name in end.counters)
    return f"0 EINTR in {calls + 1} kinds of calls, {handled} of {sent} signals handled"


def _exactly(run: Run, source: str, functions: tuple[str, ...], calls: int, *args: object) -> str:
    with start(build(source), *map(str, args), account=run.account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], int]:
            with attach(target.pid, BIG) as session:
                count = session.register(tracing.counting(*functions))
                session.register(tracing.recording(*functions))
                target.go()
                goal = target.counters()[functions[0]] + calls
                records: Counter[str] = Counter()
                while target.counters()[functions[0]] < goal:
                    records += tracing.recorded(session)
                    assert target.is_alive and target.bad == 0
                held = target.hold(seconds=60)
                records += tracing.recorded(session)
                counts = tracing.counted(session, count)
                return held, counts, records, tracing.dropped(session)

        held, counts, records, lost = run.account.run(controller, seconds=36_000)
        target.go()
        end = target.stop(seconds=60)
    assert end.is_well, end.err
    wanted = Counter({name: held[name] for name in functions})
    if lost == 0:
        assert records == wanted, (records, wanted)
    assert records.total() + lost == wanted.total(), (records.total(), lost, wanted.total())
    assert counts == wanted, (counts, wanted)
    return f"{wanted.total()} calls = {records.total()} recorded + {lost} dropped = counted"


@promise("clone-storm", full=2_000_000, unit="calls")
def clone_storm(run: Run) -> str:
    """Threads are born and die all the time: every call is accounted."""
    return _exactly(run, "storm.c", ("f_storm",), run.count)


@promise("signals-accounted", full=2_000_000, unit="calls")
def signals_accounted(run: Run) -> str:
    """Signal handlers nest in trampolines: every call is accounted."""
    return _exactly(run, "sigstorm.c", ("f_main", "f_handler"), run.count)


@promise("handlers-jump-out", full=2_000_000, unit="calls")
def handlers_jump_out(run: Run) -> str:
    """Handlers leave by siglongjmp, also out of trampolines: nothing hangs, all is accounted."""
    with start(build("sigstorm.c"), "jump=1", account=run.account, hold=True) as target:

        def controller() -> tuple[Counter[str], int, int, int]:
            with attach(target.pid, BIG) as session:
                session.register(tracing.recording("f_main"))
                target.go()
                records = 0
                while target.counters()["f_main"] < run.count:
                    records += tracing.recorded(session).total()
                    assert target.is_alive and target.bad == 0
                held = target.hold(seconds=60)
                session.detach()
                records += tracing.recorded(session, final=True).total()
                stats = session.stats
                assert stats is not None
                return held, records, tracing.dropped(session), int(stats.incomplete.sum())

        held, records, lost, incomplete = run.account.run(controller, seconds=36_000)
        target.go()
        end = target.stop(seconds=60)
    assert end.is_well, end.err
    begun, done, jumps = held["f_main"], held["done.f_main"], held["jumps"]
    assert done <= records + lost <= begun, (done, records, lost, begun)
    assert incomplete <= jumps, (incomplete, jumps)
    return f"{done} to {begun} calls, {records} recorded, {incomplete} incomplete, {jumps} jumps"


@promise("full-ring-accounted", full=1_000_000_000, unit="calls")
def full_ring_accounted(run: Run) -> str:
    """16 threads at full rate overrun the reader: recorded + dropped = calls."""
    return _exactly(run, "overflow.c", ("f_busy",), run.count)


@promise("children-silent", full=2_000, unit="rounds of children")
def children_silent(run: Run) -> str:
    """fork, vfork, posix_spawn, system and exec: the parent exact, forked children silent."""
    with start(build("forks.c"), account=run.account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], int]:
            with attach(target.pid, BIG) as session:
                count = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                target.go()
                records: Counter[str] = Counter()
                while target.counters()["rounds"] < run.count:
                    records += tracing.recorded(session)
                    assert target.is_alive and target.bad == 0
                held = target.hold(seconds=60)
                records += tracing.recorded(session)
                counts = tracing.counted(session, count)
                return held, counts, records, tracing.dropped(session)

        held, counts, records, lost = run.account.run(controller, seconds=36_000)
        target.go()
        end = target.stop(seconds=60)
    assert end.is_well, end.err
    wanted = Counter({name: held[name] for name in ("f_parent", "f_vforked")})
    assert records["f_child"] == counts["f_child"] == 0
    assert records.total() + lost == wanted.total(), (records, lost, wanted)
    assert counts == wanted, (counts, wanted)
    return f"{wanted.total()} calls of the parent accounted, {held['f_child']} of children silent"


@promise("exec-storm", full=2_000, unit="attaches to a program that execs all the time")
def exec_storm(run: Run) -> str:
    """The target replaces itself every 40 ms, also inside stops: traced or told that it is gone."""
    with start(build("execloop.c"), "ms=40", account=run.account) as target:

        def controller() -> Counter[str]:
            outcomes: Counter[str] = Counter()
            for _ in range(run.count):
                try:
                    with attach(target.pid, tracing.SMALL) as session:
                        session.unregister(session.register(tracing.recording("f_*")))
                        session.register(tracing.counting("f_*"))
                    outcomes["traced"] += 1
                except TargetGone:
                    outcomes["image gone"] += 1
            return outcomes

        outcomes = run.account.run(controller, seconds=36_000)
        target.await_calls("execs", 2)  # nothing of ours holds it up
        end = target.stop()
    assert end.is_well, end.err
    return f"{dict(outcomes)}, {end.counters['execs']} images"


@promise("ring-outlives-target", full=1_000, unit="deaths of the target")
def ring_outlives_target(run: Run) -> str:
    """SIGKILL, SIGSEGV, abort, exit: the ring is read to the last committed record."""
    ways = ("kill", "segv", "abort", "exit", "_exit", "thread")
    program = build("exits.c")
    for i in range(run.count):
        how, at = ways[i % len(ways)], 100 + random.Random(i).randrange(2000)
        with start(program, f"how={how}", f"at={at}", account=run.account, hold=True) as target:

            def controller(target: Program = target) -> tuple[int, int, int]:
                session = attach(target.pid, tracing.SMALL)
                session.register(tracing.recording("f_last"))
                target.go()
                target.await_end()
                session.detach()
                records = tracing.recorded(session, final=True)["f_last"]
                completed = target.counters()["f_last"]
                session.close()
                return records, completed, tracing.dropped(session)

            records, completed, lost = run.account.run(_reaping(controller, target))
        assert completed <= records + lost <= completed + 2, (how, records, lost, completed)
    return f"{run.count} deaths in {len(ways)} ways, nothing committed was lost"


def _reaping(controller, target: Program):  # type: ignore[no-untyped-def]
    # The target is a child of ours, not of the account's process: it is awaited by its pidfd.
    def wait_and_run():  # type: ignore[no-untyped-def]
        import select

        def await_end(seconds: float = 20) -> None:
            assert select.select([target._pidfd], [], [], seconds)[0], "the target lives on"

        target.await_end = await_end  # type: ignore[method-assign, assignment]
        return controller()

    return wait_and_run


@promise("leaves-nothing", full=1_000, unit="attach, trace, detach")
def leaves_nothing(run: Run) -> str:
    """Text, maps, descriptors, threads, dispositions and shared pages are as before."""
    with start(build("hot.c"), "pause_us=200", account=run.account) as target:
        before = snapshot(target.pid)
        for i in range(run.count):
            run.account.run(tracing.full_cycle, target.pid)
            found = diff(before, snapshot(target.pid))
            assert found == [], (i, found)
        end = target.stop()
    assert end.is_well, end.err
    return "no difference"


@promise("lock-holds", full=500, unit="fights")
def lock_holds(run: Run) -> str:
    """Two controllers at once, that come and go: both have what they want, nothing breaks."""
    with start(build("hot.c"), "pause_us=200", account=run.account) as target:
        before = snapshot(target.pid)
        outcomes: Counter[str] = Counter()
        for _ in range(run.count):
            children = [_fighter(run, target.pid) for _ in range(2)]
            for child in children:
                _, status = os.waitpid(child, 0)
                outcomes[{0: "traced"}.get(os.waitstatus_to_exitcode(status), "?")] += 1
            assert target.bad == 0 and target.is_alive
        assert outcomes["?"] == 0, outcomes
        run.account.run(tracing.detach_as_command, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    return f"{dict(outcomes)}"


def _fighter(run: Run, pid: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        run.account.become()
        tracing.full_cycle(pid)
        code = 0
    except FentryError as error:
        code = error.exit_code
    finally:
        os._exit(code)


@promise("stops-any-thread", full=20_000, unit="stops with a system call in any thread")
def stops_any_thread(run: Run) -> str:
    """A system call is injected into threads that block in every kind of call."""
    from fentry.process.stub import Call

    getpid = Call(39, name="getpid")
    with start(build("syscalls.c"), account=run.account) as target:

        def controller() -> None:
            ours = Target(target.pid)
            chance = random.Random(7)
            for _ in range(run.count):
                with ours.stopped() as halt:
                    thread = chance.choice(list(halt.stop.threads.values()))
                    halt.remote.run([getpid], thread=thread)
            ours.close()

        run.account.run(controller, seconds=36_000)
        end = target.stop()
    assert end.is_well, (end.eintr, end.err)
    assert end.counters["signals.sent"] == end.counters["signals.handled"]
    return "0 EINTR, every signal handled"
