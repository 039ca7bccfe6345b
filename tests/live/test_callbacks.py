"""C functions as callbacks: what they see, what they may change, and that nobody notices them."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections import Counter

import numpy as np
import pytest
from tests.live.test_dlopen import followed
from tests.support import callbacks, killer, tracing
from tests.support.build import build
from tests.support.callbacks import FULL, address_of, calling, words_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot, text_hash
from tests.support.unprivileged import Account

from fentry.dispatch.ops import Flags
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import BadInput, PatchError
from fentry.process.maps import read_maps
from fentry.process.memory import Memory
from fentry.region.layout import Kind
from fentry.session import Options, Session, adopt, attach
from fentry.trampolines.native import CFunction

CALLED = ("f_int", "f_double", "f_wide", "f_x87", "f_again", "f_victim")
SUM = CFunction.compile(callbacks.SUM)
PATIENT = Options(max_stop_s=30)  # on a busy machine eight busy threads stand for long


def held_apart(target: Target, session: Session, goal: int = 2000) -> Counter[str]:
    """Let the target make `goal` rounds and hold it again; what its counters grew by."""
    before = target.counters()
    target.go()
    target.await_calls("f_int", goal)
    after = target.hold()
    return Counter({name: after[name] - before[name] for name in after})


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.SAVE_REGS, Flags.RECURSION])
def test_callback_reads_arguments_and_counts_every_call(account: Account, flags: Flags) -> None:
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], tuple[int, ...]]:
            with attach(target.pid) as session:
                ops = session.register(calling(SUM, "f_int", flags=flags))
                grown = held_apart(target, session)
                return grown, words_of(session, ops)

        grown, words = account.run(controller)
        target.go()
        end = target.stop()
    calls = grown["f_int"]
    assert words[:2] == (calls, 2 * calls)  # the second argument is always 2
    assert words[2] == calls
    assert end.is_well, end.err


def test_callback_reads_a_double_with_save_regs(account: Account) -> None:
    function = CFunction.compile(callbacks.FIRST_DOUBLE)
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], tuple[int, ...]]:
            with attach(target.pid) as session:
                ops = session.register(calling(function, "f_double", flags=Flags.SAVE_REGS))
                grown = held_apart(target, session)
                return grown, words_of(session, ops)

        grown, words = account.run(controller)
        target.go()
        end = target.stop()
    assert words[:2] == (grown["f_double"], grown["f_double"])  # all of them 2.5
    assert end.is_well, end.err


@pytest.mark.parametrize("state", callbacks.CLOBBERS)
def test_callback_that_changes_every_vector_register_is_not_noticed(
    account: Account, state: str
) -> None:
    function = CFunction.compile(callbacks.CLOBBERS[state], vectors=True)
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], tuple[int, ...]]:
            with attach(target.pid) as session:
                ops = session.register(calling(function, *CALLED, flags=Flags.SAVE_REGS))
                grown = held_apart(target, session)
                return grown, words_of(session, ops)

        grown, words = account.run(controller)
        target.go()
        end = target.stop()
    assert words[0] == sum(grown[name] for name in CALLED)
    assert end.is_well, end.err


@pytest.mark.parametrize("way", ["xsave", "fxsave"])
def test_older_ways_to_save_x87_and_vectors_are_not_noticed_either(
    account: Account, way: str
) -> None:
    function = CFunction.compile(callbacks.CLOBBERS["x87"], vectors=True)  # no wide registers
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], tuple[int, ...]]:
            with attach(target.pid) as session:
                traits = dataclasses.replace(session._known.traits, xsavec=False)
                if way == "fxsave":
                    traits = dataclasses.replace(traits, xstate_mask=0)
                session._known.traits = session._known.dispatcher._traits = traits
                ops = session.register(calling(function, *CALLED, flags=Flags.SAVE_REGS))
                grown = held_apart(target, session)
                return grown, words_of(session, ops)

        grown, words = account.run(controller)
        target.go()
        end = target.stop()
    assert words[0] == sum(grown[name] for name in CALLED)
    assert end.is_well, end.err


@pytest.mark.parametrize("state", callbacks.CLOBBERS)
def test_all_registers_and_flags_are_intact_at_functions_of_every_shape(
    account: Account, state: str
) -> None:
    function = CFunction.compile(callbacks.CLOBBERS[state], vectors=True)
    with start(build("hot.c"), "threads=2", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], int]:
            with attach(target.pid) as session:
                counts = session.register(tracing.counting("f_*"))
                ops = session.register(calling(function, "f_*", flags=Flags.SAVE_REGS))
                session.register(tracing.recording("f_*"))
                before = target.counters()
                target.go()
                target.await_calls("f_plain", 2000)
                after = target.hold()
                grown = Counter({n: after[n] - before[n] for n in after if after[n] > before[n]})
                return grown, tracing.counted(session, counts), words_of(session, ops)[0]

        grown, counts, calls = account.run(controller)
        target.go()
        end = target.stop()
    assert calls == sum(counts.values())
    assert counts["f_plain"] == grown["f_plain"] >= 2000
    assert end.is_well, end.err


def test_function_is_redirected_and_comes_back(account: Account) -> None:
    function = CFunction.compile(callbacks.REDIRECT)
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> list[Counter[str]]:
            with attach(target.pid) as session:
                words = (address_of(session, "f_replacement"), 0)
                tracer = session.register(calling(SUM, "f_victim", "f_replacement"))
                ops = session.register(calling(function, "f_victim", flags=FULL, words=words))
                during = held_apart(target, session)
                assert words_of(session, ops)[1] == during["f_victim"]
                assert words_of(session, tracer)[0] == 2 * during["f_victim"]
                session.unregister(ops)
                return [during, held_apart(target, session)]

        during, after = account.run(controller)
        target.go()
        end = target.stop()
    assert during["changed.f_victim"] == during["f_victim"] > 0
    assert during["original.f_victim"] == 0
    assert after["original.f_victim"] == after["f_victim"] > 0
    assert end.is_well, end.err


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.SAVE_REGS, FULL])
def test_changed_argument_counts_only_with_ipmodify(account: Account, flags: Flags) -> None:
    function = CFunction.compile(callbacks.CHANGE)
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], int]:
            with attach(target.pid) as session:
                ops = session.register(calling(function, "f_argument", flags=flags))
                grown = held_apart(target, session)
                return grown, words_of(session, ops)[0]

        grown, calls = account.run(controller)
        target.go()
        end = target.stop()
    calls_of = {"changed.f_argument": 0, "original.f_argument": calls}
    if flags == FULL:
        calls_of = {"changed.f_argument": calls, "original.f_argument": 0}
    assert calls > 0
    assert {name: grown[name] for name in calls_of} == calls_of
    assert end.is_well, end.err


def test_second_redirector_is_refused_and_everything_is_as_before(account: Account) -> None:
    function = CFunction.compile(callbacks.REDIRECT)
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[str, int, bool, Counter[str]]:
            with attach(target.pid) as session:
                words = (address_of(session, "f_replacement"), 0)
                first = calling(function, "f_victim", flags=FULL, words=words)
                second = calling(function, "f_v*", "f_int", flags=FULL, words=words)
                session.register(first)
                places = [address_of(session, name) for name in ("f_victim", "f_int")]
                memory = Memory(target.pid)
                before = [memory.read(place, 16) for place in places]
                with pytest.raises(PatchError) as refused:
                    session.register(second)
                same = before == [memory.read(place, 16) for place in places]
                memory.close()
                live = len(session.region.registry.ops[session.region.registry.ops["state"] == 2])
                assert second.id == 0 and list(session.ops) == [first.id]
                return refused.value.what, live, same, held_apart(target, session)

        what, live, same, grown = account.run(controller)
        target.go()
        end = target.stop()
    assert what == "f_victim is redirected already, and 0 more functions"
    assert live == 1
    assert same
    assert grown["changed.f_victim"] == grown["f_victim"] > 0
    assert end.is_well, end.err


def test_callback_that_calls_what_it_traces_is_called_twice_and_not_again(
    account: Account,
) -> None:
    function = CFunction.compile(callbacks.CALL_BACK)
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid) as session:
                words = (address_of(session, "f_again"), 0)
                with pytest.raises(BadInput, match="has no guard"):
                    session.register(calling(function, "f_again", words=words))
                ops = calling(function, "f_again", flags=Flags.RECURSION, words=words)
                session.register(ops)
                grown = held_apart(target, session)
                return grown["f_again"], words_of(session, ops)[1], session.skipped(ops)

        calls, called, skipped = account.run(controller)
        target.go()
        end = target.stop()
    assert (called, skipped) == (2 * calls, calls)
    assert calls > 0
    assert end.is_well, end.err


@pytest.mark.parametrize("jump", [0, 1])
@pytest.mark.parametrize("flags", [Flags.NONE, Flags.SAVE_REGS | Flags.RECURSION])
def test_signals_during_callbacks_call_them_again(
    account: Account, flags: Flags, jump: int
) -> None:
    slow = CFunction.compile(callbacks.SLOW)
    words = callbacks.storm(jump)
    with start(build("sigstorm.c"), *words, account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], int, int, int, int]:
            with attach(target.pid) as session:
                ops = session.register(calling(slow, "f_main", "f_handler", flags=flags))
                target.go()
                goal = target.counters()["signals"] + 2000
                target.await_condition(lambda: target.counters()["signals"] >= goal, "signals")
                if jump:  # more than those under way just now: one for each frame of each thread
                    target.await_condition(
                        lambda: -np.diff(words_of(session, ops)[:2])[0] > 16, "calls that are left"
                    )
                held = target.hold()
                found = *words_of(session, ops)[:2], session.skipped(ops)
                session.detach()
                return held, *found, session.parked_bytes

        held, calls, ended, skipped, parked = account.run(controller)
        target.go()
        end = target.stop()
    assert held["f_handler"] > 1000
    assert parked == 0  # though calls that a jump has left are still counted as under way
    most = held["f_main"] + held["f_handler"]
    assert most - held["jumps"] <= calls + skipped <= most
    if jump:
        assert ended < calls  # some were left in the middle
    else:
        assert (ended, skipped) == (calls, 0)
    assert end.is_well, end.err


def test_threads_cancelled_during_callbacks_clean_up(account: Account) -> None:
    function = CFunction.compile(callbacks.SLOW)
    with start(build("cancel.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], tuple[int, ...], int]:
            with attach(target.pid) as session:
                ops = session.register(calling(function, "f_cancelled"))
                target.go()
                target.await_condition(lambda: target.counters()["cancels"] >= 100, "cancels")
                held, words = target.hold(), words_of(session, ops)
                session.detach()
                return held, words, session.parked_bytes

        held, words, parked = account.run(controller)
        target.go()
        end = target.stop()
    assert held["f_cancelled"] <= words[1] <= words[0] <= held["begun"]
    assert parked == 0
    assert end.counters["cleanups"] == end.counters["cancels"] >= 100
    assert end.is_well, end.err


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.SAVE_REGS | Flags.RECURSION])
def test_registered_and_unregistered_under_fire_of_eight_threads(
    account: Account, flags: Flags
) -> None:
    with start(build("hot.c"), "threads=8", account=account) as target:

        def controller() -> int:
            with attach(target.pid, PATIENT) as session:
                called = 0
                for round in range(12):
                    other = tracing.counting("f_*nop*", "f_frame")
                    if round % 2:
                        session.register(other)
                    ops = session.register(calling(SUM, "f_*", flags=flags))
                    target.await_calls("f_plain", 10)
                    called += words_of(session, ops)[0] > 0
                    session.unregister(ops)
                    if round % 2:
                        session.unregister(other)
                session.detach()
                assert session.parked_bytes == 0
                return called

        called = account.run(controller)
        end = target.stop()
    assert called == 12
    assert end.is_well, end.err


def test_memory_of_functions_is_given_back(account: Account) -> None:
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> tuple[list[int], int]:
            with attach(target.pid) as session:
                sizes = []
                for _ in range(5):
                    ops = session.register(calling(SUM, "f_*"))
                    session.unregister(ops)
                    data = [s for s in session.region.segments if s.kind.name == "DATA"]
                    sizes.append(len(data))
                used = sum(s.used for s in session.region.segments if s.kind.name == "CODE")
                return sizes, used

        sizes, used = account.run(controller)
        target.go()
        end = target.stop()
    assert sizes == [1, 2, 2, 2, 2]  # the next one comes before the last one can go
    assert used < 4096
    assert end.is_well, end.err


def test_controller_that_comes_later_adopts_callbacks(account: Account) -> None:
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def leave() -> int:
            session = attach(target.pid)
            return session.register(calling(SUM, "f_int", flags=Flags.RECURSION)).id

        def controller() -> tuple[Counter[str], int, Flags, Counter[str]]:
            with adopt(target.pid) as session:
                (ops,) = session.ops.values()
                grown = held_apart(target, session)
                calls = words_of(session, ops)[0]
                counts = session.register(tracing.counting("f_int"))  # a new trampoline for both
                more = held_apart(target, session)
                assert tracing.counted(session, counts)["f_int"] == more["f_int"]
                assert words_of(session, ops)[0] == calls + more["f_int"]
                return grown, calls, ops.flags, more

        account.run(leave)
        grown, calls, flags, _ = account.run(controller)
        target.go()
        end = target.stop()
    assert calls == grown["f_int"] > 0
    assert flags == Flags.RECURSION
    assert end.is_well, end.err


def test_adopted_callback_is_there_after_all_was_switched_off_and_on(account: Account) -> None:
    """While nothing calls it nobody takes its function for one that is to be freed."""
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def leave() -> int:
            return attach(target.pid).register(calling(SUM, "f_int")).id

        def controller() -> tuple[int, int]:
            with adopt(target.pid) as session:
                (ops,) = session.ops.values()
                session.enabled = False
                for _ in range(2):  # what is called no more; then what only that has called
                    with session.owned() as halt:
                        session._known.dispatcher.free_parked(halt)
                session.enabled = True
                before = words_of(session, ops)[0]
                grown = held_apart(target, session)
                return words_of(session, ops)[0] - before, grown["f_int"]

        account.run(leave)
        seen, made = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen == made > 0


def test_callback_is_there_where_its_ops_could_not_get_another_id(account: Account) -> None:
    """Another controller gets in between, nothing calls it meanwhile, and then the change fails."""
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> int:
            with attach(target.pid) as session:
                ops = session.register(calling(SUM, "f_int"))
                session.enabled = False
                known, number = session._known, ops.id

                def fail(**_: object) -> None:
                    known.read()
                    for _ in range(2):
                        with session.owned() as halt:
                            known.dispatcher.free_parked(halt)
                    raise PatchError("no")

                session._transaction.apply = fail  # type: ignore[method-assign]
                with pytest.raises(PatchError, match="no"):
                    session.set_threads(ops, ThreadFilter(notrace_tids=frozenset({target.pid})))
                del session._transaction.apply  # type: ignore[method-assign]
                assert (ops.id, session.ops) == (number, {number: ops})
                session.enabled = True
                before = words_of(session, ops)[0]
                grown = held_apart(target, session)
                return words_of(session, ops)[0] - before - grown["f_int"]

        missed = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert missed == 0


def test_function_that_runs_is_kept_until_it_has_ended(account: Account) -> None:
    function = CFunction.compile(callbacks.WAITING)
    with start(build("callbacks.c"), "threads=1", account=account, hold=True) as target:

        def controller() -> tuple[list[int], int]:
            left = []
            with attach(target.pid) as session:
                ops = session.register(calling(function, "f_again"))
                target.go()
                target.await_condition(lambda: words_of(session, ops)[1] == 1, "the call")
                (data,) = session.region.of_kind(Kind.DATA)
                private = session.target.memory.read_u64(data.address)
                session.unregister(ops)
                session.register(tracing.counting("f_int"))  # frees what nobody is in
                left.append(len(session._known.natives.ids))
                parked = session._known.dispatcher.parked_bytes
                session.target.memory.write_u64(private, 1)
                target.await_calls("f_again", 1000)
                session.register(tracing.counting("f_int"))
                left.append(len(session._known.natives.ids))
                return left, parked

        left, parked = account.run(controller)
        end = target.stop()
    assert left == [1, 0]
    assert parked > 0
    assert end.is_well, end.err


@pytest.mark.usefixtures("soon_given_up")
def test_detach_during_a_call_restores_the_text_and_the_next_one_the_memory(
    account: Account,
) -> None:
    function = CFunction.compile(callbacks.WAITING)
    with start(build("callbacks.c"), "threads=1", account=account, hold=True) as target:
        before = text_hash(target.pid)

        def controller() -> tuple[int, bool, int, str]:
            session = attach(target.pid)
            place = address_of(session, "f_again")
            entry = session.target.memory.read(place, 16)
            ops = session.register(calling(function, "f_again"))
            target.go()
            target.await_condition(lambda: words_of(session, ops)[1] == 1, "the call")
            (data,) = session.region.of_kind(Kind.DATA)
            private = session.target.memory.read_u64(data.address)
            session.detach()
            parked = session.parked_bytes
            restored = session.target.memory.read(place, 16) == entry
            session.target.memory.write_u64(private, 1)
            target.await_calls("f_again", 1000)
            tracing.detach_as_command(target.pid)
            left = sum(m.path.startswith("/memfd:fentry") for m in read_maps(target.pid))
            session.close()
            return parked, restored, left, text_hash(target.pid)

        parked, restored, left, after = account.run(controller)
        end = target.stop()
    assert parked > 0
    assert restored
    assert after == before
    assert left == 0
    assert end.is_well, end.err


def test_forked_child_calls_with_data_of_its_own_and_can_be_restored(account: Account) -> None:
    with start(build("children.c"), account=account, hold=True) as target:
        before = text_hash(target.pid)

        def controller() -> tuple[Counter[str], int, int, str]:
            with attach(target.pid) as session:
                ops = session.register(calling(SUM, "f_work", flags=Flags.RECURSION))
                target.go()
                target.await_condition(lambda: target.counters()["child"] > 0, "a child")
                target.await_calls("f_child", 50)
                held = target.hold()
                child = target.counters()["child"]
                calls = words_of(session, ops)[0]
                tracing.detach_as_command(child)
                return held, calls, child, text_hash(child)

        held, calls, child, text = account.run(controller)
        os.kill(child, signal.SIGTERM)
        target.go()
        end = target.stop()
    assert calls == held["f_work"]  # those of the child are not among them
    assert text == before
    assert end.is_well, end.err


def test_status_tells_function_and_flags(account: Account) -> None:
    with start(build("callbacks.c"), account=account, hold=True) as target:

        def controller() -> list[str]:
            with attach(target.pid) as session:
                session.register(calling(SUM, "f_int", flags=FULL | Flags.RECURSION))
                done = tracing.status_as_command(target.pid)
                return [line.strip() for line in done.splitlines() if " ops " in line]

        lines = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert lines == ["ops 1       call callback SAVE_REGS RECURSION IPMODIFY f_int (1 functions)"]


def test_of_two_that_redirect_the_older_has_what_a_library_brings(account: Account) -> None:
    library = f"library={build('libdso.c')}"
    with start(build("dso.c"), library, "keep=1", account=account, hold=True) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid) as session:
                older = session.register(calling(SUM, "f?l*", flags=FULL))  # fclose ...
                younger = calling(SUM, "f*", flags=FULL)
                younger.notrace = ("libc!f?l*", "ld-linux*!*")
                session.register(younger)
                target.go()
                followed(session, target, "libdso")
                held, first = target.hold()["f_library"], words_of(session, older)[0]
                target.go()
                target.await_calls("f_library", 1000)
                more = target.hold()["f_library"] - held
                (site,) = np.flatnonzero(session.functions.match(("f_library",), ()))
                assert older.members[site] and not younger.members[site]
                second = words_of(session, older)[0] - first
                return more, second, len(session.ops)

        made, called, count = account.run(controller)
        target.go()
        end = target.stop()
    assert made == called >= 1000
    assert count == 2
    assert end.is_well, end.err


def full_cycle(pid: int) -> None:
    """Attach, call C functions, take them away, detach: what is interrupted below."""
    session = attach(pid, PATIENT)
    first = session.register(calling(SUM, "f_*", flags=Flags.RECURSION))
    session.register(calling(SUM, "f_*nop*", "f_frame", flags=FULL))
    session.unregister(first)
    session.register(tracing.counting("f_*"))
    session.close()


def test_controller_may_die_at_any_call_while_c_functions_come_and_go(account: Account) -> None:
    deaths = 0
    with start(build("hot.c"), "threads=2", "pause_us=100", account=account) as target:
        before = snapshot(target.pid)
        account.run(full_cycle, target.pid)
        for death in killer.points(full_cycle, target.pid, account=account, first=53, stride=331):
            deaths += 1
            assert target.is_alive and target.bad == 0, death
            account.run(tracing.detach_as_command, target.pid)
            assert diff(before, snapshot(target.pid)) == [], death
        target.await_calls(min(target.counters()))
        end = target.stop()
    assert deaths > 5
    assert end.is_well, end.err
