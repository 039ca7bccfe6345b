"""Places taken without a lock prefix: every call once, in the order of its CPU, wherever made; with
a time, and with the per-CPU counter for a clock."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, ChildFailed

from fentry.errors import BadInput
from fentry.instance import Instance
from fentry.process.proc import possible_cpus
from fentry.process.target import cpu_flags
from fentry.ring.layout import MODE_DISCARD, MODE_OVERWRITE
from fentry.session import Options, adopt, attach

CLOCKS = "percpu-counter", "tsc"
COUNTER = Options(buffer_bytes=32 << 20, clock="percpu-counter")
NO_RSEQ = {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}


def taken(instance: Instance) -> list[int]:
    """Records of each part not read before; fails if one is not in its place."""
    found = [0] * instance.ring.nr_cpus
    for batch in instance.consume():
        first, count, times = batch.first, len(batch.records), batch.records["time"]
        if instance.clock == "tsc":
            assert bool((np.diff(times) >= 0).all())
        else:
            assert np.array_equal(times, np.arange(first, first + count))
        found[batch.cpu] += count
    return found


def dropped(instance: Instance) -> int:
    """What the full ring refused."""
    stats = instance.stats
    assert stats is not None and not int((stats.overrun + stats.incomplete).sum())
    return int(stats.dropped_events.sum())


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("record_bytes", [16, 24])
def test_threads_that_change_their_cpu_lose_no_call(
    account: Account, record_bytes: int, clock: str
) -> None:
    options = Options(buffer_bytes=32 << 20, record_bytes=record_bytes, clock=clock)
    with start(build("wander.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[int, int, list[int], int]:
            with attach(target.pid, options) as session:
                session.register(tracing.recording("f_first", "f_second"))
                assert session.top.clock == clock
                target.go()
                target.await_calls("f_first", 100_000)
                held = target.hold()
                seen = taken(session.top)
                return (
                    held["f_first"] + held["f_second"],
                    dropped(session.top),
                    seen,
                    session.nr_cpus,
                )

        made, lost, seen, nr_cpus = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert sum(seen) + lost == made >= 200_000
    assert len(seen) == nr_cpus + 1
    assert seen[-1] == 0  # every thread has rseq


@pytest.mark.parametrize("clock", CLOCKS)
def test_signal_handlers_lose_no_call(account: Account, clock: str) -> None:
    with start(build("sigstorm.c"), account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid, replace(COUNTER, clock=clock)) as session:
                session.register(tracing.recording("f_main", "f_handler"))
                target.go()
                target.await_calls("f_handler", 3000)
                held = target.hold()
                seen = sum(taken(session.top))
                return held["f_main"] + held["f_handler"], seen, dropped(session.top)

        made, seen, lost = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen + lost == made


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("moved", [0, 1])
def test_vfork_children_lose_no_call_beside_a_thread(
    account: Account, moved: int, clock: str
) -> None:
    with start(
        build("vforked.c"), f"moved={moved}", "calls=10", account=account, hold=True
    ) as target:

        def controller() -> tuple[int, int, int, list[int]]:
            with attach(target.pid, replace(COUNTER, clock=clock)) as session:
                session.register(tracing.recording("f_hot"))
                target.go()
                target.await_calls("children", 40)
                held = target.hold()
                seen = taken(session.top)
                return held["f_hot"], held["children"], dropped(session.top), seen

        made, children, lost, seen = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert sum(seen) + lost == made > children * 10
    # A child that was moved is not in the order of the CPU that its parent's rseq area names.
    assert seen[-1] == (children * 10 if moved else 0)


@pytest.mark.parametrize("mode", [MODE_DISCARD, MODE_OVERWRITE], ids=["discard", "overwrite"])
@pytest.mark.parametrize("rseq", [True, False], ids=["rseq", "no rseq"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_calls_of_an_oversubscribed_ring_are_accounted_exactly(
    account: Account, mode: int, rseq: bool, clock: str
) -> None:
    options = Options(buffer_bytes=65536, mode=mode, clock=clock)
    environment = {} if rseq else NO_RSEQ
    program = build("overflow.c")
    with start(program, account=account, hold=True, environment=environment) as target:

        def controller() -> tuple[int, int, int, int, int]:
            with attach(target.pid, options) as session:
                session.register(tracing.recording("f_*"))
                target.go()
                read = 0
                for _ in range(3):  # a reader that is much too slow
                    target.await_calls("f_busy", 100_000)
                    read += tracing.recorded(session).total()
                held = target.hold()["f_busy"]
                read += tracing.recorded(session).total()
                stats = session.stats
                assert stats is not None
                return (
                    held, read, int(stats.dropped_events.sum()),
                    int((stats.overrun + stats.incomplete).sum()), session.ring.nr_cpus,
                )  # fmt: skip

        held, read, lost, forgotten, parts = account.run(controller)
        target.go()
        end = target.stop()
    assert read + lost + forgotten == held >= 300_000
    assert lost > 0 if mode == MODE_DISCARD else lost == 0
    assert forgotten > 0 if mode == MODE_OVERWRITE else forgotten == 0
    assert parts == possible_cpus() + rseq  # without rseq each CPU's own, with a lock prefix
    assert end.is_well, end.err


def test_instances_of_one_session_have_their_own_clocks(account: Account) -> None:
    with start(build("wander.c"), "threads=3", account=account, hold=True) as target:

        def controller() -> tuple[int, list[tuple[str, int]], list[bool], str]:
            with attach(target.pid, Options(buffer_bytes=32 << 20)) as session:
                counter = session.instance("counter", clock="percpu-counter")
                narrow = session.instance("narrow", Options(32 << 20, record_bytes=16), clock="tsc")
                with pytest.raises(BadInput, match="'local' is no clock"):
                    session.instance("other", clock="local")
                for one in (session.top, counter, narrow):
                    one.register(tracing.recording("f_first"))
                target.go()
                target.await_calls("f_first", 20_000)
                held = target.hold()["f_first"]
                seen, is_count = [], []
                for one in (session.top, counter, narrow):
                    batches = [(b.first, b.records.copy()) for b in one.consume()]
                    seen.append((one.clock, sum(len(r) for _, r in batches) + dropped(one)))
                    is_count.append(all(r["time"][0] == first for first, r in batches))
                return held, seen, is_count, tracing.status_as_command(target.pid)

        held, seen, is_count, shown = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen == [("tsc", held), ("percpu-counter", held), ("tsc", held)]
    assert is_count == [False, True, False]
    rings = [line for line in shown.splitlines() if line.startswith("  ring")]
    assert [line.endswith(" dropped, clock percpu-counter") for line in rings] == [
        False,
        True,
        False,
    ]


def test_a_ring_without_times_goes_on_with_another_controller(account: Account) -> None:
    with start(build("wander.c"), "threads=2", account=account, hold=True) as target:

        def trace_and_die() -> None:
            session = attach(target.pid, COUNTER)
            session.register(tracing.recording("f_first"))
            target.go()
            target.await_calls("f_first", 1000)
            target.hold()
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(ChildFailed):
            account.run(trace_and_die)

        def go_on() -> tuple[str, int, int]:
            with adopt(target.pid) as session:
                target.go()
                target.await_calls("f_first", 1000)
                made = target.hold()["f_first"]
                return session.top.clock, made, sum(taken(session.top)) + dropped(session.top)

        clock, made, seen = account.run(go_on)
        target.go()
        assert target.stop().is_well
    assert clock == "percpu-counter"
    assert seen == made


# The command line


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def test_a_command_is_recorded_in_the_order_of_its_cpu(account: Account, folder: Path) -> None:
    trace = folder / "t"
    done = fentry(
        account, "record", "-F", "f_first", "-F", "f_second", "--clock", "percpu-counter",
        "-o", trace, "--", build("turns.c"),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "10000 events, 0 dropped" in done.err

    text = fentry(account, "report", "-i", trace)
    assert "# clock: percpu-counter (" in text.out
    lines = [line for line in text.out.splitlines() if line[0] != "#"]
    found = [line.split(".....")[1] for line in lines]
    assert found == [f" {i:12}: {'f_second' if i % 2 else 'f_first'} <-main" for i in range(10_000)]
    assert "10000 of 10000 events (clock percpu-counter), 0 dropped, no damage\n" in text.err
    assert "order within each CPU only, no times" in text.err

    values = fentry(account, "report", "-i", trace, "--json", "--head", "2")
    rows = [json.loads(line) for line in values.out.splitlines()]
    assert [(row["count"], row["function"]) for row in rows] == [(0, "f_first"), (1, "f_second")]
    assert "time_ns" not in rows[0]


def test_recording_says_that_a_process_has_no_rseq(account: Account, folder: Path) -> None:
    arguments = "-F", "f_first", "--clock", "percpu-counter", "-d", "50ms", "-o", folder / "t"
    for environment, said in (({}, False), (NO_RSEQ, True)):
        with start(build("wander.c"), account=account, environment=environment) as target:
            done = fentry(account, "record", "-p", target.pid, *arguments)
            assert target.stop().is_well
        assert done.code == 0, done.err
        assert (f"process {target.pid} has no rseq: its per-CPU counters" in done.err) is said


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_thread_that_is_just_being_born_costs_the_others_nothing(
    account: Account, clock: str
) -> None:
    with start(build("newborn.c"), account=account, hold=True) as target:

        def controller() -> tuple[bool, int, int, int]:
            with attach(target.pid, replace(COUNTER, clock=clock)) as session:
                has_rseq = session._known.traits.rseq_offset is not None
                count = session.register(tracing.counting("f_born"))
                session.register(tracing.recording("f_born"))
                target.go()
                target.await_calls("f_born", 100_000)
                made, seen = target.hold()["f_born"], sum(taken(session.top))
                counted = tracing.counted(session, count)["f_born"]
                return has_rseq, made, counted, seen + dropped(session.top)

        has_rseq, made, counted, seen = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert has_rseq == ("rdpid" in cpu_flags())
    assert made == counted == seen
