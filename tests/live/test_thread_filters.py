"""Which threads an ops sees, exact for each of them, and changed while all of them run."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import killer, tracing
from tests.support.build import BuildFailed, build
from tests.support.machine import missing
from tests.support.process import Target, start
from tests.support.state import diff, snapshot, text_hash
from tests.support.unprivileged import Account

from fentry.cli.status import describe
from fentry.dispatch.ops import Flags, Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import BadInput
from fentry.instance import Instance
from fentry.process.proc import children_of, read_status
from fentry.region.layout import Kind, State
from fentry.ring.layout import TID_MASK
from fentry.session import Options, Session, adopt, attach

BIG = Options(buffer_bytes=64 << 20)  # nothing is read while the threads are at work
FUNCTIONS = ("f_one", "f_two")


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    """Four threads w0 to w3, at the gate."""
    with start(build("known.c"), account=account, hold=True) as running:
        yield running


def tid_of(target: Target, name: str) -> int:
    """The tid of a thread of known.c; waits until it has told it."""
    target.await_condition(lambda: target.counters()[f"tid.{name}"] > 0, f"tid of {name}")
    return target.counters()[f"tid.{name}"]


def calls(target: Target) -> Counter[int]:
    """Calls of each of the two functions by tid; exact at the gate."""
    found = target.counters()
    names = [name.removeprefix("tid.") for name in found if name.startswith("tid.")]
    return Counter({found[f"tid.{n}"]: found[f"calls.{n}"] for n in names})


def recorded(ring: Session | Instance) -> Counter[int]:
    """Calls of both functions together by tid, of records not read before."""
    by_tid: Counter[int] = Counter()
    for batch in ring.consume():
        tids, numbers = np.unique(batch.records["word"] & TID_MASK, return_counts=True)
        by_tid.update(dict(zip(tids.tolist(), numbers.tolist(), strict=True)))
    return by_tid


def made_by(made: Counter[int], *tids: int) -> Counter[int]:
    """Both functions' calls of some threads."""
    return Counter({tid: 2 * made[tid] for tid in tids})


def recording(threads: ThreadFilter, *wanted: str) -> Ops:
    """Ops that record calls of some threads."""
    ops = tracing.recording(*(wanted or FUNCTIONS))
    ops.threads = threads
    return ops


def counting(threads: ThreadFilter, *wanted: str) -> Ops:
    """Ops that count calls of some threads."""
    ops = tracing.counting(*(wanted or FUNCTIONS))
    ops.threads = threads
    return ops


def work(target: Target, more: int = 300) -> Counter[int]:
    """Let it run for a while; the calls made meanwhile, by tid."""
    before = calls(target)
    living = before.keys() & set(target.tids())
    target.go()
    target.await_calls("calls.w0", more)
    target.await_condition(
        lambda: all(calls(target)[tid] > before[tid] for tid in living), "every thread at work"
    )
    target.hold()
    return calls(target) - before


def filters(target: Target) -> dict[str, tuple[ThreadFilter, list[str]]]:
    """Kinds of filters, and which threads they see."""
    w = [tid_of(target, f"w{n}") for n in range(4)]
    return {
        "one": (ThreadFilter({w[1]}), ["w1"]),
        "two": (ThreadFilter({w[1], w[3]}), ["w1", "w3"]),
        "not one": (ThreadFilter(notrace_tids={w[0]}), ["w1", "w2", "w3"]),
        "notrace wins": (ThreadFilter({w[0], w[2]}, {w[2]}), ["w0"]),
        "nobody": (ThreadFilter({w[0]}, {w[0]}), []),
        "by name": (ThreadFilter(names=("w[12]", "nobody*")), ["w1", "w2"]),
        "by name or tid": (ThreadFilter({w[3]}, names=("w0",)), ["w0", "w3"]),
        "empty": (ThreadFilter(follow=True), ["w0", "w1", "w2", "w3"]),
    }


KINDS = ["one", "two", "not one", "notrace wins", "nobody", "by name", "by name or tid", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_ops_sees_its_threads_and_no_other(account: Account, target: Target, kind: str) -> None:
    wanted, names = filters(target)[kind]
    tids = [tid_of(target, name) for name in names]
    before = snapshot(target.pid)

    def controller() -> tuple[Counter[int], Counter[int], Counter[str], int]:
        with attach(target.pid, BIG) as session:
            count = session.register(counting(wanted))
            session.register(recording(wanted))
            everyone = session.register(tracing.counting("f_one"))
            made = work(target)
            assert tracing.counted(session, everyone) == {"f_one": made.total()}
            counts = tracing.counted(session, count)
            return made, recorded(session), counts, tracing.dropped(session)

    made, records, counts, dropped = account.run(controller)
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well
    assert all(made[tid_of(target, f"w{n}")] > 0 for n in range(4))
    assert records == made_by(made, *tids)
    assert dropped == 0
    each = sum(made[tid] for tid in tids)
    assert counts == ({name: each for name in FUNCTIONS} if tids else {})


FORMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "static": ("known.c", {"static": True}, "calls.w0"),
    "musl": ("known.c", {"compiler": "musl-gcc"}, "calls.w0"),
    "musl, static": ("known.c", {"compiler": "musl-gcc", "static": True}, "calls.w0"),
    "with all registers checked": ("hot.c", {}, "f_plain"),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_programs_are_filtered_as_well(account: Account, form: str) -> None:
    """The last: registers, flags and vectors across calls that are and are not seen."""
    source, options, counter = FORMS[form]
    try:
        program = build(source, **options)
    except BuildFailed as failed:
        missing(str(failed).partition("\n")[0])
    with start(program, "threads=3", "pause_us=50", account=account, hold=True) as target:
        chosen = workers(target)[1]

        def controller() -> tuple[list[int], int, int]:
            with attach(target.pid, BIG) as session:
                session.register(recording(ThreadFilter({chosen}), "f_*"))
                target.go()
                target.await_calls(counter, 3000)
                target.hold()
                records = recorded(session)
                return list(records), records.total(), tracing.dropped(session)

        tids, records, dropped = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert (tids, dropped) == ([chosen], 0)
    assert records > 0  # how many of the 3,000 are its is for the kernel to say


def test_threads_change_while_all_run_without_a_stop(account: Account, target: Target) -> None:
    w0, w1 = tid_of(target, "w0"), tid_of(target, "w1")

    def controller() -> tuple[list[Counter[int]], Counter[int]]:
        with attach(target.pid, BIG) as session:
            ops = session.register(recording(ThreadFilter({w0})))
            target.go()
            target.await_calls("calls.w0", 300)
            before = len(session.target.stop_durations_ns), text_hash(target.pid), ops.id
            moments = [calls(target)]
            session.set_threads(ops, ThreadFilter({w1}))
            moments.append(calls(target))
            after = len(session.target.stop_durations_ns), text_hash(target.pid), ops.id
            assert before == after
            target.await_calls("calls.w1", 300)
            target.hold()
            moments.append(calls(target))
            return moments, recorded(session)

    (begun, changed, end), records = account.run(controller)
    target.go()
    assert target.stop().is_well
    assert records.keys() == {w0, w1}
    # calls are counted a moment after they are made: ten of each function a round
    assert 2 * begun[w0] <= records[w0] <= 2 * (changed[w0] + 2)
    assert 2 * (end[w1] - changed[w1] - 2) <= records[w1] <= 2 * (end[w1] - begun[w1] + 2)


def test_each_of_many_changes_is_exact(account: Account, target: Target) -> None:
    w = [tid_of(target, f"w{n}") for n in range(4)]
    steps = [
        (ThreadFilter({w[0]}), [0]),
        (ThreadFilter(notrace_tids={w[0]}), [1, 2, 3]),
        (ThreadFilter(), [0, 1, 2, 3]),  # the test is gone
        (ThreadFilter({w[2]}, follow=True), [2]),
        (ThreadFilter(names=("w3",)), [3]),
        (ThreadFilter(), [0, 1, 2, 3]),
        (ThreadFilter({w[1], w[2]}, {w[2]}), [1]),
    ]

    def controller() -> list[tuple[Counter[int], Counter[int], Counter[str], int, set[int]]]:
        seen = []
        with attach(target.pid, BIG) as session:
            record = session.register(recording(ThreadFilter()))
            count = session.register(counting(ThreadFilter(), "f_two"))
            before = tracing.counted(session, count)
            for wanted, _ in steps:
                session.set_threads(record, wanted)
                session.set_threads(count, wanted)
                made = work(target, 50)
                counts = tracing.counted(session, count)
                tables = len(session.region.of_kind(Kind.THREADS))
                rows = session.region.registry.ops
                flags = set(rows["flags"][rows["state"] == State.LIVE].tolist())
                seen.append((made, recorded(session), counts - before, tables, flags))
                before = counts
            assert sorted(session.ops) == [record.id, count.id]
            session.unregister(record)
            session.unregister(count)
        return seen

    before = snapshot(target.pid)
    seen = account.run(controller)
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well
    for (wanted, numbers), (made, records, counts, tables, flags) in zip(steps, seen, strict=True):
        tids = [w[n] for n in numbers]
        assert records == made_by(made, *tids)
        assert counts == {"f_two": sum(made[tid] for tid in tids)}
        assert tables == 2  # tables of ops without a filter are used again
        assert flags == {int(Flags.PID) if wanted else 0}


def test_instances_see_threads_of_their_own(account: Account, target: Target) -> None:
    w = [tid_of(target, f"w{n}") for n in range(4)]

    def controller() -> tuple[Counter[int], list[Counter[int]]]:
        with attach(target.pid, BIG) as session:
            one, two = (session.instance(name, BIG) for name in ("one", "two"))
            one.register(recording(ThreadFilter({w[0]})))
            two.register(recording(ThreadFilter(notrace_tids=w[:2])))
            session.register(recording(ThreadFilter()))
            made = work(target)
            return made, [recorded(each) for each in (one, two, session.top)]

    made, (one, two, everyone) = account.run(controller)
    target.go()
    assert target.stop().is_well
    assert one == made_by(made, w[0])
    assert two == made_by(made, *w[2:])
    assert everyone == made_by(made, *w)


def test_what_is_not_seen_is_not_dropped_by_a_full_ring(account: Account, target: Target) -> None:
    w0 = tid_of(target, "w0")

    def controller() -> tuple[Counter[int], Counter[int], int]:
        with attach(target.pid, Options(buffer_bytes=4096)) as session:
            session.register(recording(ThreadFilter({w0})))
            made = work(target, 1000)
            return made, recorded(session), tracing.dropped(session)

    made, records, dropped = account.run(controller)
    target.go()
    assert target.stop().is_well
    assert records.keys() == {w0}
    assert dropped > 0
    assert records[w0] + dropped == 2 * made[w0]


def test_a_refused_change_leaves_the_old_threads(account: Account, target: Target) -> None:
    w0 = tid_of(target, "w0")

    def controller() -> tuple[Counter[int], Counter[int]]:
        with attach(target.pid, BIG) as session:
            ops = session.register(recording(ThreadFilter({w0})))
            with pytest.raises(BadInput, match=f"{os.getpid()}: no thread of process"):
                session.set_threads(ops, ThreadFilter({w0, os.getpid()}))
            with pytest.raises(BadInput, match="no thread of process"):
                session.register(counting(ThreadFilter(notrace_tids={1})))
            with pytest.raises(BadInput, match="not registered"):
                session.set_threads(counting(ThreadFilter()), ThreadFilter({w0}))
            assert ops.threads == ThreadFilter({w0})
            assert list(session.ops.values()) == [ops]
            return work(target, 50), recorded(session)

    made, records = account.run(controller)
    target.go()
    assert target.stop().is_well
    assert records == made_by(made, w0)


def test_threads_without_tids_are_refused_before_anything_changes(account: Account) -> None:
    with start(build("nolibc.c"), account=account, hold=True) as target:

        def controller() -> set[Kind]:
            with attach(target.pid, tracing.SMALL) as session:
                before, wanted = snapshot(target.pid), ThreadFilter({target.pid})
                for ops in (counting(wanted, "f_raw"), recording(wanted, "f_raw")):
                    with pytest.raises(BadInput, match="cannot be told apart"):
                        session.register(ops)
                assert diff(before, snapshot(target.pid)) == []
                ops = session.register(tracing.counting("f_raw"))
                before = snapshot(target.pid)
                with pytest.raises(BadInput, match="cannot be told apart"):
                    session.set_threads(ops, wanted)
                assert diff(before, snapshot(target.pid)) == []
                assert (list(session.ops.values()), ops.threads) == ([ops], ThreadFilter())
                return {segment.kind for segment in session.region.segments}

        kinds = account.run(controller)
        target.go()
        assert target.stop().code == 0
    assert Kind.THREADS not in kinds


@pytest.mark.parametrize("by_worker", [0, 1])
@pytest.mark.parametrize("follow", [False, True])
def test_new_threads_are_seen_from_their_first_call_with_follow(
    account: Account, follow: bool, by_worker: int
) -> None:
    with start(build("known.c"), f"by_worker={by_worker}", account=account, hold=True) as target:
        w0 = tid_of(target, "w0")

        def controller() -> tuple[Counter[int], Counter[int], Counter[str], list[int]]:
            with attach(target.pid, BIG) as session:
                wanted = ThreadFilter({w0}, follow=follow)
                session.register(recording(wanted))
                count = session.register(counting(wanted, "f_one"))
                before = calls(target)
                target.wish(3)
                target.go()
                target.await_condition(
                    lambda: all(target.counters()[f"calls.x{n}"] > 50 for n in (1, 2, 3)),
                    "new threads at work",
                )
                session.follow_threads()
                target.await_calls("calls.x1", 50)
                target.hold()
                fresh = [tid_of(target, f"x{n}") for n in (1, 2, 3)]
                counts = tracing.counted(session, count)
                return calls(target) - before, recorded(session), counts, fresh

        made, records, counts, fresh = account.run(controller)
        target.wish(0)
        target.go()
        assert target.stop().is_well
    seen = [w0, *fresh] if follow else [w0]
    assert records == made_by(made, *seen)
    assert counts == {"f_one": sum(made[tid] for tid in seen)}
    assert all(made[tid] > 0 for tid in fresh)


def test_threads_are_seen_while_they_have_a_name(account: Account, target: Target) -> None:
    w0, w1 = tid_of(target, "w0"), tid_of(target, "w1")

    def controller() -> list[tuple[Counter[int], Counter[int]]]:
        with attach(target.pid, BIG) as session:
            ops = session.register(recording(ThreadFilter({w0}, names=("ren*", "never"))))
            seen = [(work(target, 50), recorded(session))]
            assert session.unmatched_names(ops) == ["never", "ren*"]
            target.wish(1000)
            target.go()
            target.await_condition(lambda: b"renamed" in names_of(target), "renamed")
            target.hold()
            recorded(session)
            session.follow_threads()
            seen.append((work(target, 50), recorded(session)))
            assert session.unmatched_names(ops) == ["never"]
            return seen

    (first, one), (second, two) = account.run(controller)
    target.go()
    assert target.stop().is_well
    assert one == made_by(first, w0)
    assert two == made_by(second, w0, w1)


LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def workers(target: Target) -> list[int]:
    """All threads but the main one, which need not have the lowest tid."""
    return [tid for tid in target.tids() if tid != target.pid]


def names_of(target: Target) -> set[bytes]:
    """comm of all threads."""
    folder = Path(f"/proc/{target.pid}/task")
    return {(folder / str(tid) / "comm").read_bytes().strip() for tid in target.tids()}


def boot_ticks() -> int:
    """The clock of start times in /proc."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


@contextmanager
def next_tid() -> Iterator[Callable[[int], None]]:
    """A function that makes the kernel give a tid next, if nobody else makes a task meanwhile.

    A process of root does it, for whoever calls.
    """
    if os.getuid() or not os.access(LAST_PID, os.W_OK):
        missing(f"root who may write {LAST_PID}, to choose a tid")
    asking, asked = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(asking[1])
        try:
            while wish := os.read(asking[0], 16):
                LAST_PID.write_text(str(int(wish) - 1))
                os.write(asked[1], b"done")
        finally:
            os._exit(0)

    def choose(tid: int) -> None:
        os.write(asking[1], str(tid).encode())
        assert os.read(asked[0], 4) == b"done"

    try:
        yield choose
    finally:
        for end in (*asking, *asked):
            os.close(end)
        os.waitpid(child, 0)


def make_thread_with_tid(target: Target, tid: int, choose: Callable[[int], None]) -> None:
    """One more thread of known.c, with a tid that nobody has or that becomes free."""
    deadline = time.monotonic() + 40  # somebody's who was quicker, and lives for a while
    for n in count(2):
        target.await_condition(lambda: not Path(f"/proc/{tid}").exists(), f"{tid} free", 40)
        choose(tid)
        target.wish(1)
        if tid_of(target, f"x{n}") == tid:
            return
        target.wish(0)
        target.await_condition(lambda: not target.counters()["made"], "joined")
        assert time.monotonic() < deadline, f"nobody got tid {tid}"


@pytest.mark.parametrize("looks", ["between", "afterwards"])
@pytest.mark.parametrize("kind", ["listed", "notrace", "follow"])
def test_the_next_thread_with_a_tid_is_another_one(
    account: Account, target: Target, kind: str, looks: str
) -> None:
    w0 = tid_of(target, "w0")
    target.wish(1)
    old = tid_of(target, "x1")
    target.hold()
    wanted = {
        "listed": ThreadFilter({w0, old}),
        "notrace": ThreadFilter(notrace_tids={old}),
        "follow": ThreadFilter({w0}, follow=True),
    }[kind]

    def controller(
        choose: Callable[[int], None],
    ) -> tuple[Counter[int], Counter[int], Counter[int], Counter[int]]:
        with attach(target.pid, BIG) as session:
            session.register(recording(wanted))
            first = work(target, 50), recorded(session)
            written = boot_ticks()
            target.wish(0)
            target.go()
            target.await_condition(lambda: old not in target.tids(), "x1 has ended")
            if looks == "between":
                session.follow_threads()
            target.await_condition(lambda: boot_ticks() > written, "the next tick of the clock")
            make_thread_with_tid(target, old, choose)
            target.hold()
            recorded(session)
            session.follow_threads()
            return *first, work(target, 50), recorded(session)

    with next_tid() as choose:
        made, records, made_then, records_then = account.run(controller, choose)
    target.wish(0)
    target.go()
    assert target.stop().is_well
    w = [tid_of(target, f"w{n}") for n in range(4)]
    before = {"listed": [w0, old], "notrace": w, "follow": [w0]}[kind]
    after = {"listed": [w0], "notrace": [*w, old], "follow": [w0, old]}[kind]
    assert records == made_by(made, *before)
    assert made_then[old] > 0
    assert records_then == made_by(made_then, *after)


def test_nobody_is_seen_when_the_last_of_a_list_has_ended(account: Account, target: Target) -> None:
    """An empty list is not the same as none."""
    target.wish(1)
    only = tid_of(target, "x1")
    target.hold()

    def controller() -> tuple[ThreadFilter, Counter[int]]:
        with attach(target.pid, BIG) as session:
            ops = session.register(recording(ThreadFilter({only})))
            made = work(target, 50)
            assert recorded(session) == made_by(made, only)
            target.wish(0)
            target.go()
            target.await_condition(lambda: only not in target.tids(), "x1 has ended")
            session.follow_threads()
            target.hold()
            recorded(session)
            work(target, 50)
            return ops.threads, recorded(session)

    wanted, records = account.run(controller)
    target.go()
    assert target.stop().is_well
    assert wanted == ThreadFilter({only})
    assert records == {}


def test_a_forked_child_stays_silent_whatever_the_filter(account: Account) -> None:
    with start(build("children.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], list[int], int]:
            with attach(target.pid) as session:
                # By its tid the child would be seen: it is not its parent, and it is new.
                everyone = ThreadFilter(notrace_tids={target.pid})
                fresh = ThreadFilter({target.pid}, follow=True)
                session.register(recording(everyone, "f_work"))
                counts = [
                    session.register(counting(wanted, "f_work")) for wanted in (everyone, fresh)
                ]
                target.go()
                target.await_condition(lambda: target.counters()["child"] > 0, "a child")
                target.await_calls("f_child", 50)
                held = target.hold()
                seen = [tracing.counted(session, ops)["f_work"] for ops in counts]
                return held, tracing.recorded(session), seen, tracing.dropped(session)

        held, records, seen, dropped = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert (records, dropped) == ({}, 0)
    assert seen == [0, held["f_work"]]


def test_a_vfork_child_is_its_parents_thread(account: Account) -> None:
    with start(build("vforked.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], list[int]]:
            with attach(target.pid) as session:
                main = session.register(counting(ThreadFilter({target.pid}), "f_hot"))
                other = session.register(counting(ThreadFilter(notrace_tids={target.pid}), "f_hot"))
                before = target.counters()
                target.go()
                target.await_calls("children", 50)
                made = target.hold() - before
                counts = [tracing.counted(session, ops)["f_hot"] for ops in (main, other)]
                return made, counts

        made, (of_main, of_thread) = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert of_main == 10 * made["children"]
    assert of_main + of_thread == made["f_hot"]


def test_an_adopting_controller_keeps_the_threads(account: Account, target: Target) -> None:
    w = [tid_of(target, f"w{n}") for n in range(4)]
    kinds = [
        ThreadFilter({w[0], w[1]}, {w[1]}),
        ThreadFilter({w[3]}, names=("x?",), follow=True),
        ThreadFilter(notrace_tids={w[2]}),
    ]
    before = snapshot(target.pid)

    def first() -> None:
        session = attach(target.pid, BIG)
        gone = session.register(counting(kinds[0]))
        for wanted in kinds:
            session.register(counting(wanted, "f_one"))
        session.register(recording(kinds[0]))
        session.unregister(gone)  # its table belongs to nobody
        os._exit(0)  # as a controller that was killed

    child = os.fork()
    if not child:
        try:
            account.become()
            first()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    made = work(target, 50)

    def second() -> tuple[list[ThreadFilter], Counter[int], list[Counter[str]], Counter[int]]:
        with adopt(target.pid) as session:
            *counts, record = sorted(session.ops.values(), key=lambda ops: ops.id)
            records = recorded(session)
            counted = [tracing.counted(session, ops) for ops in counts]
            found = [ops.threads for ops in (*counts, record)]
            assert len(session.region.of_kind(Kind.THREADS)) == 5
            session.set_threads(record, ThreadFilter({w[2]}))
            session.register(counting(ThreadFilter({w[2]}), "f_two"))
            assert len(session.region.of_kind(Kind.THREADS)) == 5
            made = work(target, 50)
            assert recorded(session) == made_by(made, w[2])
            return found, records, counted, made

    found, records, counted, _ = account.run(second)
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well
    assert found == [*kinds, kinds[0]]
    assert records == made_by(made, w[0])
    sums = [made[w[0]], made[w[3]], made.total() - made[w[2]]]
    assert counted == [{"f_one": number} for number in sums]


def cycle(pid: int, tids: list[int]) -> None:
    """Attach, filter threads in every way, change them, detach."""
    session = attach(pid, tracing.SMALL)
    record = session.register(recording(ThreadFilter({tids[1]}), "f_one"))
    count = session.register(counting(ThreadFilter(names=("w*",), follow=True), "f_two"))
    session.set_threads(record, ThreadFilter(notrace_tids={tids[1]}))
    session.set_threads(count, ThreadFilter())
    session.unregister(record)
    session.close()


def test_the_controller_may_die_anywhere(account: Account) -> None:
    """A sample of the deaths after each system call of a cycle; the sample is another each time."""
    with start(build("known.c"), account=account) as target:
        tids = target.tids()
        before = snapshot(target.pid)
        cycle(target.pid, tids)  # what we have read and built, forked controllers have
        calls = killer.count(cycle, target.pid, tids, account=account)
        stride = calls // 25
        deaths = 0
        while deaths <= 3:  # the cycle that was counted may have made more calls while it waited
            first = 1 + time.time_ns() % stride
            for death in killer.points(
                cycle, target.pid, tids, account=account, first=first, stride=stride
            ):
                deaths += 1
                assert target.is_alive and target.bad == 0, death
                account.run(tracing.detach_as_command, target.pid)
                assert diff(before, snapshot(target.pid)) == [], death
            stride = 1 + stride // 2
        target.await_calls("calls.w3")
        end = target.stop()
    assert end.is_well, end.err


def test_threads_of_another_pid_namespace_are_known_by_their_tids_here(account: Account) -> None:
    words = ["unshare", "-pf" if account.uid == 0 else "-Urpf"]
    if account.run(subprocess.call, [*words, "true"]):
        missing("the right to a pid namespace of one's own")
    with start(words[0], *words[1:], build("known.c"), account=account, hold=True) as target:
        (pid,) = children_of(target.pid)
        tids = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
        inner = [read_status(pid, tid).ns_pid for tid in tids]
        assert inner != tids

        def controller() -> tuple[list[str], Counter[int], Counter[int]]:
            with attach(pid, BIG) as session:
                session.register(recording(ThreadFilter(tids[1:3])))
                count = session.register(counting(ThreadFilter({tids[4]}, follow=True)))
                said = [ops["threads"] for ops in describe(session.target, False)["ops"]]
                made = work(target, 50)
                assert tracing.counted(session, count)["f_one"] == made[inner[4]]
                session.follow_threads()
                return said, made, recorded(session)

        said, made, records = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert records == made_by(made, *inner[1:3])
    assert said == [f"{tids[1]}, {tids[2]}", f"{tids[4]}, new ones"]


MOST_CHANGES = 1000


def test_threads_change_under_fire(account: Account) -> None:
    """Two filters that mean the same, by who is seen and by who is not, in turn, while every
    register is checked: a change may hit one call of a thread, and no more."""
    with start(build("hot.c"), "threads=4", account=account, hold=True) as target:
        chosen, *others = workers(target)
        same = [ThreadFilter({chosen}), ThreadFilter(notrace_tids=others)]

        def controller() -> tuple[Counter[int], int, int, int]:
            with attach(target.pid, BIG) as session:
                record = session.register(recording(same[0], "f_lea"))
                everyone = session.register(counting(ThreadFilter({chosen}), "f_lea"))
                records: Counter[int] = Counter()
                changes = made = 0
                target.go()
                while made < 10 * MOST_CHANGES or changes <= 20:
                    made = tracing.counted(session, everyone)["f_lea"]
                    if changes < MOST_CHANGES:
                        changes += 1
                        session.set_threads(record, same[changes % 2])
                    records += recorded(session)
                target.hold()
                records += recorded(session)
                made = tracing.counted(session, everyone)["f_lea"]
                return records, made, changes, tracing.dropped(session)

        records, made, changes, dropped = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert abs(records[chosen] + dropped - made) <= changes
    assert all(records[tid] <= changes for tid in others)
