"""Hard cases 83 to 85: static, musl and libc-less programs; other languages."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.live.programs.fed import fed, folder, guests
from tests.support import tracing
from tests.support.build import build, building, run_compiler, target_directory
from tests.support.control import Control
from tests.support.machine import need_tool
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.session import Options, attach, run

BIG = Options(buffer_bytes=16 << 20)
HERE = Path(__file__).resolve().parent

TRACED = (
    "f_plain", "f_frame", "f_pushes", "f_endbr", "f_lea", "f_nop5", "f_endbr_nop5", "f_tail",
    "f_target", "f_patchable", "f_padded", "f_redzone", "f_rip", "f_short", "f_jump_first",
    "f_around", "f_inside", "f_loop_into", "f_carrier", "f_tiny", "f_hop",
)  # fmt: skip

KINDS: dict[str, Callable[[], Path]] = {
    "static": lambda: build("hot.c", static=True),
    "static-pie": lambda: build("hot.c", flags=["-static-pie"]),
    "static-stripped-of-debug": lambda: build("hot.c", static=True, flags=["-Wl,-S"]),
    "no-pie": lambda: build("hot.c", pie=False),
    "musl": lambda: build("hot.c", compiler=need_tool("musl-gcc")),
    "musl-static": lambda: build("hot.c", compiler=need_tool("musl-gcc"), static=True),
    "nolibc": lambda: build("nolibc.c"),
}


def functions_of(kind: str) -> tuple[str, ...]:
    """What is traced in a program of that kind."""
    return ("f_raw",) if kind == "nolibc" else TRACED


# 83, 84


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_program_is_traced_exactly_when_attached(account: Account, kind: str) -> None:
    names = functions_of(kind)
    with start(KINDS[kind](), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str]]:
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                target.go()
                target.await_calls(names[0], 500)
                held = target.hold()
                assert tracing.dropped(session) == 0
                return held, tracing.counted(session, ops), tracing.recorded(session)

        held, counts, records = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        end = target.stop()
    wanted = {name: held[name] for name in names}
    assert counts == wanted
    assert records == wanted
    assert found == []
    assert end.is_well, end.err


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_program_is_traced_exactly_when_started(account: Account, kind: str) -> None:
    names, program = functions_of(kind), KINDS[kind]()
    with folder(account) as place:
        page = Control.create(place / "control", owner=account.uid)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], list[str], int]:
            os.environ["FENTRY_BED"] = str(page.path)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            session = run([str(program), "pause_us=50", "threads=2"], BIG)
            try:
                ops = session.register(tracing.counting("f_*"))
                session.register(tracing.recording("f_*"))
                session.release()
                await_page(page, lambda: page.ready and page.counters()[names[0]] >= 300)
                page.hold()
                await_page(page, lambda: page.parked)
                held = page.counters()
                counts, records = tracing.counted(session, ops), tracing.recorded(session)
                assert tracing.dropped(session) == 0
                session.detach()
                left = guests(session.pid)
                page.stop()
                code = session.exit_code()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.kill(session.pid, signal.SIGKILL)
                raise
            session.target.close()
            return held, counts, records, left, code

        try:
            held, counts, records, left, code = account.run(controller)
        finally:
            page.stop()  # also a program that was left running by a failure
        bad = page.bad
    wanted = {name: held[name] for name in names}
    assert counts == wanted
    assert records == wanted
    assert left == []
    assert (code, bad) == (0, 0)


def await_page(page: Control, holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what the page of a started program shows."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, page.counters()
        time.sleep(0.001)


# 85


def test_exceptions_pass_through_traced_frames(account: Account) -> None:
    with start(build("throw.cpp"), "pause_us=50", account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[Counter[str], Counter[str], Counter[str], int]:
            with attach(target.pid, BIG) as session:
                ops = session.register(tracing.counting("f_*"))
                unwinder = session.register(tracing.counting("libgcc_s!*", "libstdc++!*"))
                session.register(tracing.recording("f_*"))
                target.go()
                target.await_calls("catches", 100)
                held = target.hold()
                thrown = tracing.counted(session, unwinder)["__cxa_throw"]
                return held, tracing.counted(session, ops), tracing.recorded(session), thrown

        held, counts, records, thrown = account.run(controller)
        found = diff(before, snapshot(target.pid), ignore=("maps",))
        left = guests(target.pid)
        target.go()
        end = target.stop()
    # f_rethrows begins with a call: the unwinder finds the true return address
    assert counts == records == {name: held[name] for name in ("f_throws", "f_rethrows")}
    assert held["f_throws"] >= 100 * 21
    assert thrown == held["catches"]
    assert found == left == []
    assert end.is_well, end.err


def compiled(source: str, compiler: str, *flags: str) -> Path:
    """The program of tests/live/programs/SOURCE."""
    path = HERE / "programs" / source
    output = target_directory() / f"{path.stem}-{path.stat().st_mtime_ns:x}"
    with building(output) as unfinished:
        if unfinished is not None:
            run_compiler([compiler, *flags, f"-o{unfinished}", str(path)])
    return output


def rust() -> Path:
    """A program in Rust with threads and panics, where there is a compiler."""
    if shutil.which("rustc") is None:
        pytest.skip("no rustc on this machine; this test is not needed where there is none")
    return compiled("panics.rs", "rustc", "-O", "-Ccodegen-units=1")


def pascal() -> Path:
    """A program in Pascal, without any C library, with its own kind of exceptions."""
    return compiled(
        "raises.pas", need_tool("fpc"), "-O2", "-Xs-", "-v0", f"-FU{target_directory()}"
    )


LANGUAGES = {  # program, the traced function, what one round answers
    "rust": (rust, "f_rust", "4000 5932360"),
    "pascal": (pascal, "f_pascal", "1000 1483090"),
}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_other_language_is_traced_exactly(account: Account, language: str) -> None:
    compile_it, function, answer = LANGUAGES[language]
    with fed(compile_it(), account=account) as program:
        assert program.ask("warm up") == answer
        before = program.quiet()

        def controller() -> tuple[str, Counter[str], Counter[str], list[str]]:
            with attach(program.pid, BIG) as session:
                ops = session.register(tracing.counting(function))
                session.register(tracing.recording(function))
                everything = session.register(tracing.counting("*"))
                said = program.ask("go")
                program.quiet()
                counts, records = tracing.counted(session, ops), tracing.recorded(session)
                busy = [name for name, _ in tracing.counted(session, everything).most_common()]
                return said, counts, records, busy

        said, counts, records, busy = account.run(controller)
        found = diff(before, program.quiet(), ignore=("maps", "threads"))
        assert program.ask("once more") == answer
    assert said == answer
    assert counts == records == {function: int(answer.split()[0])}
    assert len(busy) > 5
    assert found == []
