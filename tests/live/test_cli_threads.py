"""--tid, --not-tid, --thread and -f of record and stat; what status says, and who adopts it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import fentry, folder_of
from tests.support.process import Target, start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, Completed, _captured_main

from fentry.cli.__main__ import main
from fentry.dispatch.threads import ThreadFilter
from fentry.session import attach


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


@pytest.fixture
def target(account: Account) -> Iterator[Target]:
    with start(build("known.c"), account=account) as running:
        all_work(running)  # so that each has told its tid
        yield running


def tids_in(account: Account, trace: Path) -> set[int]:
    """Threads that have records in a trace."""
    shown = fentry(account, "report", "-i", trace, "--json")
    assert shown.code == 0, shown.err
    return {json.loads(line)["tid"] for line in shown.out.splitlines()}


def record_during(
    account: Account,
    target: Target,
    trace: Path,
    *words: object,
    happens: Callable[[], object],
    interrupt: bool = True,
) -> Completed:
    """What record says that is interrupted when `happens()` has returned; it is called when it
    records."""

    def run() -> Completed:
        sender = os.fork()
        if not sender:
            try:
                target.await_condition(trace.exists, "recorded")
                happens()
                if interrupt:
                    os.kill(os.getppid(), signal.SIGINT)
            finally:
                os._exit(0)
        done = _captured_main(
            main, ["fentry", "record", "-p", str(target.pid), "-o", str(trace), *map(str, words)]
        )
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it may have ended by itself
        os.kill(sender, signal.SIGKILL)
        os.waitpid(sender, 0)
        return done

    return account.run(run)


def all_work(target: Target) -> None:
    """Wait until each of the four threads has made calls from now on."""
    begun = target.counters()
    names = [f"calls.w{n}" for n in range(4)]
    target.await_condition(
        lambda: all(target.counters()[n] > begun[n] + 20 for n in names), "all at work"
    )


def leave_traced(account: Account, target: Target, *filters: ThreadFilter) -> None:
    """A controller that registers ops with these filters and dies."""
    child = os.fork()
    if not child:
        try:
            account.become()
            session = attach(target.pid, tracing.SMALL)
            for wanted in filters:
                ops = tracing.recording("f_one")
                ops.threads = wanted
                session.register(ops)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


KINDS = {
    "two": (("--tid", "{0},{1}"), {0, 1}),
    "again": (("--tid", "{0}", "--tid", "{3}"), {0, 3}),
    "less": (("--not-tid", "{1}, {2}"), {0, 3}),
    "both": (("--tid", "{0},{1}", "--not-tid", "{1}"), {0}),
    "named": (("--thread", "w[12]"), {1, 2}),
    "named, less": (("--thread", "w?", "--not-tid", "{2}"), {0, 1, 3}),
    "all": ((), {0, 1, 2, 3}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_record_has_the_chosen_threads(
    account: Account, folder: Path, target: Target, kind: str
) -> None:
    w = [target.counters()[f"tid.w{n}"] for n in range(4)]
    options, numbers = KINDS[kind]
    words = [word.format(*w) for word in options]
    before = snapshot(target.pid)
    done = record_during(
        account, target, folder / "t", "-F", "f_*", *words, happens=lambda: all_work(target)
    )
    assert done.code == 0, done.err
    assert " events, 0 dropped; 2 functions traced, 0 refused; " in done.err
    assert "was named" not in done.err
    assert tids_in(account, folder / "t") == {w[n] for n in numbers}
    target.hold()
    assert diff(before, snapshot(target.pid)) == []
    target.go()
    assert target.stop().is_well


def test_stat_counts_the_chosen_threads(account: Account) -> None:
    with start(build("known.c"), "threads=2", account=account, hold=True) as target:
        w1 = target.counters()["tid.w1"]

        def run() -> tuple[Completed, int, int]:
            sender = os.fork()
            if not sender:  # opens the gate when it is counted, and interrupts at the gate
                try:
                    os.kill(_when_traced(target), 2)
                finally:
                    os._exit(0)
            words = ["fentry", "stat", "-p", str(target.pid), "-F", "f_one", "--json"]
            done = _captured_main(main, [*words, "--tid", str(w1)])
            os.waitpid(sender, 0)
            found = target.counters()
            return done, found["calls.w1"], found["calls.w0"]

        done, calls, others = account.run(run)
        target.go()
        assert target.stop().is_well
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["calls"] == calls > 0
    assert others > 0


def _when_traced(target: Target) -> int:
    def is_traced() -> bool:
        machine = fentry(Account("current", os.getuid()), "status", "-p", target.pid, "--json")
        return machine.code == 0 and json.loads(machine.out).get("sites") == 1

    target.await_condition(is_traced, "traced")
    target.go()
    target.await_calls("calls.w1", 100)
    target.hold()
    return os.getppid()


def test_follow_takes_threads_that_are_made_meanwhile(
    account: Account, folder: Path, target: Target
) -> None:
    w0 = target.counters()["tid.w0"]

    def more() -> None:
        target.wish(2)
        for name in ("calls.x1", "calls.x2"):
            target.await_condition(lambda name=name: target.counters()[name] > 20, name)
        all_work(target)

    done = record_during(
        account, target, folder / "t", "-F", "f_one", "--tid", w0, "-f", happens=more
    )
    assert done.code == 0, done.err
    fresh = {target.counters()[f"tid.x{n}"] for n in (1, 2)}
    assert tids_in(account, folder / "t") == {w0, *fresh}
    target.wish(0)
    assert target.stop().is_well


def test_threads_of_a_command_are_found_by_name(account: Account, folder: Path) -> None:
    done = fentry(account, "record", "-F", "f_*", "--thread", "w2", "--thread", "no*", "-o",
                  folder / "t", "--", build("known.c"), "seconds=1")  # fmt: skip
    assert done.code == 0, done.err
    assert "; no thread was named no*; next: " in done.err
    shown = fentry(account, "report", "-i", folder / "t", "--json")
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert len(rows) > 100
    assert len({row["tid"] for row in rows}) == 1
    assert "w2" in {row["comm"] for row in rows}  # it had the command's name before


def test_a_thread_that_takes_an_earlier_name_again_is_called_so(
    account: Account, folder: Path
) -> None:
    with start(build("lives.c"), account=account) as target:

        def take_names() -> None:
            for number in (1, 2, 1):
                known = trace.read_bytes().count(b"_life-%d" % number) if trace.exists() else 0
                target.wish(number)
                target.await_condition(
                    lambda number=number, known=known: (
                        trace.exists() and trace.read_bytes().count(b"_life-%d" % number) > known
                    ),
                    "a name in the file",
                )
                target.await_calls("lives", 20)

        trace = folder / "t"
        done = record_during(account, target, trace, "-F", "pthread_join", happens=take_names)
        assert target.stop().is_well
    assert done.code == 0, done.err
    shown = fentry(account, "report", "-i", trace, "--json")
    names = [json.loads(line)["comm"] for line in shown.out.splitlines()]
    assert [name for name, _ in groupby(names) if name.startswith("_life")] == [
        "_life-1", "_life-2", "_life-1",
    ]  # fmt: skip


REFUSED = {
    "no number": (("--tid", "x"), "'x' is no thread id", "--tid 1234,1235"),
    "a comma too much": (("--tid", "1,"), "'' is no thread id", "--tid 1234,1235"),
    "somebody else's": (("--tid", "1"), "1: no thread of process", "ps -L"),
    "nobody's": (("--not-tid", "4194304"), "4194304: no thread of process", "ps -L"),
    "an empty name": (("--thread", ""), "an empty name", "'*' for all"),
    "adopted": (("--adopt", "--tid", "{0}"), "--adopt goes on with", "--tid"),
}


@pytest.mark.parametrize(
    ("word", "kind"), [*(("record", kind) for kind in REFUSED), ("stat", "no number")]
)
def test_what_cannot_be_meant_is_refused_untouched(
    account: Account, target: Target, word: str, kind: str
) -> None:
    options, what, remedy = REFUSED[kind]
    words = [part.format(target.pid) for part in options]
    done = fentry(account, word, "-p", target.pid, "-F", "f_*", *words)
    assert done.code == 2, done.err
    assert done.err.startswith(f"fentry: {what}"), done.err
    assert remedy in done.err
    assert "memfd:fentry" not in Path(f"/proc/{target.pid}/maps").read_text()


def test_a_command_has_no_tids_yet(account: Account) -> None:
    done = fentry(account, "record", "--tid", "1", "--", "true")
    assert (done.code, "need -p PID" in done.err) == (2, True)


def test_a_program_without_thread_ids_is_refused_and_restored(account: Account) -> None:
    with start(build("nolibc.c"), account=account) as target:
        before = snapshot(target.pid)
        done = fentry(account, "record", "-p", target.pid, "-F", "f_raw", "--tid", target.pid,
                      "-o", "/dev/null")  # fmt: skip
        target.hold()
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().code == 0
    assert done.code == 2
    assert "cannot be told apart" in done.err


def test_status_tells_which_threads_ops_see(account: Account, target: Target) -> None:
    w = [target.counters()[f"tid.w{n}"] for n in range(4)]
    target.wish(1)
    target.await_condition(lambda: target.counters()["calls.x1"] > 0, "x1 at work")
    x1 = target.counters()["tid.x1"]
    before = snapshot(target.pid)
    filters = [
        ThreadFilter({w[0], x1}),
        ThreadFilter({w[0]}, {x1}, ("w* x",), follow=True),
        ThreadFilter(notrace_tids={w[1]}),
        ThreadFilter({x1}),
        ThreadFilter(),
    ]
    leave_traced(account, target, *filters)
    target.hold()
    shown = fentry(account, "status", "-p", target.pid)
    target.go()
    target.wish(0)
    target.await_condition(lambda: x1 not in target.tids(), "x1 has ended")
    machine = json.loads(fentry(account, "status", "-p", target.pid, "--json").out)
    restored = fentry(account, "detach", "-p", target.pid)
    first, last = sorted((w[0], x1))
    lines = [line for line in shown.out.splitlines() if line.startswith("  ops ")]
    assert [line.partition(" functions)")[2] for line in lines] == [
        f", threads {first}, {last}",
        f", threads {w[0]}, named 'w* x', new ones, not {x1}",
        f", threads not {w[1]}",
        f", threads {x1}",
        "",
    ]
    assert [ops["threads"] for ops in machine["ops"]] == [
        f"{w[0]}", f"{w[0]}, named 'w* x', new ones", f"not {w[1]}", "none that lives", "",
    ]  # fmt: skip
    assert restored.code == 0
    target.hold()
    assert diff(before, snapshot(target.pid), ignore=["threads"]) == []
    target.go()
    assert target.stop().is_well


def test_record_adopts_with_its_threads(account: Account, folder: Path, target: Target) -> None:
    w0 = target.counters()["tid.w0"]
    leave_traced(account, target, ThreadFilter({w0}))
    all_work(target)
    done = fentry(account, "record", "--adopt", "-p", target.pid, "-d", "100ms", "-o", folder / "t")
    assert done.code == 0, done.err
    assert tids_in(account, folder / "t") == {w0}
    assert target.stop().is_well
