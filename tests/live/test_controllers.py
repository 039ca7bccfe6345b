"""Several controllers of one process at the same time (docs/design/controllers.md)."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from tests.support import tracing
from tests.support.beside import Beside, Line, beside
from tests.support.build import build
from tests.support.callbacks import CHANGE, FULL, calling
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.dispatch.ops import Ops
from fentry.errors import LockError, PatchError, RegionError
from fentry.session import Options, Session, adopt, attach
from fentry.trampolines.native import CFunction

BIG = Options(buffer_bytes=8 << 20)
FUNCTIONS = 21  # of hot.c that can be traced and are called f_...


def works(line: Line, target: Target, options: Options = BIG, adopting: bool = False) -> None:
    """A controller that does what it is told: (word, *arguments)."""
    session = (adopt if adopting else attach)(target.pid, options)
    ops: dict[str, Ops] = {}
    seen: Counter[str] = Counter()
    line.say("attached")
    while True:
        word, *arguments = line.hear()
        if word == "record":
            ops["record"] = session.register(tracing.recording(*arguments))
        elif word == "count":
            ops["count"] = session.register(tracing.counting(*arguments))
        elif word == "stop":
            session.unregister(ops.pop(*arguments))
        elif word == "toggle":
            for _ in range(arguments[0]):
                session.unregister(session.register(tracing.recording("f_*")))
                seen += tracing.recorded(session)
        elif word == "tell":
            line.say(figures(session, ops, seen))
            continue
        elif word == "detach":
            session.detach()
            line.say((figures(session, ops, seen), session.parked_bytes))
            continue
        line.say([one.id for one in ops.values()])


def figures(
    session: Session, ops: dict[str, Ops], seen: Counter[str]
) -> tuple[Counter[str], Counter[str], int]:
    """Records and counts by function name, and how many calls were dropped."""
    seen.update(tracing.recorded(session, final=session.was_detached()))
    counts = tracing.counted(session, ops["count"]) if "count" in ops else Counter()
    return seen, counts, tracing.dropped(session)


def start_both(
    stack: ExitStack, account: Account, target: Target, options: Options = BIG
) -> tuple[Beside, Beside]:
    found = []
    for _ in range(2):
        one = stack.enter_context(beside(account, works, target, options))
        assert one.hear() == "attached"
        found.append(one)
    return found[0], found[1]


def only(held: Counter[str], *names: str) -> Counter[str]:
    """The calls of these functions, of all that are called f_... where none is named."""
    return Counter({n: held[n] for n in names})


@pytest.mark.parametrize("dispatch", ["sets", "list"])
def test_each_of_two_sees_every_call_of_the_same_functions(account: Account, dispatch: str) -> None:
    options = Options(buffer_bytes=8 << 20, dispatch=dispatch)
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with ExitStack() as stack:
            one, two = start_both(stack, account, target, options)
            one.ask(("record", "f_*"))
            two.ask(("count", "f_*"))
            one.ask(("count", "f_nop5", "f_frame"))
            two.ask(("record", "f_lea", "f_nop5"))
            target.go()
            target.await_calls("f_plain", 200)
            held = target.hold()
            records, counts, lost = one.ask(("tell",))
            assert len(records) == FUNCTIONS and lost == 0
            assert records == only(held, *records)
            assert counts == only(held, "f_nop5", "f_frame")
            records, counts, lost = two.ask(("tell",))
            assert records == only(held, "f_lea", "f_nop5") and lost == 0
            assert len(counts) == FUNCTIONS and counts == only(held, *counts)

            told, parked = one.ask(("detach",))
            assert (told[2], parked) == (0, 0)
            target.go()
            target.await_calls("f_plain", 200)
            held = target.hold()
            (records, counts, lost), parked = two.ask(("detach",))
            assert (lost, parked) == (0, 0)
            assert records == only(held, "f_lea", "f_nop5")
            assert len(counts) == FUNCTIONS and counts == only(held, *counts)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_registration_storms_of_two_leave_a_third_exact(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=300", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with ExitStack() as stack:
            watcher = stack.enter_context(beside(account, works, target))
            assert watcher.hear() == "attached"
            one, two = start_both(stack, account, target)
            watcher.ask(("count", "f_*"))
            watcher.ask(("record", "f_lea", "f_nop5"))
            target.go()
            for each in (one, two):
                each.say(("toggle", 25))
            for each in (one, two):
                each.hear()
                assert target.bad == 0
            held = target.hold()
            records, counts, lost = watcher.ask(("tell",))
            assert lost == 0
            assert records == only(held, "f_lea", "f_nop5")
            assert len(counts) == FUNCTIONS and counts == only(held, *counts)
            for each in (two, one, watcher):
                assert each.ask(("detach",))[1] == 0
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_one_killed_at_any_moment_costs_the_other_nothing(account: Account) -> None:
    chance = random.Random(5)
    with start(build("hot.c"), "threads=3", "pause_us=300", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with beside(account, works, target) as living:
            assert living.hear() == "attached"
            living.ask(("count", "f_*"))
            living.ask(("record", "f_lea", "f_nop5"))
            target.go()
            for _ in range(6):
                with beside(account, works, target) as victim:
                    assert victim.hear() == "attached"
                    victim.say(("toggle", 10_000))
                    time.sleep(chance.uniform(0, 0.15))  # any moment
                    victim.kill()
                living.ask(("stop", "record"))
                living.ask(("record", "f_lea", "f_nop5"))
                assert target.bad == 0
            held = target.hold()
            _, counts, lost = living.ask(("tell",))
            assert lost == 0
            assert len(counts) == FUNCTIONS and counts == only(held, *counts)
            living.ask(("detach",))
        account.run(tracing.detach_as_command, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_what_a_dead_one_left_is_adopted_while_another_lives(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=500", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with ExitStack() as stack:
            living, victim = start_both(stack, account, target)
            living.ask(("count", "f_*"))
            victim.ask(("record", "f_lea", "f_nop5"))
            with pytest.raises(LockError, match="traced by another"):
                account.run(adopt, target.pid)  # nobody is dead
            victim.kill()
            target.go()
            target.await_calls("f_plain", 100)
            living.ask(("record", "f_lea"))  # makes the trampoline of the dead one's set anew
            heir = stack.enter_context(beside(account, inherits, target))
            assert heir.hear() == ["f_lea f_nop5"]
            living.ask(("stop", "record"))
            target.await_calls("f_plain", 100)
            held = target.hold()
            records, lost = heir.ask()
            assert records == only(held, "f_lea", "f_nop5") and lost == 0
            _, counts, _ = living.ask(("detach",))[0]
            assert len(counts) == FUNCTIONS and counts == only(held, *counts)
            heir.ask()
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def inherits(line: Line, target: Target) -> None:
    with adopt(target.pid) as session:
        line.say([ops.text for ops in session.ops.values()])
        line.hear()
        line.say((tracing.recorded(session), tracing.dropped(session)))
        line.hear()
    line.say("detached")


def test_what_a_dead_one_left_stays_when_the_last_living_one_leaves(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with ExitStack() as stack:
            living, victim = start_both(stack, account, target)
            victim.ask(("record", "f_lea"))
            living.ask(("count", "f_*"))
            victim.kill()
            target.go()
            target.await_calls("f_plain", 100)
            living.ask(("detach",))
            target.await_calls("f_plain", 100)
            heir = stack.enter_context(beside(account, inherits, target))
            assert heir.hear() == ["f_lea"]
            held = target.hold()
            assert heir.ask() == (only(held, "f_lea"), 0)
            heir.ask()
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_detach_by_command_takes_everything_from_all(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:
        before = snapshot(target.pid)
        with ExitStack() as stack:
            one, two = start_both(stack, account, target)
            one.ask(("record", "f_lea"))
            two.ask(("count", "f_*"))
            target.go()
            target.await_calls("f_plain", 50)
            said = account.run(tracing.detach_as_command, target.pid)
            assert f"{FUNCTIONS} sites restored" in said
            assert diff(before, snapshot(target.pid)) == []
            held = target.hold()
            target.go()
            records, _, lost = one.ask(("tell",))
            assert 50 <= records["f_lea"] <= held["f_lea"] and lost == 0
            one.say(("count", "f_lea"))
            with pytest.raises(AssertionError, match=r"LockError: .*no longer"):
                one.hear()
            assert two.ask(("detach",))[1] == 0
        assert target.stop().is_well


def test_status_names_every_controller_with_what_is_its(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:
        with ExitStack() as stack:
            one, two = start_both(stack, account, target)
            one.ask(("record", "f_lea"))
            two.ask(("record", "f_lea", "f_nop5"))
            two.ask(("count", "f_lea"))
            text = fentry(account, "status", "-p", target.pid).out.splitlines()
            two.kill()
            after = fentry(account, "status", "-p", target.pid).out.splitlines()
            told = json.loads(fentry(account, "status", "-p", target.pid, "--json").out)
        assert text[1].startswith(f"  owner 1     process {one.pid} (")
        assert text[2].startswith(f"  owner 2     process {two.pid} (")
        assert [line.split() for line in text if line.startswith("  ops ")] == [
            ["ops", "1", "record", "f_lea", "(1", "functions),", "owner", "1"],
            ["ops", "65", "record", "f_lea", "f_nop5", "(2", "functions),", "owner", "2"],
            ["ops", "66", "count", "f_lea", "(1", "functions,", "0", "hits),", "owner", "2"],
        ]
        assert [line[-9:] for line in text if line.startswith("  ring")] == [
            ", owner 1",
            ", owner 2",
        ]
        assert after[2] == f"  owner 2     nobody: its controller is gone, process {two.pid}"
        assert after[-1].startswith("  next        fentry detach")
        assert [(o["number"], o["pid"], o["alive"]) for o in told["owners"]] == [
            (1, one.pid, True), (2, two.pid, False),
        ]  # fmt: skip
        assert told["owner"] == one.pid
        assert [(o["id"], o["owner"]) for o in told["ops"]] == [(1, 1), (65, 2), (66, 2)]


def test_commands_record_and_count_the_same_process_together(account: Account) -> None:
    with start(build("hot.c"), "pause_us=300", account=account) as target, ExitStack() as stack:
        before = snapshot(target.pid)
        folder = stack.enter_context(folder_of(account))
        commands = [
            ("record", "-p", target.pid, "-F", "f_*", "-d", "700ms", "-o", folder / "one"),
            ("record", "-p", target.pid, "-F", "f_lea", "-d", "300ms", "-o", folder / "two"),
            ("stat", "-p", target.pid, "-F", "f_*", "-d", "500ms", "--json"),
        ]
        running = [stack.enter_context(beside(account, runs, *words)) for words in commands]
        for one in running:
            code, out, err = one.hear()
            assert code == 0, err
            assert " 0 dropped" in err
            assert "bytes parked" not in err
        rows = json.loads(out)
        assert len(rows) == FUNCTIONS and min(row["calls"] for row in rows) > 100
        seen = fentry(account, "report", "-i", folder / "one")
        assert {f for f in seen.out.split() if f.startswith("f_")} >= {"f_lea", "f_nop5"}
        only_lea = fentry(account, "report", "-i", folder / "two").out
        assert {f for f in only_lea.split() if f.startswith("f_")} == {"f_lea"}
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def runs(line: Line, *words: object) -> None:
    from tests.support.unprivileged import _captured_main

    from fentry.cli.__main__ import main

    done = _captured_main(main, ["fentry", *map(str, words)])
    line.say((done.code, done.out, done.err))


def test_seventeenth_controller_is_told_who_has_the_rows(account: Account) -> None:
    with start(build("hot.c"), account=account, hold=True) as target:

        def controller() -> list[int]:
            with ExitStack() as stack:
                every = [stack.enter_context(attach(target.pid, BIG)) for _ in range(16)]
                with pytest.raises(RegionError, match="16 controllers are attached"):
                    attach(target.pid)
                every[3].close()
                stack.enter_context(attach(target.pid))
                return [session.top.number for session in every]

        before = snapshot(target.pid)
        assert account.run(controller) == list(range(16))
        assert diff(before, snapshot(target.pid)) == []


def test_two_sessions_of_one_process_are_two_controllers(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str]]:
            with attach(target.pid, BIG) as one, attach(target.pid, BIG) as two:
                one.register(tracing.recording("f_*"))
                extra = two.instance("extra", BIG)
                extra.register(tracing.recording("f_lea"))
                two.register(tracing.recording("f_nop5"))
                target.go()
                target.await_calls("f_plain", 100)
                held = target.hold()
                lea = sum(len(batch.records) for batch in extra.consume())
                assert lea == held["f_lea"]
                two.remove_instance(extra)
                return held, tracing.recorded(one), tracing.recorded(two)

        held, first, second = account.run(controller)
        assert first == only(held, *first) and len(first) == FUNCTIONS
        assert second == only(held, "f_nop5")
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_function_that_one_redirects_is_refused_to_the_other(account: Account) -> None:
    with start(build("callbacks.c"), account=account, hold=True) as target:
        function = CFunction.compile(CHANGE)

        def controller() -> tuple[str, int]:
            with attach(target.pid, BIG) as one, attach(target.pid, BIG) as two:
                one.register(calling(function, "f_int", flags=FULL))
                with pytest.raises(PatchError) as caught:
                    two.register(calling(function, "f_int", flags=FULL))
                count = two.register(tracing.counting("f_int"))
                target.go()
                target.await_calls("f_int", 100)
                target.hold()
                assert tracing.counted(two, count)["f_int"] >= 100
                return caught.value.cause, os.getpid()

        cause, pid = account.run(controller)
    assert "one ops with IPMODIFY" in cause and f"process {pid} (" in cause


def test_of_those_that_leave_at_once_one_restores(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account) as target:
        before = snapshot(target.pid)
        for _ in range(3):
            with ExitStack() as stack:
                both = start_both(stack, account, target)
                for one in both:
                    one.ask(("count", "f_*"))
                for one in both:
                    one.say(("detach",))
                for one in both:
                    assert one.hear()[1] == 0
            assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def test_who_is_always_too_late_gets_a_turn(account: Account) -> None:
    with start(build("hot.c"), "pause_us=500", account=account) as target:
        with ExitStack() as stack:
            busy, late = start_both(stack, account, target)
            busy.say(("toggle", 1_000_000))
            for _ in range(5):
                late.ask(("count", "f_lea"))
                late.ask(("stop", "count"))
            assert not busy.has_news()  # it still changes all, all the time
            busy.kill()
            assert late.ask(("detach",))[1] == 0
        account.run(tracing.detach_as_command, target.pid)
        assert target.stop().is_well
