"""C functions beside records and counts, with and without thread filters, in sets and on the list:
every call of every thread reaches exactly the ops that want it, and a function is gone only when
nobody comes back to it."""

from __future__ import annotations

import os
import signal
import struct
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from tests.live.test_thread_filters import FUNCTIONS, recorded, tid_of, work
from tests.support import callbacks, killer, tracing
from tests.support.build import build
from tests.support.callbacks import FULL, address_of, calling, words_of
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.cli.status import describe
from fentry.dispatch.list import LIST
from fentry.dispatch.ops import Callback, Flags, Ops
from fentry.dispatch.threads import ThreadFilter
from fentry.region.layout import Kind
from fentry.region.registry import UnfinishedRegistry
from fentry.session import Options, Session, adopt, attach
from fentry.trampolines.native import CFunction

WAYS = ["sets", "list"]
ALL = ThreadFilter()
SUM = CFunction.compile(callbacks.SUM)
SLOW = CFunction.compile(callbacks.SLOW)
REDIRECT = CFunction.compile(callbacks.REDIRECT)
CHANGE = CFunction.compile(callbacks.CHANGE)
DOUBLE = CFunction.compile(callbacks.FIRST_DOUBLE)


def options(dispatch: str) -> Options:
    return Options(buffer_bytes=16 << 20, dispatch=dispatch, max_stop_s=30)


def mixtures() -> Iterator[tuple[int, int, int]]:
    """Every state of three ops that are absent (0), see all threads (1) or some (2); one of them
    changes from each state to the next."""
    for a in (0, 1, 2):
        for b in (0, 1, 2) if a % 2 == 0 else (2, 1, 0):
            for c in (0, 1, 2) if (a + b) % 2 == 0 else (2, 1, 0):
                yield a, b, c


class Three:
    """A record, a count and a C function on both functions of known.c."""

    def __init__(self, session: Session, flags: Flags) -> None:
        self.session = session
        self.state = (0, 0, 0)
        self._flags = flags
        self._ops: list[Ops | None] = [None, None, None]
        self._before = [0, 0]

    def _make(self, kind: int) -> Ops:
        if kind == 0:
            return tracing.recording(*FUNCTIONS)
        return (
            tracing.counting(*FUNCTIONS)
            if kind == 1
            else calling(SUM, *FUNCTIONS, flags=self._flags)
        )

    def become(self, state: tuple[int, int, int], some: ThreadFilter) -> None:
        for kind, (old, new) in enumerate(zip(self.state, state, strict=True)):
            ops = self._ops[kind]
            if old == new:
                continue
            if ops is None:
                ops = self._make(kind)
                ops.threads = some if new == 2 else ALL
                self._ops[kind] = self.session.register(ops)
            elif new == 0:
                self.session.unregister(ops)
                self._ops[kind] = None
            else:
                self.session.set_threads(ops, some if new == 2 else ALL)
        self.state = state

    def seen(self) -> tuple[int, int, int]:
        """Calls that each has seen: of records those not read before."""
        _, count, call = self._ops
        counted = sum(tracing.counted(self.session, count).values()) if count else 0
        called = words_of(self.session, call)[0] if call else 0
        return sum(recorded(self.session).values()), counted, called


@pytest.mark.parametrize(
    ("dispatch", "flags"),
    [("sets", Flags.SAVE_REGS | Flags.RECURSION), ("list", Flags.NONE)],
)
def test_every_mixture_sees_every_call_once(account: Account, dispatch: str, flags: Flags) -> None:
    with start(build("known.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)
        w1, w3 = tid_of(target, "w1"), tid_of(target, "w3")

        def controller() -> list[tuple[tuple[int, int, int], list[int], list[int]]]:
            found = []
            with attach(target.pid, options(dispatch)) as session:
                three = Three(session, flags)
                for state in mixtures():
                    three.become(state, ThreadFilter({w1, w3}))
                    begun = three.seen()
                    made = work(target, 5)
                    ended = three.seen()
                    seen = [ended[0], ended[1] - begun[1], ended[2] - begun[2]]
                    every, some = 2 * made.total(), 2 * (made[w1] + made[w3])
                    found.append((state, seen, [(0, every, some)[one] for one in state]))
                session.detach()
                assert session.parked_bytes == 0
            return found

        found = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert len(found) == 27
    assert [(state, seen) for state, seen, _ in found] == [(s, want) for s, _, want in found]


def test_redirect_and_registers_on_the_list_are_those_of_sets(account: Account) -> None:
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], list[int], bool]:
            with attach(target.pid, options("list")) as session:
                words = (address_of(session, "f_replacement"), 0)
                first = session.register(calling(REDIRECT, "f_victim", flags=FULL, words=words))
                second = session.register(calling(CHANGE, "f_argument", flags=FULL))
                double = session.register(calling(DOUBLE, "f_double", flags=Flags.SAVE_REGS))
                tracer = session.register(calling(SUM, "f_*"))
                clobber = CFunction.compile(callbacks.CLOBBERS["avx"], vectors=True)
                wide = session.register(calling(clobber, "f_*", flags=Flags.RECURSION))
                session.register(tracing.recording("f_*"))
                before = target.counters()
                target.go()
                target.await_calls("f_int", 2000)
                grown = target.hold() - before
                found = [words_of(session, first)[1], words_of(session, second)[0]]
                found += [*words_of(session, double)[:2], words_of(session, tracer)[0]]
                found += [words_of(session, tracer)[2], words_of(session, wide)[0]]
                found.append(tracing.recorded(session).total())
                index = session._known.dispatcher._set_index[LIST]
                called = session._known.dispatcher._current
                return grown, found, set(called[called != 0].tolist()) == {index}

        grown, found, on_list = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert on_list
    victims, arguments = grown["f_victim"], grown["changed.f_argument"]
    assert (grown["changed.f_victim"], grown["original.f_victim"]) == (victims, 0)
    assert grown["original.f_argument"] == 0 < arguments
    names = ("f_int", "f_double", "f_wide", "f_x87", "f_again", "f_victim")
    every = sum(grown[name] for name in names) + arguments + victims  # f_replacement as well
    doubles = grown["f_double"]
    assert found == [victims, arguments, doubles, doubles, every, every, every, every]


def test_nine_callbacks_on_a_function_share_the_list(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> list[tuple[Counter[str], list[int]]]:
            seen = []
            with attach(target.pid, options("sets")) as session:
                every = [session.register(calling(SUM, "f_lea")) for _ in range(9)]
                every.append(session.register(calling(SUM, "f_plain", "f_lea")))
                for gone in (0, 4):
                    for ops in every[:gone]:
                        session.unregister(ops)
                    begun = target.counters()
                    earlier = [words_of(session, ops)[0] for ops in every[gone:]]
                    target.go()
                    target.await_calls("f_plain", 300)
                    made = target.hold() - begun
                    later = [words_of(session, ops)[0] for ops in every[gone:]]
                    seen.append((made, [b - a for a, b in zip(earlier, later, strict=True)]))
            return seen

        (m1, ten), (m2, six) = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert ten == [m1["f_lea"]] * 9 + [m1["f_lea"] + m1["f_plain"]]
    assert six == [m2["f_lea"]] * 5 + [m2["f_lea"] + m2["f_plain"]]


@pytest.mark.parametrize("jump", [0, 1])
def test_signals_and_jumps_out_of_callbacks_on_the_list(account: Account, jump: int) -> None:
    words = callbacks.storm(jump)
    with start(build("sigstorm.c"), *words, account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], tuple[int, ...], int]:
            with attach(target.pid, options("list")) as session:
                ops = session.register(calling(SLOW, "f_main", "f_handler"))
                target.go()
                for _ in range(6):  # versions come and go while calls are away and are left
                    other = session.register(calling(SLOW, "f_main"))
                    goal = target.counters()["signals"] + 200
                    target.await_condition(
                        lambda goal=goal: target.counters()["signals"] >= goal, "signals"
                    )
                    session.unregister(other)
                if jump:
                    target.await_condition(
                        lambda: -np.diff(words_of(session, ops)[:2])[0] > 16, "calls that are left"
                    )
                held = target.hold()
                found = words_of(session, ops)[:2]
                session.detach()
                return held, found, session.parked_bytes

        held, (calls, ended), parked = account.run(controller)
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert parked == 0
    most = held["f_main"] + held["f_handler"]
    assert most - held["jumps"] <= calls <= most
    assert (ended < calls) if jump else (ended == calls)


@pytest.mark.parametrize("dispatch", WAYS)
def test_a_call_that_is_away_keeps_its_code_whatever_its_ops_have_become(
    account: Account, dispatch: str
) -> None:
    waiting = CFunction.compile(callbacks.WAITING)
    with start(build("known.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)
        w = [tid_of(target, f"w{n}") for n in range(4)]

        def controller() -> tuple[list[int], list[int], int]:
            parked = []
            with attach(target.pid, options(dispatch)) as session:
                ops = session.register(calling(waiting, "f_one", words=(0, 0, 0)))
                target.go()
                target.await_condition(lambda: words_of(session, ops)[1] == 4, "four calls away")
                for _ in range(3):  # new ids, trampolines and tables under their feet
                    session.set_threads(ops, ThreadFilter({w[0]}))
                    session.set_threads(ops, ALL)
                    parked.append(session._known.dispatcher.parked_bytes)
                (segment,) = session.region.of_kind(Kind.DATA)
                place = session._known.natives._placed[ops.id].private
                assert segment.address < place < segment.end
                with session.owned() as halt:
                    halt.target.memory.write(place, struct.pack("<Q", 1))
                target.await_condition(lambda: words_of(session, ops)[2] > 400, "all came back")
                target.hold()
                called, ended = words_of(session, ops)[1:]
                session.unregister(ops)
                session.register(tracing.counting("f_two"))
                left = len(session._known.natives.ids) + session._known.natives.parked_bytes
                return parked, [called, ended], left

        parked, (called, ended), left = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert called == ended
    assert left == 0
    assert dispatch == "list" or min(parked) > 0


@pytest.mark.parametrize("dispatch", WAYS)
def test_filtered_callback_is_adopted(account: Account, dispatch: str) -> None:
    with start(build("known.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)
        w1 = tid_of(target, "w1")
        child = os.fork()
        if not child:
            try:
                account.become()
                session = attach(target.pid, options(dispatch))
                ops = session.register(calling(SUM, *FUNCTIONS))
                session.register(tracing.recording("f_two"))
                session.set_threads(ops, ThreadFilter({w1}))
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        first = work(target)

        def controller() -> tuple[Counter[int], list[int], list[object]]:
            with adopt(target.pid, options(dispatch)) as session:
                (ops,) = (one for one in session.ops.values() if one.callback is Callback.CALL)
                shown = describe(session.target, False)["ops"]
                found = [words_of(session, ops)[0]]
                session.set_threads(ops, ALL)
                made = work(target)
                found.append(words_of(session, ops)[0])
                session.unregister(ops)
                session.detach()
                assert session.parked_bytes == 0
                named = [(one["function"], one["threads"]) for one in shown]
                return made, found, named

        second, found, shown = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert found == [2 * first[w1], 2 * first[w1] + 2 * second.total()]
    assert ("callback", str(w1)) in shown


def cycle(pid: int, tid: int) -> None:
    """What is interrupted everywhere."""
    session = attach(pid, options("list"))
    ops = session.register(calling(SUM, *FUNCTIONS))
    session.register(tracing.recording("f_one"))
    session.set_threads(ops, ThreadFilter({tid}))
    session.set_filter(ops, ("f_two",))
    session.set_threads(ops, ALL)
    session.unregister(ops)
    session.close()


def test_controller_dies_after_any_system_call(account: Account) -> None:
    with start(build("known.c"), account=account) as target:
        before = snapshot(target.pid)
        w0 = tid_of(target, "w0")
        cycle(target.pid, w0)
        calls = killer.count(cycle, target.pid, w0, account=account)
        stride = max(1, calls // 6)
        for i, death in enumerate(
            killer.points(cycle, target.pid, w0, account=account, first=11, stride=stride)
        ):
            assert target.is_alive and target.bad == 0, death
            account.run(adopt_and_leave if i % 2 else tracing.detach_as_command, target.pid)
            assert diff(before, snapshot(target.pid)) == [], death
        target.await_calls("calls.w0", 20)
        assert target.stop().is_well


def adopt_and_leave(pid: int) -> None:
    """Go on with what is there, if anything is, change it once, and restore everything."""
    try:
        session = adopt(pid, options("list"))
    except (ProcessLookupError, UnfinishedRegistry):
        tracing.detach_as_command(pid)  # it had not begun
        return
    with session:
        session.register(tracing.counting("f_two"))
