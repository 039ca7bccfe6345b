"""Faults that a critical reading proved where several controllers meet C functions, the list,
breakpoints of others, and stops that come too late."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support import callbacks, tracing
from tests.support.build import build
from tests.support.callbacks import calling, words_of
from tests.support.process import Target, start
from tests.support.stepping import stop_at
from tests.support.unprivileged import Account

from fentry.dispatch.apply import Dispatcher
from fentry.dispatch.ops import Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import LockError, PatchError, StopTimeout
from fentry.process.target import Target as Traced
from fentry.region.layout import Kind, State
from fentry.region.lists import read_list
from fentry.region.region import Region
from fentry.session import Options, Session, attach, leaving
from fentry.trampolines.native import CFunction

SMALL = Options(buffer_bytes=16 << 20)
LISTED = Options(buffer_bytes=16 << 20, dispatch="list")
SUM = CFunction.compile(callbacks.SUM)
BREAKPOINT = b"\xcc"


def worker(target: Target) -> int:
    """The thread of hot.c that calls its functions, if it is one."""
    (tid,) = [one for one in target.tids() if one != target.pid]
    return tid


def patch_of(session: Session, name: str) -> int:
    """Where the text of a function is replaced."""
    table = session.functions.table
    names = tracing.names_of(session, table.ip.tolist())
    return int(table.patch[names.index(name)])


def calls_until(target: Target, more: int = 100) -> Counter[str]:
    """The calls that the program makes in a while, from gate to gate."""
    before = target.counters()
    target.go()
    target.await_calls("f_plain", more)
    return target.hold() - before


def meanwhile(session: Session, step: Callable[[], object]) -> None:
    """Let `step` happen when the next change of a session is planned, and not yet made."""
    apply, dispatcher = Dispatcher.apply, session._known.dispatcher

    def late(self: Dispatcher, *arguments: Any, **named: Any) -> int:
        if self is dispatcher:
            Dispatcher.apply = apply  # type: ignore[method-assign]
            step()
        return apply(self, *arguments, **named)

    Dispatcher.apply = late  # type: ignore[method-assign]


def test_two_that_register_at_once_do_not_take_one_row(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:

        def controller() -> tuple[list[int], Counter[str], Counter[str]]:
            with attach(target.pid, SMALL) as one, attach(target.pid, SMALL) as two:
                theirs = tracing.counting("f_nop5")
                meanwhile(one, lambda: two.register(theirs))
                own = one.register(tracing.counting("f_lea"))
                rows = one.region.registry.ops
                owners = sorted(rows["owner"][rows["state"] == State.LIVE].tolist())
                two.register(tracing.counting("f_frame"))
                one.register(tracing.counting("f_pushes"))
                held = calls_until(target)
                counts = tracing.counted(one, own) + tracing.counted(two, theirs)
                return owners, held, counts

        owners, held, counts = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert owners == [1, 2]
    assert counts == {name: held[name] for name in ("f_lea", "f_nop5")}


def test_threads_of_a_c_function_are_set_after_a_change_by_another(account: Account) -> None:
    with start(build("hot.c"), "threads=1", account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid, SMALL) as one, attach(target.pid, SMALL) as two:
                ops = one.register(calling(SUM, "f_lea"))
                two.register(tracing.counting("f_nop5"))
                one.set_threads(ops, ThreadFilter(notrace_tids=frozenset([worker(target)])))
                calls_until(target)
                unseen = words_of(one, ops)[0]
                two.register(tracing.counting("f_frame"))
                one.set_threads(ops, ThreadFilter())
                held = calls_until(target)
                return unseen, words_of(one, ops)[0], held["f_lea"]

        unseen, seen, made = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert unseen == 0
    assert seen == made > 0


def test_a_c_function_stays_while_a_thread_is_in_an_old_list_that_calls_it(
    account: Account,
) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=50", account=account) as target:

        def controller() -> None:
            with attach(target.pid, LISTED) as one, attach(target.pid, LISTED) as two:
                one.register(tracing.counting("f_nop5"))
                ops = one.register(calling(SUM, "f_lea"))
                memory, (trampoline,) = one.target.memory, one._known.dispatcher.trampolines.lists
                entries = read_list(memory, memory.read_u64(trampoline.section))
                stop_at(worker(target), next(e.body for e in entries if e.id == ops.id))
                number = ops.id
                one.unregister(ops)
                two.register(tracing.counting("f_frame"))
                one.register(tracing.counting("f_pushes"))
                assert number in one._known.natives.ids
                os.kill(target.pid, signal.SIGCONT)
                target.await_calls("f_plain", 50)
                one.register(tracing.counting("f_lea"))
                assert number not in one._known.natives.ids  # the thread has left it

        account.run(controller)
        assert target.stop().is_well


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_ring_stays_while_a_call_into_it_is_under_a_breakpoint(
    account: Account, is_noticed: bool
) -> None:
    with start(build("hot.c"), "threads=1", account=account, hold=True) as target:

        def controller() -> tuple[list[int], int, int]:
            leaving._LEAVE_LIMIT_S = 0.2
            one, two = attach(target.pid, SMALL), attach(target.pid, SMALL)
            one.register(tracing.recording("f_lea", "f_nop5"))
            place = patch_of(one, "f_lea")
            first = two.target.memory.read(place, 1)
            two.target.memory.write(place, BREAKPOINT)
            if is_noticed:
                two.register(tracing.counting("f_frame"))
            one.close()
            two.target.memory.write(place, first)
            calls_until(target)
            two.close()
            return list(one.foreign), place, two.parked_bytes

        foreign, place, parked = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert foreign == [] if is_noticed else [place]
    assert parked == 0


def test_the_number_of_one_whose_code_still_counts_is_nobody_elses(account: Account) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=50", account=account) as target:

        def controller() -> tuple[list[int], Counter[str]]:
            leaving._LEAVE_LIMIT_S = 0.2
            one = attach(target.pid, SMALL)
            with attach(target.pid, SMALL) as two:
                two.register(tracing.counting("f_plain"))
                ops = one.register(tracing.counting("f_lea"))
                live = one._known.dispatcher.trampolines.live
                code = next(t.address for (chosen, _), t in live.items() if chosen == (ops.id,))
                stop_at(worker(target), code)
                one.close()
                with attach(target.pid, SMALL) as three:
                    count = three.register(tracing.counting("f_nop5"))
                    target.control.hold()
                    os.kill(target.pid, signal.SIGCONT)
                    target.hold()
                    seen = tracing.counted(three, count)
                    numbers = [s._place.owner.number for s in (one, two, three)]
                    target.go()
                return numbers, seen

        numbers, seen = account.run(controller)
        assert target.stop().is_well
    assert numbers == [1, 2, 3]
    assert seen["f_lea"] == 0


@contextmanager
def no_stop_after(kind: Kind) -> Iterator[None]:
    """From when a segment of this kind is mapped, every further stop comes too late."""
    add, stopped, is_there = Region.add, Traced.stopped, []

    def adding(self: Region, remote: Any, what: Kind, *arguments: Any, **named: Any) -> Any:
        segment = add(self, remote, what, *arguments, **named)
        if what is kind:
            is_there.append(segment)
        return segment

    def stopping(self: Traced, **named: Any) -> Any:
        if is_there and self._held is None:
            raise StopTimeout("as if a thread did not stop in time")
        return stopped(self, **named)

    Region.add, Traced.stopped = adding, stopping  # type: ignore[method-assign]
    try:
        yield
    finally:
        Region.add, Traced.stopped = add, stopped  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("kind", "make"), [(Kind.RING, tracing.recording), (Kind.COUNTERS, tracing.counting)]
)
def test_a_stop_that_fails_leaves_no_second_ring_or_counters(
    account: Account, kind: Kind, make: Callable[[str], Ops]
) -> None:
    with start(build("hot.c"), account=account, hold=True) as target:

        def controller() -> tuple[int, Counter[str], int]:
            with attach(target.pid, SMALL) as one, attach(target.pid, SMALL) as two:
                with no_stop_after(kind), pytest.raises(StopTimeout):
                    one.register(make("f_lea"))
                one.register(make("f_lea"))
                count = two.register(tracing.counting("f_lea"))
                held = calls_until(target, 5)
                own = [s for s in one.region.of_kind(kind) if s.owner == one._place.owner.number]
                return len(own), tracing.counted(two, count), held["f_lea"]

        own, counts, made = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert own == 1
    assert counts == {"f_lea": made}


def test_a_library_that_comes_while_a_c_function_is_placed_is_no_error(account: Account) -> None:
    library = f"library={build('libdso.c')}"
    with start(build("dso.c"), library, "keep=1", account=account, hold=True) as target:

        def controller() -> tuple[list[str], int, int]:
            with attach(target.pid, SMALL) as one, attach(target.pid, SMALL) as two:
                place = one._memory.place_function

                def late(ops: Ops) -> None:
                    target.go()
                    target.await_condition(lambda: bool(two.follow_modules()), "library loaded")
                    two.register(tracing.counting("f_library"))
                    target.hold()
                    place(ops)

                one._memory.place_function = late  # type: ignore[method-assign]
                one.register(calling(SUM, "main"))
                del one._memory.place_function
                ops = one.register(calling(SUM, "f_library"))
                target.go()
                before = target.hold()["f_library"] - words_of(one, ops)[0]
                target.go()
                target.await_calls("f_library", 100)
                after = target.hold()["f_library"] - words_of(one, ops)[0]
                (first, _) = one.ops.values()
                ips = one.functions.table.ip[first.members].tolist()
                return tracing.names_of(one, ips), before, after

        names, before, after = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert names == ["main"]
    assert before == after


def test_ops_of_one_that_left_are_registered_by_another(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str]]:
            ops = tracing.recording("f_lea")
            with attach(target.pid, SMALL) as first:
                first.register(tracing.counting("f_plain"))
                with attach(target.pid, SMALL) as second:  # its top instance has another number
                    second.register(ops)
            with attach(target.pid, SMALL) as third:
                third.register(ops)
                calls = calls_until(target)
                return calls, tracing.recorded(third)

        calls, seen = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen == Counter({"f_lea": calls["f_lea"]})


def test_nothing_is_switched_off_under_one_that_joins_at_that_moment(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:

        def controller() -> tuple[bool, Counter[str], Counter[str], Counter[str]]:
            with attach(target.pid, SMALL) as one:
                own = one.register(tracing.counting("f_lea"))
                joined: list[tuple[Session, Ops]] = []

                def join() -> None:
                    two = attach(target.pid, SMALL)
                    joined.append((two, two.register(tracing.counting("f_plain"))))

                meanwhile(one, join)
                with pytest.raises(LockError):
                    one.enabled = False
                calls = calls_until(target)
                two, theirs = joined[0]
                found = tracing.counted(one, own), tracing.counted(two, theirs)
                two.close()
                return one.enabled, calls, *found

        enabled, calls, first, second = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert enabled
    assert first == Counter({"f_lea": calls["f_lea"]})
    assert second == Counter({"f_plain": calls["f_plain"]})


def test_a_call_of_the_list_under_a_breakpoint_is_not_forgotten(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:

        def controller() -> tuple[str, Counter[str], Counter[str], Counter[str]]:
            with attach(target.pid, LISTED) as one, attach(target.pid, LISTED) as two:
                two.register(tracing.counting("f_plain"))
                one.register(tracing.recording("f_lea", "f_nop5"))
                place = patch_of(one, "f_lea")
                first = two.target.memory.read(place, 1)
                two.target.memory.write(place, BREAKPOINT)
                with pytest.raises(PatchError) as refused:  # it reads the text: f_lea calls nothing
                    two.register(tracing.counting("f_frame"))
                two.target.memory.write(place, first)
                later = two.register(tracing.counting("f_frame"))
                calls = calls_until(target)
                seen, counts = tracing.recorded(one), tracing.counted(two, later)
                return refused.value.cause, calls, seen, counts

        cause, calls, seen, counts = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert cause == "another tool's bytes cover 1 functions that call it"
    assert seen == Counter({name: calls[name] for name in ("f_lea", "f_nop5")})
    assert counts == Counter({"f_frame": calls["f_frame"]})
