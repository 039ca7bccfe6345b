"""What controllers leave that die while the target makes a system call for them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support import tracing
from tests.support.beside import Line, beside
from tests.support.build import build
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account, ChildFailed

from fentry.errors import AttachError
from fentry.process import ptrace, stop
from fentry.process import target as process
from fentry.process.gather import Pieces
from fentry.process.maps import read_maps
from fentry.process.proc import list_tids
from fentry.process.remote import ROOM_BYTES
from fentry.process.stop import OTHERS_LIMIT_S, Stop
from fentry.process.stub import Call
from fentry.region import region as regions
from fentry.region.layout import State
from fentry.session import Session, adopt, attach

CAP_SYS_PTRACE = 19  # linux/capability.h
GETPID = Call(39, (), name="getpid")


def test_a_page_that_lent_its_end_to_a_stub_is_shared_again(account: Account) -> None:
    def dies(line: Line, pid: int) -> None:
        def die(i: int, result: int) -> bool:
            os.kill(os.getpid(), signal.SIGKILL)
            return True

        with process.Target(pid).stopped() as halt:
            halt.remote.run([GETPID], die)

    with start(build("hot.c"), "threads=1", "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> list[str]:
            with attach(target.pid, tracing.SMALL) as session:
                with beside(account, dies, target.pid) as other, pytest.raises(ChildFailed):
                    other.hear()
                with session.target.stopped() as halt:
                    assert halt.remote.run([GETPID]) == [target.pid]
                return diff(before, snapshot(target.pid), ignore=("maps", "descriptors"))

        between = account.run(controller)
        left = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    # The stub of the one that died, and a page that somebody else's was written to.
    assert [line.partition(":")[0] for line in between] == ["text", "pages"]
    assert "[vdso]" in between[0]
    assert left == []


def built_to_the_end(place: Path) -> Path:
    """A program whose code ends 64 bytes or so before a page does."""
    plain = build("callbacks.c")
    headers = subprocess.run(["readelf", "-lW", plain], capture_output=True, text=True, check=True)
    text = re.search(r"LOAD +(\w+) \w+ \w+ (\w+) \w+ R E", headers.stdout)
    assert text
    end = int(text[1], 16) + int(text[2], 16)
    filler = place / "filler.s"
    fill = f".text\n.fill {(-end - 64) % 4096}, 1, 0x90\n"
    filler.write_text(fill + '.section .note.GNU-stack, "", @progbits\n')
    return build("callbacks.c", flags=(str(filler),))


def test_pages_of_a_program_whose_code_goes_to_its_end_are_shared_again(
    account: Account, tmp_path: Path
) -> None:
    program = built_to_the_end(tmp_path)
    with start(program, "threads=1", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[bytes, list[str]]:
            with attach(target.pid, tracing.SMALL) as session:
                session.register(tracing.counting(f"{program.name}!*"))
                maps = read_maps(target.pid)
                text = next(m for m in maps if m.executable and m.path == str(program))
                end = session.target.memory.read(text.end - ROOM_BYTES, ROOM_BYTES)
                return end, diff(before, snapshot(target.pid), ignore=("maps", "descriptors"))

        end, between = account.run(controller)
        left = diff(before, snapshot(target.pid))
        target.go()
        assert target.stop().is_well
    assert any(end)
    assert {line.partition(":")[0] for line in between} == {"text", "pages"}
    assert left == []


@pytest.mark.parametrize("comer", [attach, adopt])
def test_a_row_whose_memory_never_came_is_free_again(
    account: Account, comer: Callable[[int], Session]
) -> None:
    """Sixteen such deaths took the numbers of all controllers."""

    def dies(line: Line, pid: int) -> None:
        session = attach(pid, tracing.SMALL)
        regions._map_shared = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        session.register(tracing.recording("f_nop5"))

    with start(build("hot.c"), "threads=1", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[int, int]:
            with attach(target.pid, tracing.SMALL) as session:

                def planned() -> int:
                    return int((session.region.registry.segments["state"] == State.PLANNED).sum())

                with beside(account, dies, target.pid) as other, pytest.raises(ChildFailed):
                    other.hear()
                before = planned()
                comer(target.pid).close()
                return before, planned()

        planned = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert planned == (1, 0)


def test_text_that_is_another_for_a_moment_is_looked_at_again(account: Account) -> None:
    """As where a library is unloaded, and another one loaded, in the instant of a stop."""
    with start(build("hot.c"), "threads=1", "pause_us=50", account=account, hold=True) as target:

        def controller() -> tuple[int, Counter[str], Counter[str]]:
            with attach(target.pid, tracing.SMALL) as session:
                (ip,) = map(int, session.functions.symbols.match("f_lea"))
                memory = session.target.memory
                kept = memory.read(ip, 1)
                transaction = session._transaction
                looked, times = transaction._relied_on, []

                def change_once() -> Pieces | None:
                    times.append(1)
                    memory.write(ip, kept if len(times) > 1 else b"\xcc")
                    return looked()

                transaction._relied_on = change_once  # type: ignore[method-assign]
                ops = session.register(tracing.counting("f_lea"))
                target.go()
                target.await_calls("f_lea", 100)
                made = target.hold()
                return len(times), made, tracing.counted(session, ops)

        times, made, seen = account.run(controller)
        target.go()
        assert target.stop().is_well
    assert times == 2
    assert seen["f_lea"] == made["f_lea"] > 0


HIDES = """
import ctypes, sys
print("ready", flush=True)
sys.stdin.readline()
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE, prctl(2)
print("hidden", flush=True)
sys.stdin.readline()
"""


def test_a_process_that_has_hidden_its_memory_meanwhile_is_refused_in_words(
    account: Account,
) -> None:
    def controller() -> str:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-c", HIDES], stdin=pipe, stdout=pipe, text=True
        ) as program:
            assert program.stdin and program.stdout
            assert program.stdout.readline() == "ready\n"
            ours = process.Target(program.pid)
            program.stdin.write("\n")
            program.stdin.flush()
            assert program.stdout.readline() == "hidden\n"
            try:
                with ours.stopped():
                    return ""
            except AttachError as error:
                return error.what
            finally:
                ours.close()

    said = account.run(controller)
    assert ("Operation not permitted" in said) is (not account.run(may_trace_all))


def may_trace_all() -> bool:
    effective = re.search("^CapEff:\t(.*)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert effective
    return bool(int(effective[1], 16) >> CAP_SYS_PTRACE & 1)


def test_several_others_one_after_the_other_are_waited_for(account: Account) -> None:
    # None of them for as long as a debugger would stay, all of them for longer.
    def holds(line: Line, pid: int) -> None:
        for tid in list_tids(pid):
            while True:
                try:
                    ptrace.seize(tid, 0)
                    break
                except PermissionError:
                    continue
        line.say("held")
        time.sleep(OTHERS_LIMIT_S * 0.4)

    with start(build("hot.c"), "threads=1", account=account, hold=True) as target:
        with ExitStack() as stack:
            first, *others = [
                stack.enter_context(beside(account, holds, target.pid)) for _ in range(5)
            ]

            def controller() -> None:
                with pytest.MonkeyPatch.context() as patched:
                    patched.setattr(
                        stop, "LOCK_LIMIT_S", 60.0
                    )  # how long in all is not the question
                    with Stop(target.pid):
                        pass

            account.run(controller)
            for one in (first, *others):
                assert one.hear() == "held"
        target.go()
        assert target.stop().is_well
