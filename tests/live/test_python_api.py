"""The Python API on live processes: traces, streams, counts, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import compile_c, folder_of
from tests.support.cli import fentry as command
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

import fentry
from fentry.errors import BadInput, LockError, SymbolNotFound
from fentry.tracing import Event, Table

BIG = fentry.Options(buffer_bytes=4 << 20)
PAIR = ("f_plain", "f_lea")

# Calls f once for every line it reads and answers it, and g twice at the end; reads none if it has
# an argument.
SERVER = r"""
#include <stdio.h>
#include <unistd.h>
__attribute__((noipa)) int f(int i) { return i + 1; }
__attribute__((noipa)) int g(int i) { return i - 1; }
int main(int argc, char **argv) {
    char line[64];
    int i = 0;
    (void)argv;
    while (argc == 1 && fgets(line, sizeof line, stdin)) {
        i = f(i);
        printf("%d\n", i);
        fflush(stdout);
    }
    return g(g(9));
}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with folder_of(Account("current", os.getuid())) as folder:
        yield compile_c(folder, SERVER)


class Child:
    """The server, as a test that uses fentry starts it."""

    def __init__(self, program: Path) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([program], text=True, **pipes)  # type: ignore[call-overload]
        self.pid: int = self.process.pid

    def ask(self) -> int:
        """One call of f."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Two calls of g, then its exit code."""
        self.process.stdin.close()
        return int(self.process.wait())


# 1. Traces


def test_a_trace_has_every_call_and_leaves_nothing(account: Account) -> None:
    with start(build("hot.c"), "threads=3", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                with session.trace("f_*", exclude="f_t*") as trace:
                    target.go()
                    target.await_calls("f_plain", 500)
                    held = target.hold()
                    running = trace.table()
                table = trace.table()
                made = {
                    name: count
                    for name, count in held.items()
                    if name.startswith("f_") and not name.startswith("f_t") and count
                }
                made.pop("f_loop_at_one")  # it is refused, and says so in `fentry list`
                assert trace.counts() == table.counts() == running.counts() == made
                assert len(trace) == len(table) == trace.calls == sum(made.values())
                assert not trace.lost and trace.counts()["f_*"] == len(trace)
                assert bool(np.all(np.diff(table.time_ns) >= 0))
                assert len(np.unique(table.tid)) == 3
                assert set(np.unique(table.parent)) == {"check_call"}
                assert set(np.unique(table.module)) == {build("hot.c").name}
                assert set(np.unique(table.comm)) == {build("hot.c").name[:15]}
                assert table.to_pandas()["function"].value_counts().to_dict() == made
                assert table.to_arrow().num_rows == len(table)
                assert len(session.instances) == 1 and not session.ops

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        end = target.stop()
    assert end.is_well, end.err


def test_times_are_those_of_the_monotonic_clock(account: Account, server: Path) -> None:
    def controller() -> None:
        import time

        child = Child(server)
        with fentry.attach(child.pid) as session, session.trace("f") as trace:
            moments = []
            for _ in range(3):
                moments.append(time.monotonic_ns())
                child.ask()
            moments.append(time.monotonic_ns())
            for number, event in enumerate(trace.table()):
                assert moments[number] < event.time_ns < moments[number + 1]
                assert (event.function, event.parent, event.tid) == ("f", "main", child.pid)
        assert len(trace) == 3
        child.end()

    account.run(controller)


def test_an_error_in_the_block_restores(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            session = fentry.attach(target.pid)
            with pytest.raises(ZeroDivisionError):
                with session.trace("f_plain") as trace, session.counting("f_lea") as calls:
                    target.go()
                    target.await_calls("f_plain", 100)
                    target.hold()
                    raise ZeroDivisionError
            assert not session.ops and not trace.is_running
            assert len(trace) >= 100 and calls["f_lea"] >= 100
            with pytest.raises(KeyboardInterrupt), session:
                session.trace("f_*").start()
                raise KeyboardInterrupt

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_what_cannot_be_restored_yet_goes_on_and_is_tried_again(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                unregister, trace, calls = session.unregister, session.trace, session.counting

                def busy(ops: fentry.Ops) -> None:
                    raise LockError("somebody else is at it")

                for made in (trace("f_plain"), calls("f_plain")):
                    session.unregister = busy  # type: ignore[method-assign]
                    with pytest.raises(LockError), made:
                        pass
                    session.unregister = unregister  # type: ignore[method-assign]
                    assert not made.has_ended and len(session.ops) == 1
                    target.go()
                    target.await_calls("f_plain")
                    target.hold()
                    made.stop()
                    assert made.has_ended and not session.ops
                    assert made.counts()["f_plain"] > 0

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_another_controller_may_detach_meanwhile(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                with session.trace(*PAIR) as trace, session.counting(*PAIR) as calls:
                    target.go()
                    target.await_calls("f_plain", 100)
                    held = target.hold()
                    tracing.detach_as_command(target.pid)
                    assert trace.wait() == "another controller detached it"
            assert trace.counts() == calls == {name: held[name] for name in PAIR}

        account.run(controller)
        target.go()
        assert target.stop().is_well


def test_several_traces_at_once_each_with_its_functions(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                with session.trace("f_plain", "f_nop5", parents=False) as outer:
                    target.go()
                    target.await_calls("f_plain", 300)
                    first = target.hold()
                    with session.trace("f_nop5", "f_lea") as inner:
                        target.go()
                        target.await_calls("f_plain", 300)
                        second = target.hold()
                    target.go()
                    target.await_calls("f_plain", 300)
                    third = target.hold()
            assert outer.counts() == {name: third[name] for name in ("f_plain", "f_nop5")}
            assert inner.counts() == {
                name: second[name] - first[name] for name in ("f_nop5", "f_lea")
            }
            assert outer.table().parent_ip is None and inner.table().parent_ip is not None

        account.run(controller)
        target.go()
        assert target.stop().is_well


@pytest.mark.parametrize("options", [{"max_events": 1000}, {"overwrite": True}])
def test_what_does_not_fit_is_counted(account: Account, options: dict[str, object]) -> None:
    small = fentry.Options(buffer_bytes=1 << 14)
    with start(build("hot.c"), "threads=2", account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid, small) as session:
                with session.trace("f_plain", **options) as trace:  # type: ignore[arg-type]
                    target.go()
                    target.await_calls("f_plain", 20_000)
                    held = target.hold()["f_plain"]
            assert trace.lost
            assert trace.calls == len(trace.table()) + trace.lost.total == held
            assert bool(trace.lost.overrun) is ("overwrite" in options)
            assert trace.table().lost == trace.lost

        account.run(controller)
        target.go()
        assert target.stop().is_well


def test_a_target_that_dies_meanwhile_is_no_error(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                with session.trace(*PAIR) as trace, session.counting(*PAIR) as calls:
                    target.go()
                    target.await_calls("f_plain", 300)
                    held = target.hold()
                    os.kill(target.pid, signal.SIGKILL)
                    assert trace.wait(60) == "the process ended"
            made = {name: held[name] for name in PAIR}
            assert trace.counts() == calls == made
            assert trace.calls == sum(made.values())

        account.run(controller)


def test_functions_of_a_library_that_is_loaded_later(account: Account) -> None:
    library = build("libdso.c")
    words = f"library={library}", "keep=1"
    with start(build("dso.c"), *words, account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid) as session:
                word = "libdso*.so*!f_library"
                with session.trace(word) as trace, session.counting(word) as calls:
                    assert trace.counts() == {} and calls == {}
                    target.go()
                    target.await_condition(lambda: trace.counts().functions != [], "it is loaded")
                    first = target.hold()["f_library"], len(trace), calls["f_library"]
                    target.go()
                    target.await_calls("f_library", 500)
                    last = target.hold()["f_library"], len(trace), calls["f_library"]
            assert last[0] - first[0] == last[1] - first[1] == last[2] - first[2] >= 500
            assert set(trace.table().module) == {library.name}

        account.run(controller)
        target.go()
        assert target.stop().is_well


def test_a_function_that_there_is_not_is_refused_and_nothing_is_left(account: Account) -> None:
    with start(build("hot.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            with fentry.attach(target.pid) as session:
                for tried in (session.trace("f_plian"), session.counting("f_plian")):
                    with pytest.raises(SymbolNotFound) as found, tried:
                        pass
                    assert "f_plain" in found.value.near
                assert len(session.instances) == 1
            with pytest.raises(SymbolNotFound), fentry.counting(target.pid, "f_plian"):
                pass

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()


def test_leaving_a_session_ends_what_was_not_ended(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                trace, calls = session.trace(*PAIR).start(), session.counting(*PAIR).start()
                target.go()
                target.await_calls("f_plain", 300)
                held = target.hold()
            made = {name: held[name] for name in PAIR}
            assert trace.table().counts() == trace.counts() == calls == made
            trace.stop()
            with pytest.raises(BadInput, match="started already"):
                trace.start()

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_what_was_not_started_says_so(account: Account, server: Path) -> None:
    def controller() -> None:
        child = Child(server)
        with fentry.attach(child.pid) as session:
            trace, calls = session.trace("f"), session.counting("f")
            assert "not started" in repr(trace) and "not started" in repr(calls)
            assert trace._repr_html_() == calls._repr_html_() == ""
            for ask in (trace.table, trace.counts, calls.counts, lambda: trace.lost):
                with pytest.raises(BadInput, match="not been started"):
                    ask()
            trace.stop()
            calls.stop()
        child.end()

    account.run(controller)


def test_records_without_time_are_traced_as_well(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=50", account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                with session.trace("f_plain", clock="percpu-counter") as trace:
                    target.go()
                    target.await_calls("f_plain", 300)
                    held = target.hold()["f_plain"]
            table = trace.table()
            assert trace.counts() == {"f_plain": held} and not table.has_time
            for cpu in np.unique(table.cpu).tolist():
                numbers = table.filter().time_ns[table.cpu == cpu]
                assert numbers.tolist() == list(range(len(numbers)))

        account.run(controller)
        target.go()
        assert target.stop().is_well


# 2. Streams


def test_a_stream_gives_every_call_in_order_and_ends_with_the_target(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                seen: Counter[str] = Counter()
                with session.stream(*PAIR, batches=True) as tables:
                    target.go()
                    for table in tables:
                        seen.update(table.counts())
                        assert bool(np.all(np.diff(table.time_ns) >= 0))
                        if seen["f_plain"] >= 500 and target.control is not None:
                            target.control.stop()
                assert tables.why_ended == "the process ended"
                assert not tables.lost
                made = target.counters()
                assert seen == {name: made[name] for name in PAIR}

        account.run(controller)


def test_a_stream_ends_after_its_duration_and_restores(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> None:
            with fentry.attach(target.pid) as session:
                stream = session.stream("f_plain", duration=0.05)
                target.go()
                assert {event.function for event in stream} <= {"f_plain"}
                assert stream.why_ended == "time is up" and not session.ops
                for event in session.stream("f_lea"):
                    assert isinstance(event, Event) and event.function == "f_lea"
                    break
                assert not session.ops
                target.hold()

        account.run(controller)
        assert diff(before, snapshot(target.pid)) == []
        target.go()
        assert target.stop().is_well


def test_a_running_trace_can_be_streamed_and_keeps_its_calls(account: Account) -> None:
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account, hold=True) as target:

        def controller() -> None:
            with fentry.attach(target.pid, BIG) as session:
                with session.trace("f_plain") as trace:
                    target.go()
                    target.await_calls("f_plain", 300)
                    held = target.hold()["f_plain"]
                    streamed: list[Table] = list(trace.stream(0.05, batches=True))
                table = trace.table()
                assert len(table) == held
                times = np.concatenate([part.time_ns for part in streamed])
                assert times.tolist() == table.time_ns.tolist()

        account.run(controller)
        target.go()
        assert target.stop().is_well


# 3. Counts, as tests use them


def test_a_test_can_say_how_often_a_function_is_called(account: Account, server: Path) -> None:
    def controller() -> None:
        child = Child(server)
        with fentry.counting(child.pid, "f", "g") as calls:
            child.ask()
            assert calls["f"] == 1
            child.ask()
        assert calls["f"] == 2
        assert calls["g"] == 0
        assert calls == {"f": 2} and calls.total == 2
        child.ask()
        assert calls["f"] == 2
        with pytest.raises(LookupError, match="no function that was traced matches 'h'"):
            calls["h"]
        child.end()

    account.run(controller)


def test_a_child_is_waited_for_in_the_block_as_always(account: Account, server: Path) -> None:
    def controller() -> None:
        child = Child(server)
        with fentry.attach(child.pid) as session:
            with session.trace("g") as trace, session.counting("g") as calls:
                child.ask()
                assert child.end() == 7
        assert calls["g"] == len(trace) == 2
        child = Child(server)
        with fentry.counting(child.pid, "g") as calls:
            assert child.end() == 7
        assert calls["g"] == 2

    account.run(controller)


def test_a_command_is_let_go_when_its_exit_is_waited_for(account: Account, server: Path) -> None:
    alone = [str(server), "alone"]

    def controller() -> None:
        with fentry.run(alone) as session:
            with session.counting("main", "g") as calls, session.trace("g") as trace:
                assert session.is_held
                assert session.exit_code() == 7
        assert calls == {"g": 2, "main": 1}
        assert [event.parent for event in trace.table()] == ["main", "main"]
        with fentry.run(alone) as session:
            assert [event.function for event in session.stream("g")] == ["g", "g"]
            session.exit_code()
        with fentry.run(alone) as session, session.counting("g") as calls:
            assert session.wait() == "the process ended"
        assert calls["g"] == 2

    account.run(controller)


def test_the_process_that_asks_cannot_be_traced(account: Account) -> None:
    def controller() -> None:
        for ask in (fentry.attach, lambda pid: fentry.counting(pid, "f").start()):
            with pytest.raises(BadInput, match=r"(?s)attach to itself.*ptrace.*fentry\.run"):
                ask(os.getpid())

    account.run(controller)


# 4. Files


def test_a_file_is_asked_as_a_live_trace_is(account: Account, server: Path) -> None:
    with folder_of(account) as folder:
        path = folder / "trace.fentry"
        done = command(
            account, "record", "-F", "main", "-F", "g", "-o", path, "--", server, "alone"
        )
        assert done.code == 7, done.err

        def controller() -> None:
            with fentry.open(path) as trace:
                assert trace.counts() == {"g": 2, "main": 1}
                table = trace.table("g")
                assert table.parent.tolist() == ["main", "main"]
                assert [event.function for event in trace.stream()] == ["main", "g", "g"]
                assert not trace.lost and len(trace) == 3

        account.run(controller)


def test_a_command_is_let_go_by_the_thread_that_holds_it(account: Account) -> None:
    program = str(build("turns.c"))

    def controller() -> tuple[list[str], str, int]:
        refused: list[str] = []

        def elsewhere() -> None:
            try:
                session.wait()
            except LockError as error:
                refused.append(error.what)

        with fentry.run([program]) as session:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            return refused, session.wait(), session.exit_code()

    refused, why, code = account.run(controller)
    assert len(refused) == 1 and "is stopped by another thread of this process" in refused[0]
    assert (why, code) == ("the process ended", 0)
