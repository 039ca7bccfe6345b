"""Patched text, counters, rings and the region that once went wrong: each test is one case."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import traceback
import warnings
from collections import Counter
from collections.abc import Callable

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.cli import folder_of
from tests.support.process import Target as Program
from tests.support.process import start
from tests.support.state import diff, read_maps, snapshot
from tests.support.unprivileged import Account

from fentry.errors import FentryError, RegionError
from fentry.process.remote import OnResult, Remote
from fentry.process.stub import Call
from fentry.process.target import Target
from fentry.session import Options, adopt, attach

SMALL = Options(buffer_bytes=1 << 16)
BIG = Options(buffer_bytes=8 << 20)


def killed(account: Account, controller: Callable[[], object]) -> None:
    """Run a controller that ends by killing itself."""
    child = os.fork()
    if not child:
        try:
            account.become()
            controller()
        except BaseException:  # the child must never return into the test
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    assert os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# 1. Text


def test_calls_are_exact_after_a_transaction_that_failed(account: Account) -> None:
    """A breakpoint appears between the look at the text and the stop: nothing may be kept."""
    with start(
        build("hot.c"), "threads=2", "pause_us=100", "check=0", account=account, hold=True
    ) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str]]:
            with attach(target.pid, BIG) as session:
                at = int(session.functions.symbols.match("f_target")[0])
                memory = session.target.memory
                old = memory.read(at, 1)
                prepare = session._memory.prepare

                def prepare_and_break(ops: tracing.Ops) -> None:
                    prepare(ops)
                    memory.write(at, b"\xcc")

                session._memory.prepare = prepare_and_break  # type: ignore[method-assign]
                with pytest.raises(FentryError):
                    session.register(tracing.counting("f_plain", "f_frame", "f_target"))
                session._memory.prepare = prepare  # type: ignore[method-assign]
                memory.write(at, old)

                session.register(tracing.recording("f_plain", "f_frame"))
                count = session.register(tracing.counting("f_plain", "f_target"))
                target.go()
                target.await_calls("f_plain", 100)
                held = target.hold()
                assert tracing.dropped(session) == 0
                return held, tracing.recorded(session), tracing.counted(session, count)

        held, records, counts = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    assert records == {name: held[name] for name in ("f_plain", "f_frame")}
    assert counts == {name: held[name] for name in ("f_plain", "f_target")}
    assert found == []


def test_deleted_program_gets_its_own_text_back_from_an_adopter(account: Account) -> None:
    """Without privilege the file can be opened as the program of the process only."""
    with folder_of(account) as folder:
        program = folder / "program"
        shutil.copy(build("hot.c"), program)
        program.chmod(0o755)
        with start(program, "threads=2", "pause_us=100", account=account) as target:
            program.unlink()
            before = snapshot(target.pid)

            def trace_and_die() -> None:
                session = attach(target.pid, SMALL)
                session.register(tracing.counting("program*!*"))
                die()

            killed(account, trace_and_die)
            assert diff(before, snapshot(target.pid)) != []
            target.await_calls("f_plain", 10)

            def go_on() -> int:
                with adopt(target.pid, SMALL) as session:
                    (ops,) = session.ops.values()
                    target.await_calls("f_plain", 10)
                    _, calls = session.counts(ops)
                    total = int(calls.sum())
                    session.unregister(ops)
                    return total

            assert account.run(go_on) >= 20
            target.await_calls("f_plain", 10)
            assert diff(before, snapshot(target.pid)) == []
            assert target.stop().is_well


@pytest.mark.parametrize("reopened", [False, True])
def test_library_that_was_closed_does_not_block_other_changes(
    account: Account, reopened: bool
) -> None:
    library = f"library={build('libdso.c')}"
    with start(build("reopen.c"), library, account=account) as target:

        def toggle(counter: str) -> None:
            before = target.counters()[counter]
            os.kill(target.pid, signal.SIGUSR1)
            target.await_condition(lambda: target.counters()[counter] > before, counter)

        def controller() -> tuple[int, int]:
            with attach(target.pid, SMALL) as session:
                one = session.register(tracing.counting("f_library"))
                both = session.register(tracing.counting("f_main", "f_library"))
                target.await_calls("f_library", 5)
                toggle("closes")
                if reopened:
                    toggle("opens")
                session.unregister(one)
                session.unregister(both)
                main = session.register(tracing.counting("f_main"))
                target.hold()
                held = target.counters()["f_main"]
                counted = tracing.counted(session, main)["f_main"]
                target.go()
                target.await_calls("f_main", 20)
                now = target.hold()["f_main"]
                return now - held, tracing.counted(session, main)["f_main"] - counted

        calls, counted = account.run(controller)
        assert [m for m in read_maps(target.pid) if m.path.startswith("/memfd:fentry")] == []
        target.go()
        target.await_calls("f_main", 5)
        assert target.stop().is_well
    assert calls == counted >= 20


def test_cold_part_reached_by_a_jump_table_alone_is_no_function(account: Account) -> None:
    """Without symbols it looks like a function: it has unwind information of its own."""
    whole, bare = build("cold_jump.c"), build("cold_jump.c", stripped=True)
    shown = subprocess.run(["nm", whole], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in shown.splitlines()]
    offset = {name: int(at, 16) for at, _, name in (words for words in lines if len(words) == 3)}
    with start(bare, account=account) as target:
        base = next(m.start for m in read_maps(target.pid) if m.path == str(bare))

        def controller() -> tuple[list[int], list[int]]:
            with attach(target.pid, SMALL) as session:
                table = session.functions.table
                session.register(tracing.counting(f"{bare.stem}*!*"))
                target.await_calls("f_switch", 100)
                return table.ip.tolist(), table.ip[table.traceable & ~table.part].tolist()

        known, traceable = account.run(controller)
        assert target.stop().is_well
    assert base + offset["f_switch"] in known
    assert base + offset["f_switch.cold"] not in traceable


# 2. Counters


@pytest.mark.parametrize(("moved", "calls"), [(0, 10), (1, 10), (1, 20_000)])
def test_vfork_children_are_counted_exactly_beside_a_thread(
    account: Account, moved: int, calls: int
) -> None:
    with start(
        build("vforked.c"), f"moved={moved}", f"calls={calls}", account=account, hold=True
    ) as target:

        def controller() -> tuple[int, int, int]:
            with attach(target.pid, SMALL) as session:
                ops = session.register(tracing.counting("f_hot"))
                target.go()
                target.await_calls("children", 40 if calls == 10 else 5)
                held = target.hold()
                return held["f_hot"], tracing.counted(session, ops)["f_hot"], held["children"]

        made, counted, children = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert counted == made > children * calls


# 3. Rings that the target wrote over, and rings of the dead


@pytest.mark.parametrize("head", [0, 1 << 63, (1 << 64) - 1])
def test_live_ring_with_an_impossible_head_is_an_error_and_harms_nothing(
    account: Account, head: int
) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=200", account=account) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[bool, bool]:
            warnings.simplefilter("error")
            with attach(target.pid, SMALL) as session:
                session.register(tracing.recording("f_*"))
                target.await_calls("f_plain")
                target.hold()
                ring = session.top._ring
                assert ring is not None
                ring.lines["head"][0] = head
                with pytest.raises(RegionError, match="ring of CPU 0 is damaged"):
                    list(session.consume())
                stats = session.stats
                assert stats is not None
                sane = 0.0 <= session.fill <= 1.0, stats.total >= 0
                ring.lines["head"][0] = ring.tails["tail"][0]  # writers go on at a true place
                target.go()
                return sane

        assert account.run(controller) == (True, True)
        target.await_calls("f_plain", 5)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def test_ring_with_a_header_that_lies_is_not_adopted(account: Account) -> None:
    with start(build("hot.c"), "threads=1", "pause_us=200", account=account) as target:
        before = snapshot(target.pid)

        def trace_and_die() -> None:
            session = attach(target.pid, SMALL)
            session.register(tracing.recording("f_*"))
            die()

        killed(account, trace_and_die)

        def try_to_adopt() -> None:
            ours = Target(target.pid)
            ring = next(m for m in read_maps(target.pid) if "fentry-ring" in m.path)
            ours.memory.write(ring.start, bytes([255]) * 64)
            ours.close()
            with pytest.raises(RegionError, match=r"ring of process \d+ is damaged"):
                adopt(target.pid, SMALL)

        account.run(try_to_adopt)
        account.run(tracing.detach_as_command, target.pid)
        target.await_calls("f_plain", 5)
        assert diff(before, snapshot(target.pid)) == []
        assert target.stop().is_well


def test_ring_left_by_a_death_in_the_middle_of_an_adoption_is_removed(account: Account) -> None:
    """The adopter dies when the new ring is mapped, and not yet moved over the old one."""
    with start(build("hot.c"), "threads=2", "pause_us=200", account=account) as target:
        before = snapshot(target.pid)

        def trace_and_die() -> None:
            session = attach(target.pid, Options(buffer_bytes=1 << 20))
            session.register(tracing.recording("f_*"))
            die()

        killed(account, trace_and_die)
        assert nr_rings(target) == 1

        def adopt_and_die() -> None:
            run = Remote.run

            def run_or_die(
                self: Remote, calls: list[Call], on_result: OnResult | None = None, **others: object
            ) -> list[int]:
                if calls[0].name == "mremap":
                    die()
                return run(self, calls, on_result, **others)  # type: ignore[arg-type]

            Remote.run = run_or_die  # type: ignore[method-assign, assignment]
            adopt(target.pid)

        killed(account, adopt_and_die)
        assert nr_rings(target) == 2
        account.run(tracing.detach_as_command, target.pid)
        assert diff(before, snapshot(target.pid)) == []
        target.await_calls("f_plain", 5)
        assert target.stop().is_well


def nr_rings(target: Program) -> int:
    return sum("fentry-ring" in m.path for m in read_maps(target.pid))
