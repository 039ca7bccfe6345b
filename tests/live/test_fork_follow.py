"""Forked children that are followed: every call of theirs is seen, and all of them are restored."""

from __future__ import annotations

import importlib
import os
import signal
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from tests.live.test_cli_threads import record_during
from tests.support import killer, tracing
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot, text_hash
from tests.support.unprivileged import Account

from fentry.cli.__main__ import COMMANDS, main
from fentry.dispatch.threads import ThreadFilter
from fentry.errors import LockError
from fentry.region.inherited import bearers
from fentry.ring.layout import TID_MASK
from fentry.session import Options, Session, adopt, attach

for module, _ in COMMANDS.values():
    importlib.import_module(module)  # the account may not be able to read them later

FOLLOW = Options(buffer_bytes=64 << 20, follow_forks=True)


def long_lived(target: Target) -> dict[int, int]:
    """Calls of the long-lived children, by their tid."""
    found = target.counters().items()
    return {int(name[4:]): count for name, count in found if name.startswith("tid.")}


def is_clean(pid: int) -> bool:
    """Whether nothing of fentry is mapped in a process."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        return "/memfd:fentry" not in file.read()


def tids_recorded(session: Session) -> Counter[int]:
    """Records that were not read before, by tid."""
    found: Counter[int] = Counter()
    for batch in session.consume():
        tids, counts = np.unique(batch.records["word"] & np.uint32(TID_MASK), return_counts=True)
        found.update(dict(zip(tids.tolist(), counts.tolist(), strict=True)))
    return found


def trace_family(target: Target, options: Options = FOLLOW) -> Session:
    """Count and record f_work of a family that is held, and of all that it forks."""
    session = attach(target.pid, options)
    session.register(tracing.counting("f_work"))
    session.register(tracing.recording("f_work"))
    return session


def die(account: Account, function: Callable[[], object]) -> None:
    """Call a function as an account, in a process that is killed right after it."""
    child = os.fork()
    if not child:
        try:
            account.become()
            function()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("daemons", [0, 1])
def test_every_call_of_every_child_is_counted_and_recorded(account: Account, daemons: int) -> None:
    arguments = ("long=2", f"daemons={daemons}", "storm=6", "threads=2")
    with start(build("family.c"), *arguments, account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> dict[str, object]:
            with trace_family(target) as session:
                count = next(iter(session.ops.values()))
                target.go()
                target.await_calls("rounds", 20)
                held = target.hold()
                session.follow_forks()
                assert session.followed is not None
                return {
                    "held": held["f_work"],
                    "counted": tracing.counted(session, count)["f_work"],
                    "by tid": tids_recorded(session),
                    "dropped": tracing.dropped(session),
                    "long": long_lived(target),
                    "living": set(session.followed.living),
                    "states": {
                        pid: tracing.status_as_command(pid).splitlines()[0]
                        for pid in session.followed.living
                    },
                    "parent": tracing.status_as_command(target.pid),
                    "threads": target.tids(),
                }

        seen = account.run(controller)
        living = seen["living"]
        found = diff(before, snapshot(target.pid))
        clean = [is_clean(pid) for pid in living]
        texts = {text_hash(pid) for pid in (target.pid, *living)}
        target.go()
        for _ in range(2):
            target.await_calls("rounds", 2)
        assert target.stop().is_well
    assert seen["dropped"] == 0
    assert seen["counted"] == seen["held"]
    assert seen["by tid"].total() == seen["held"]
    assert len(seen["long"]) == (2 if daemons else 4)
    assert living == set(seen["long"])
    threes = set() if daemons else living
    for tid, calls in seen["long"].items():  # its own calls, and three before its name was known
        assert seen["by tid"][tid] - calls in ((0, 3) if tid in threes else (0,))
    assert len(seen["by tid"]) > len(living) + len(seen["threads"]) + 100  # the storm's children
    assert set(seen["states"].values()) == {f"{pid}: inherited by fork, followed" for pid in living}
    assert "(forked while traced; followed)" in seen["parent"]
    assert found == []
    assert clean == [True] * len(living)
    assert len(texts) == 1


def test_children_by_vfork_spawn_and_exec_are_counted_as_before(account: Account) -> None:
    with start(build("forks.c"), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], dict[int, str]]:
            with attach(target.pid, FOLLOW) as session:
                count = session.register(tracing.counting("f_*"))
                target.go()
                target.await_calls("rounds", 5)
                held = target.hold()
                counts = tracing.counted(session, count)
            assert session.followed is not None
            return counts, held, session.followed.unreachable

        counts, held, unreachable = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert counts == {name: n for name, n in held.items() if name.startswith("f_")}
    assert unreachable == {}


def test_attach_and_detach_in_a_storm_of_forks_leave_nobody_behind(account: Account) -> None:
    with start(build("family.c"), "long=2", "storm=4", account=account) as target:
        before = snapshot(target.pid)
        target.await_calls("rounds", 2)

        def controller() -> list[int]:
            carriers = []
            for _ in range(4):
                with trace_family(target) as session:
                    target.await_calls("rounds", 2)
                    identity = session.followed.identity  # type: ignore[union-attr]
                carriers += [one.pid for one in bearers(identity)]
            return carriers

        carriers = account.run(controller)
        target.hold()
        found = diff(before, snapshot(target.pid))
        texts = {text_hash(pid) for pid in (target.pid, *long_lived(target))}
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert carriers == []
    assert found == []
    assert len(texts) == 1


def test_children_outlive_their_parent_and_their_controller(account: Account) -> None:
    with start(build("family.c"), "long=2", account=account, hold=True) as target:

        def controller() -> dict[str, object]:
            with trace_family(target) as session:
                count = next(iter(session.ops.values()))
                target.go()
                target.await_condition(lambda: len(long_lived(target)) == 4, "all children")
                target.wish(1)
                target.await_condition(lambda: not target.is_alive, "the end of the parent")
                seen: dict[str, object] = {"why": session.why_over(), "wakeups": session.wakeups}
                target.wish(0)
                calls = target.counters()["f_work"]
                while target.counters()["f_work"] < calls + 200:
                    session.follow_forks()
                living = long_lived(target)
                seen["clean"] = [is_clean(pid) for pid in living]
                seen["recorded"] = tracing.recorded(session)["f_work"] > 0
            seen["clean after"] = [is_clean(pid) for pid in living]
            seen["why after"] = session.followed.unreachable  # type: ignore[union-attr]
            seen["counted"] = tracing.counted(session, count)["f_work"] > 200
            return seen

        seen = account.run(controller)
        target._page.stop()
    assert seen["why"] == ""
    assert seen["wakeups"] == []
    assert seen["clean"] == [False] * 4
    assert seen["recorded"] and seen["counted"]
    assert seen["clean after"] == [True] * 4
    assert seen["why after"] == {}


def test_who_cannot_be_restored_is_silent_and_named(account: Account) -> None:
    arguments = ("long=1", "daemons=1")
    with start(build("family.c"), *arguments, account=account, hold=True) as target:

        def controller() -> dict[str, object]:
            with trace_family(target) as session:
                target.go()
                target.await_condition(lambda: len(long_lived(target)) == 1, "a child")
                session.follow_forks()
                target.wish(2)
                (child,) = long_lived(target)
                target.await_calls(f"tid.{child}", 10)  # it has heard of it
            unreachable = set(session.followed.unreachable)  # type: ignore[union-attr]
            heads = session.top._reader.heads()  # type: ignore[union-attr]
            target.await_calls(f"tid.{child}", 50)
            later = session.top._reader.heads()  # type: ignore[union-attr]
            return {"child": child, "unreachable": unreachable, "grew": heads != later}

        seen = account.run(controller)
        clean = is_clean(seen["child"])
        end = target.stop()
    assert end.is_well, end.err
    reachable = account.name == "root"
    assert seen["unreachable"] == (set() if reachable else {seen["child"]})
    assert clean is reachable
    assert not seen["grew"]


def test_a_change_of_the_plan_puts_older_children_back(account: Account) -> None:
    with start(build("family.c"), "long=1", "storm=2", account=account, hold=True) as target:

        def controller() -> dict[str, object]:
            with attach(target.pid, FOLLOW) as session:
                session.register(tracing.recording("f_work"))
                target.go()
                target.await_condition(lambda: len(long_lived(target)) == 2, "both children")
                target.hold()
                before = target.counters()["f_work"]
                recorded = tracing.recorded(session)["f_work"]
                count = session.register(tracing.counting("f_work"))
                clean = [is_clean(pid) for pid in long_lived(target)]
                long_before = sum(long_lived(target).values())
                target.go()
                target.await_calls("rounds", 10)
                after = target.hold()["f_work"]
                own = sum(long_lived(target).values()) - long_before
                return {
                    "clean": clean,
                    "complete": recorded == before,
                    "missed": after - before - own - tracing.counted(session, count)["f_work"],
                    "again": after - before - own - tracing.recorded(session)["f_work"],
                }

        seen = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen == {"clean": [True, True], "complete": True, "missed": 0, "again": 0}


def test_children_go_on_when_the_controller_is_killed_and_detach_finds_them(
    account: Account,
) -> None:
    with start(build("family.c"), "long=2", "daemons=1", account=account, hold=True) as target:
        before = snapshot(target.pid)
        die(account, lambda: trace_family(target))
        target.go()
        target.await_condition(lambda: len(long_lived(target)) == 2, "all children")
        target.await_calls("f_work", 300)
        children = sorted(long_lived(target))
        done = account.call_main(main, ["fentry", "detach", "-p", str(children[0])])
        status = account.call_main(main, ["fentry", "status", "-p", str(children[1])])
        rest = account.call_main(main, ["fentry", "detach", "-p", str(target.pid)])
        target.await_calls("f_work", 100)
        clean = [is_clean(pid) for pid in children]
        target.hold()
        texts = {text_hash(pid) for pid in (target.pid, *children)}
        found = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    assert done.out == f"{children[0]}: 1 sites restored\n"
    assert status.out.startswith(f"{children[1]}: inherited by fork, followed\n")
    assert "nobody: its controller is gone" in status.out
    assert rest.out == f"{target.pid}: 1 sites restored\n{children[1]}: 1 sites restored\n"
    assert clean == [True, True]
    assert len(texts) == 1
    assert found == []


def test_who_adopts_has_the_calls_of_children_up_to_then_and_ends_them(account: Account) -> None:
    with start(build("family.c"), "long=2", "daemons=1", account=account, hold=True) as target:
        die(account, lambda: trace_family(target))
        target.go()
        target.await_condition(lambda: len(long_lived(target)) == 2, "all children")
        target.await_calls("f_work", 300)
        target.hold()

        def controller() -> dict[str, object]:
            with adopt(target.pid, FOLLOW) as session:
                held = target.counters()["f_work"]
                found = {"held": held, "recorded": tracing.recorded(session)["f_work"]}
                count = next(iter(session.ops.values()))
                found["counted"] = tracing.counted(session, count)["f_work"]
                found["clean"] = [is_clean(pid) for pid in long_lived(target)]
                found["follows"] = session.followed is not None
                return found

        seen = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert seen["recorded"] == seen["counted"] == seen["held"]
    assert seen["clean"] == [True, True]
    assert seen["follows"]


def test_a_followed_child_is_not_taken_from_a_living_controller(account: Account) -> None:
    with start(build("family.c"), "long=1", "daemons=1", account=account, hold=True) as target:

        def controller() -> tuple[int, LockError, int]:
            with trace_family(target):
                target.go()
                target.await_condition(lambda: len(long_lived(target)) == 1, "a child")
                (child,) = long_lived(target)
                with pytest.raises(LockError) as caught:
                    account.run(attach, child)
                return os.getpid(), caught.value, child

        pid, error, child = account.run(controller)
        assert target.stop().is_well
    assert f"process {child} is traced by another fentry" in error.what
    assert f"process {pid} " in error.cause


def test_report_names_children_and_says_who_executed_what(account: Account) -> None:
    arguments = ("long=2", "daemons=1", "storm=2", "threads=0")
    with (
        start(build("family.c"), *arguments, account=account, hold=True) as target,
        folder_of(account) as folder,
    ):
        trace = folder / "trace.fentry"

        def happens() -> None:
            target.go()
            target.await_condition(lambda: len(long_lived(target)) == 2, "both children")
            target.await_calls("rounds", 5)
            sleeper = max(long_lived(target))
            seen = {pid: False for pid in long_lived(target)}
            while not all(seen.values()):  # the trace file says that it was seen
                data = trace.read_bytes()
                seen = {pid: f'"pid":{pid}'.encode() in data for pid in seen}
            target.wish(sleeper)
            target.await_condition(lambda: b'"kind":"exec"' in trace.read_bytes(), "told of")
            target.wish(1)
            target.await_condition(lambda: not target.is_alive, "the end of the parent")
            calls = target.counters()["f_work"]
            while target.counters()["f_work"] < calls + 50:
                pass
            target._page.stop()  # the last child ends, and with it the recording

        done = record_during(
            account, target, trace, "-f", "-F", "f_work", happens=happens, interrupt=False
        )
        calls = target.counters()["f_work"]
        children = sorted(long_lived(target))
        shown = fentry(account, "report", "-i", trace)
        target.await_end()
        os.kill(children[1], signal.SIGKILL)
    tasks = Counter(line.split()[0] for line in shown.out.splitlines() if line[:1] == " ")
    assert done.code == 0, done.err
    assert done.err.startswith(f"{calls} events, 0 dropped; ")
    assert "; the process ended, and no child is left; " in done.err
    assert f"long-lived-{children[0]}" in tasks
    assert f"child {children[1]} is not followed any more: it executed sleep 30\n" in shown.err
    short_lived = [task for task in tasks if task.startswith("family")]
    assert len(short_lived) > 20  # also those that nobody saw
    assert not any("<...>" in task for task in tasks)


def test_children_of_one_followed_thread_are_traced_and_other_threads_are_not(
    account: Account,
) -> None:
    with start(build("family.c"), "storm=3", "threads=2", account=account, hold=True) as target:
        threads = target.tids()

        def controller() -> tuple[Counter[int], int]:
            ops = tracing.recording("f_work")
            ops.threads = ThreadFilter({target.pid}, follow=True)
            with attach(target.pid, FOLLOW) as session:
                session.register(ops)
                target.go()
                target.await_calls("rounds", 10)
                target.hold()
                return tids_recorded(session), target.counters()["rounds"]

        found, rounds = account.run(controller)
        target.go()
        assert target.stop().is_well
    children = {tid: calls for tid, calls in found.items() if tid != target.pid}
    assert found[target.pid] == 5 * rounds
    assert not children.keys() & set(threads)
    assert sum(children.values()) == rounds * 3 * 3 * 7  # a child, its child, a child again


def follow_and_leave(pid: int) -> None:
    """What the kill test interrupts."""
    patient = Options(buffer_bytes=1 << 16, follow_forks=True, max_stop_s=20)
    session = attach(pid, patient)  # every call of ours is stopped twice
    record = session.register(tracing.recording("f_work"))
    session.register(tracing.counting("f_work"))
    session.unregister(record)
    session.close()


def test_a_controller_killed_at_any_moment_leaves_a_family_that_detach_restores(
    account: Account,
) -> None:
    with start(build("family.c"), "long=1", "storm=1", account=account) as target:
        target.await_condition(lambda: len(long_lived(target)) == 2, "all children")
        family = [target.pid, *long_lived(target)]
        texts = [text_hash(pid) for pid in family]
        account.run(follow_and_leave, target.pid)
        calls = killer.count(follow_and_leave, target.pid, account=account)
        wrong = []
        for death in killer.points(
            follow_and_leave, target.pid, account=account, first=7, stride=calls // 4
        ):
            target.await_calls("rounds", 1)
            done = account.call_main(main, ["fentry", "detach", "-p", str(target.pid)])
            if done.code or not all(is_clean(pid) for pid in family):
                wrong.append((str(death), done.out + done.err))
        target.hold()
        after = [text_hash(pid) for pid in family]
        target.go()
        end = target.stop()
    assert end.is_well, end.err
    assert wrong == []
    assert after == texts
