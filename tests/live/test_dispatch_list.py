"""The list of ops: what every function calls with dispatch="list", and what takes over where sets
cannot grow. Counts are exact and those of sets."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from itertools import pairwise

import pytest
from tests.support import killer, tracing
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.dispatch import trampolines
from fentry.dispatch.list import LIST
from fentry.dispatch.ops import Ops
from fentry.errors import BadInput
from fentry.instance import Instance
from fentry.session import Options, Session, adopt, attach

BIG = Options(buffer_bytes=16 << 20)
LISTED = Options(buffer_bytes=16 << 20, dispatch="list")
SMALL = Options(buffer_bytes=1 << 20, dispatch="list")


def on_list(session: Session) -> set[str]:
    """Names of the functions that call the list."""
    dispatcher = session._known.dispatcher
    index = dispatcher._set_index.get(LIST, -1)
    sites = session.functions.table.ip[dispatcher._current == index]
    return set(tracing.names_of(session, sites.tolist()))


def calls_between(before: Counter[str], after: Counter[str], *names: str) -> Counter[str]:
    return Counter({name: after[name] - before[name] for name in names})


@pytest.mark.parametrize("dispatch", ["sets", "list"])
def test_list_counts_and_records_what_sets_do(account: Account, dispatch: str) -> None:
    options = Options(buffer_bytes=16 << 20, dispatch=dispatch)
    with start(build("hot.c"), "threads=4", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> list[tuple[Counter[str], list[Counter[str]]]]:
            seen = []
            with attach(target.pid, options) as session:
                record = session.register(tracing.recording("f_plain", "f_lea", "f_nop5"))
                counts = [
                    session.register(tracing.counting("f_*")),
                    session.register(tracing.counting("f_lea", "f_frame")),
                ]

                def look() -> None:
                    begun = target.counters()
                    earlier = [tracing.counted(session, ops) for ops in counts]
                    target.go()
                    target.await_calls("f_plain", 1000)
                    held = target.hold()
                    found = [tracing.recorded(session)]
                    found += [
                        tracing.counted(session, ops) - e
                        for ops, e in zip(counts, earlier, strict=True)
                    ]
                    assert tracing.dropped(session) == 0
                    seen.append((held - begun, found))

                look()
                session.set_filter(record, ("f_endbr", "f_lea"))
                look()
                session.unregister(counts.pop(0))
                look()
                assert (on_list(session) != set()) == (dispatch == "list")
                return seen

        seen = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    (first, (r1, all1, two1)), (second, (r2, all2, two2)), (third, (r3, two3)) = seen
    assert len(all1) == 21
    assert r1 == {name: first[name] for name in ("f_plain", "f_lea", "f_nop5")}
    assert all1 == {name: first[name] for name in all1}
    assert two1 == {name: first[name] for name in ("f_lea", "f_frame")}
    assert r2 == {name: second[name] for name in ("f_endbr", "f_lea")}
    assert all2 == {name: second[name] for name in all1}
    assert two2 == {name: second[name] for name in ("f_lea", "f_frame")}
    assert r3 == {name: third[name] for name in ("f_endbr", "f_lea")}
    assert two3 == {name: third[name] for name in ("f_lea", "f_frame")}


def test_more_than_eight_ops_on_a_function_share_the_list(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[list[Counter[str]], list[set[str]], list[Counter[str]]]:
            held, lists, found = [target.counters()], [], []
            with attach(target.pid, BIG) as session:

                def look() -> None:
                    target.go()
                    target.await_calls("f_plain", 500)
                    held.append(target.hold())
                    lists.append(on_list(session))
                    found.append(tracing.recorded(session))

                every = [session.register(tracing.recording("f_lea", "f_plain")) for _ in range(8)]
                look()
                every += [session.register(tracing.recording("f_lea")) for _ in range(4)]
                look()
                for ops in every[6:]:
                    session.unregister(ops)
                look()
                return held, lists, found

        held, lists, found = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert lists == [set(), {"f_lea"}, set()]
    made = [b - a for a, b in pairwise(held)]
    for calls, records, times in zip(made, found, ((8, 8), (12, 8), (6, 6)), strict=True):
        lea, plain = times
        assert records == {"f_lea": lea * calls["f_lea"], "f_plain": plain * calls["f_plain"]}


def test_list_takes_the_sets_for_which_no_row_is_left(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["f_plain", "f_lea", "f_nop5", "f_frame", "f_endbr", "f_pushes"]
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str], set[str], set[str]]:
            with attach(target.pid, BIG) as session:
                rows = len(session._known.dispatcher._arenas) + 5
                monkeypatch.setattr(trampolines, "TRAMPOLINE_ROWS", rows)
                # Each one changes the sets of all before it: at the fourth, two have no room.
                every = [session.register(tracing.recording(*names[:n])) for n in range(1, 7)]
                crowded = on_list(session)
                target.go()
                target.await_calls("f_plain", 500)
                held = target.hold()
                records = tracing.recorded(session)
                monkeypatch.setattr(trampolines, "TRAMPOLINE_ROWS", 4096)
                session.set_filter(every[0], names[:2])
                return held, records, crowded, on_list(session)

        held, records, crowded, roomy = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert 0 < len(crowded) < 7
    assert roomy == set()
    assert records == {name: (6 - i) * held[name] for i, name in enumerate(names)}


def test_list_is_adopted_with_its_ops(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=500", account=account, hold=True) as target:
        before = snapshot(target.pid)
        child = os.fork()
        if not child:
            try:
                account.become()
                session = attach(target.pid, LISTED)
                session.register(tracing.recording("f_plain", "f_lea"))
                session.register(tracing.counting("f_lea", "f_nop5"))
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        target.go()
        target.await_calls("f_plain", 200)

        def controller() -> tuple[list[Counter[str]], list[Counter[str]], list[set[str]]]:
            held, found, lists = [], [], []
            with adopt(target.pid, LISTED) as session:
                count = session.ops[2]
                lists.append(on_list(session))
                held.append(target.hold())
                found += [tracing.recorded(session), tracing.counted(session, count)]
                again = session.register(tracing.recording("f_nop5"))
                session.set_filter(count, ("f_lea",))
                target.go()
                target.await_calls("f_plain", 200)
                held.append(target.hold())
                found += [tracing.recorded(session), tracing.counted(session, count)]
                session.unregister(again)
                lists.append(on_list(session))
            return held, found, lists

        (first, second), (r1, c1, r2, c2), lists = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well
    assert lists == [{"f_plain", "f_lea", "f_nop5"}, {"f_plain", "f_lea"}]
    assert r1 == {name: first[name] for name in ("f_plain", "f_lea")}
    assert c1 == {name: first[name] for name in ("f_lea", "f_nop5")}
    assert r2 == calls_between(first, second, "f_plain", "f_lea", "f_nop5")
    assert c2 == {"f_lea": second["f_lea"], "f_nop5": first["f_nop5"]}


def test_functions_on_the_list_show_their_ops(account: Account) -> None:
    with start(build("hot.c"), "pause_us=100", account=account) as target:

        def controller() -> tuple[str, list[dict[str, object]]]:
            with attach(target.pid, SMALL) as session:
                session.register(tracing.recording("f_plain", "f_lea"))
                session.instance("own", SMALL).register(tracing.recording("f_lea"))
                words = "status", "-p", target.pid, "--sites"
                machine = json.loads(fentry(account, *words, "--json").out)
                return fentry(account, *words).out, machine["calls"]

        shown, calls = account.run(controller)
        assert target.stop().is_well
    lines = [re.sub(r"0x\w+", "ADDR", x) for x in shown.splitlines()[1:] if x[:2] != "  "]
    assert [re.sub(r"\[hot-\w+\]", "[hot]", line) for line in lines] == [
        "f_plain [hot] (1)            ->ftrace_ops_list_func (ADDR)",
        "\tops: 1 (record)",
        "f_lea [hot] (2)            ->ftrace_ops_list_func (ADDR)",
        "\tops: 2 (record in own)",
        "\tops: 1 (record)",
    ]
    assert [(call["name"], call["list"], call["count"]) for call in calls] == [
        ("f_plain", True, 1), ("f_lea", True, 2),
    ]  # fmt: skip


def churn(target: Target, rounds: int, seen: list[int]) -> None:
    """Ops come, change and go on a list that threads walk."""
    with attach(target.pid, SMALL) as session:
        for i in range(rounds):
            make = tracing.counting if i % 2 else tracing.recording
            ops = session.register(make("f_*"))
            other = session.register(tracing.recording("f_lea", "f_nop5"))
            session.set_filter(ops, ("f_*nop*",))
            tracing.recorded(session)
            session.unregister(ops)
            session.unregister(other)
            assert target.is_alive and target.bad == 0, i
            seen.append(sum(s.bytes for s in session.region.segments))


def test_list_changes_under_the_feet_of_sixteen_threads(account: Account) -> None:
    with start(build("hot.c"), "threads=16", "pause_us=20", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> list[int]:
            seen: list[int] = []
            churn(target, 25, seen)
            return seen

        seen = account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert seen[-1] == seen[2]


def cycle(pid: int) -> None:
    """What is interrupted everywhere."""
    session = attach(pid, Options(buffer_bytes=1 << 20, dispatch="list", max_stop_s=10))
    record = session.register(tracing.recording("f_*"))
    count = session.register(tracing.counting("f_*nop*", "f_*frame"))
    session.set_filter(record, ("f_*nop*",))
    session.unregister(count)
    session.close()


def test_controller_with_a_list_dies_after_any_system_call(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=100", account=account) as target:
        before = snapshot(target.pid)
        cycle(target.pid)
        calls = killer.count(cycle, target.pid, account=account)
        stride = max(1, calls // 25)
        for death in killer.points(cycle, target.pid, account=account, first=7, stride=stride):
            assert target.is_alive and target.bad == 0, death
            account.run(tracing.detach_as_command, target.pid)
            assert diff(before, snapshot(target.pid)) == [], death
        target.await_calls("f_plain")
        assert target.stop().is_well


def test_command_line_dispatches_by_list(account: Account) -> None:
    with (
        start(build("hot.c"), "pause_us=100", account=account) as target,
        folder_of(account) as folder,
    ):
        before = snapshot(target.pid)
        words = "-p", target.pid, "-F", "f_plain,f_lea", "-d", "50ms", "--dispatch", "list"
        recorded = fentry(account, "record", *words, "-o", folder / "trace")
        counted = fentry(account, "stat", *words, "--json")
        wrong = fentry(account, "stat", "-p", target.pid, "--dispatch", "hash")
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well
    assert recorded.code == counted.code == 0
    assert "2 functions traced" in recorded.err
    assert {row["function"] for row in json.loads(counted.out)} == {"f_plain", "f_lea"}
    assert wrong.code == 2


def test_other_words_for_dispatch_are_refused() -> None:
    with pytest.raises(BadInput, match="no way to dispatch"):
        attach(os.getpid(), Options(dispatch="hash"))


def test_instances_share_the_list(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=100", account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], list[int]]:
            with attach(target.pid, LISTED) as session:
                rings: list[Instance] = [session.instance(str(i), BIG) for i in range(3)]
                every: list[Ops] = [
                    one.register(tracing.recording("f_lea", *["f_nop5"] * i))
                    for i, one in enumerate(rings)
                ]
                target.go()
                target.await_calls("f_plain", 300)
                held = target.hold()
                sums = [sum(len(b.records) for b in one.consume()) for one in rings]
                rings[0].unregister(every[0])
                session.remove_instance(rings[1])
                target.go()
                target.await_calls("f_plain", 300)
                target.hold()
                return held, sums

        held, sums = account.run(controller)
        target.go()
        assert target.stop().is_well
    both = held["f_lea"] + held["f_nop5"]
    assert sums == [held["f_lea"], both, both]
