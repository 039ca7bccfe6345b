"""fentry symfile: gdb names generated code and finds the callers from each of its instructions."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import callbacks, tracing
from tests.support.callbacks import calling
from tests.support.cli import compile_c, fentry, folder_of
from tests.support.process import start
from tests.support.unprivileged import Account

from fentry.session import attach
from fentry.trampolines.native import CFunction

SOURCE = r"""
#include <unistd.h>
__attribute__((noinline)) long inner(long i) { __asm__ volatile(""); return i + 1; }
__attribute__((noinline)) long outer(long i) { return inner(i) * 2; }
int main(void) { write(1, "READY\n", 6); for (long i = 0;; i++) { outer(i); usleep(100); } }
"""

PUSHFQ_BYTES = 1

SCRIPT = """
import gdb
gdb.execute("add-symbol-file {symbols}", to_string=True)
gdb.execute("tbreak *{address}", to_string=True)
gdb.execute("continue", to_string=True)
for _ in range({steps}):
    names, frame = [], gdb.newest_frame()
    while frame is not None:
        names.append(str(frame.name()))
        frame = frame.older()
    print("CALLERS", *names)
    if "popf" in gdb.execute("x/i $pc", to_string=True):
        break
    gdb.execute("stepi", to_string=True)
"""


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def callers(
    account: Account, pid: int, folder: Path, steps: int, *, behind: int = 0
) -> list[list[str]]:
    """The frames that gdb sees from each instruction of a trampoline on, outermost last; from some
    bytes `behind` its first one."""
    symbols = folder / "code.sym"
    done = fentry(account, "symfile", "-p", pid, "-o", symbols)
    assert done.code == 0, done.err
    assert f"gdb -p {pid} -ex 'add-symbol-file {symbols}'" in done.err
    table = subprocess.run(
        ["readelf", "-sW", symbols], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"([0-9a-f]{16}) +\d+ FUNC .* fentry_trampoline:", table)
    assert found is not None, table
    script = folder / "steps.py"
    address = int(found[1], 16) + behind
    script.write_text(SCRIPT.format(symbols=symbols, address=address, steps=steps))

    def run() -> str:
        command = ["gdb", "-q", "-batch", "-p", str(pid), "-x", str(script)]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
        ).stdout

    lines = account.run(run).splitlines()
    return [line.split()[1:] for line in lines if line.startswith("CALLERS")]


def chain(frames: list[str]) -> list[str]:
    """The frames of the program itself, up to main."""
    own = [name for name in frames if name in ("inner", "outer", "main")]
    return own[: own.index("main") + 1] if "main" in own else own


def test_gdb_finds_the_callers_from_everywhere_in_a_recording_trampoline(
    account: Account, folder: Path
) -> None:
    program = compile_c(folder, SOURCE, "-g")
    with start(program, account=account, control=False) as target:
        target.await_condition(lambda: "READY" in target.out, "in main", 20)

        def controller() -> list[list[str]]:
            with attach(target.pid) as session:
                session.register(tracing.recording("inner"))
                return callers(account, target.pid, folder, 40)

        seen = account.run(controller)
        assert target.is_alive
    assert len(seen) > 20
    assert {tuple(chain(frames)) for frames in seen} == {("outer", "main")}
    assert {frames[0] for frames in seen} == {"fentry_trampoline:record_1"}
    assert {frames[1] for frames in seen} == {"fentry_pad:inner"}


def test_gdb_finds_the_callers_of_a_callback(account: Account, folder: Path) -> None:
    program = compile_c(folder, SOURCE, "-g")
    function = CFunction.compile(callbacks.SUM)
    with start(program, account=account, control=False) as target:
        target.await_condition(lambda: "READY" in target.out, "in main", 20)

        def controller() -> list[list[str]]:
            with attach(target.pid) as session:
                session.register(calling(function, "inner"))
                # Not over pushfq, nor over popfq: in a single step both keep the trap flag.
                return callers(account, target.pid, folder, 600, behind=PUSHFQ_BYTES)

        seen = account.run(controller)
        assert target.is_alive
    own = [frames for frames in seen if frames[0].startswith("fentry_trampoline:call_1")]
    assert len(own) > 30
    assert {tuple(chain(frames)) for frames in own} == {("outer", "main")}


def test_perf_is_given_a_map(account: Account, folder: Path) -> None:
    program = compile_c(folder, SOURCE)
    path, link = folder / "map", folder / "link"
    link.symlink_to(folder / "elsewhere")
    with start(program, account=account, control=False) as target:
        target.await_condition(lambda: "READY" in target.out, "in main", 20)
        none = fentry(account, "symfile", "-p", target.pid, "-o", path)

        def controller() -> tuple[int, int]:
            with attach(target.pid) as session:
                session.register(tracing.recording("inner"))
                done = fentry(account, "symfile", "--perf", "-p", target.pid, "-o", path)
                linked = fentry(account, "symfile", "--perf", "-p", target.pid, "-o", link)
                return done.code, linked.code

        codes = account.run(controller)
    assert (none.code, codes) == (2, (0, 1))
    assert not (folder / "elsewhere").exists()
    lines = [line.split(" ", 2) for line in path.read_text().splitlines()]
    assert [name for _, _, name in lines] == ["fentry_trampoline:record_1", "fentry_pad:inner"]
    assert all(int(start, 16) > 0 and int(size, 16) > 0 for start, size, _ in lines)
